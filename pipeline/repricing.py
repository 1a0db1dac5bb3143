"""What if: attempts of the ledger at prices of other models, providers, lanes and days, or with more from the cache.

Each attempt is priced by itself from its stored token counts, because tiers, hours and rounding ask for that (equal
ones at once). What can't be known stays NULL.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.budget import ZERO
from pipeline.errors import PriceError, UsageError
from pipeline.ledger import Ledger, rows_of
from pipeline.pricebook import Prices, Target
from pipeline.pricing import Price, cost_usd
from pipeline.providers import may_be_billed
from pipeline.records import Usage
from pipeline.reports import reprice as report
from pipeline.reports.spend import ALWAYS_AND_EVER, Period

_SHARE = re.compile(r"0|1|[01]?\.[0-9]{1,12}|1\.0+")


@dataclass(frozen=True, slots=True)
class Caching:
    """Which part of each attempt's input is taken as read from the provider's cache, and as written to it.

    It stands in place of what was booked. How it goes together with a lane is a matter of the lane's price: a batch
    halves Anthropic's cached input too, and Groq's batches cost the same with and without a cache.
    """

    read: Decimal
    written: Decimal = ZERO

    @classmethod
    def parse(cls, text: str) -> "Caching":
        """Read READ[,WRITTEN], two shares of the input. Raises UsageError."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 2 or not all(_SHARE.fullmatch(part) for part in parts):  # noqa: PLR2004 -- read and written
            raise UsageError(f"--cached {text}: write a share of the input from 0 to 1, such as 0.8, or two: 0.8,0.1")
        found = cls(*map(Decimal, parts))
        if found.read + found.written > 1:
            raise UsageError(f"--cached {text}: what is read and what is written can't be more than all of the input")
        return found

    def of(self, usage: Usage) -> Usage:
        """Return the usage with these shares, in whole tokens: a part of one is not read."""
        read, written = (_part(usage.input_tokens, share) for share in (self.read, self.written))
        return usage._replace(cached_input_tokens=read, cache_write_tokens=written)


def _part(tokens: int, share: Decimal) -> int:
    above, below = share.as_integer_ratio()
    return tokens * above // below


@dataclass(frozen=True, slots=True)
class Repriced:
    """What the attempts of each group cost, beside what they would have cost."""

    lines: list[dict[str, Any]]
    totals: list[dict[str, Any]]
    """The same over all groups, a line for each target; what they were grouped by is None."""
    warnings: list[str]


@dataclass(slots=True)
class _Sum:
    attempts: int = 0
    cost_usd: Decimal | None = None
    unknown_cost: int = 0
    as_usd: Decimal | None = None
    as_unknown: int = 0

    def add(self, other: "_Sum") -> None:
        self.attempts += other.attempts
        self.cost_usd = _plus(self.cost_usd, other.cost_usd)
        self.unknown_cost += other.unknown_cost
        self.as_usd = _plus(self.as_usd, other.as_usd)
        self.as_unknown += other.as_unknown


def reprice(
    ledger: Ledger,
    price_file: Path | None,
    targets: Sequence[Target],
    *,
    by: Sequence[str],
    days: Sequence[date] = (),
    caching: Caching | None = None,
    period: Period = ALWAYS_AND_EVER,
) -> Repriced:
    """Return the cost of each group beside what it would have been, a line for each target.

    Without a target each attempt keeps its model, provider and lane. Prices are those in force when the attempts were
    sent, or on a day; of two days a line has both, and the difference. Raises UsageError, PriceError.
    """
    if len(days) > 2 or len(set(days)) < len(days):  # noqa: PLR2004 -- one, or two to compare
        raise UsageError("--at: name one day, or two different ones to compare their prices")
    days = sorted(days)
    lists = _Lists(price_file)
    sold = list(dict.fromkeys(_sold(target, lists.all) for target in targets))  # X and X@P may be the same
    groups = _groups(ledger, lists.all, sold, by, period)
    sums: dict[tuple[Any, ...], list[_Sum]] = {}
    idle: dict[Target, bool] = {}
    """Whether reading from a cache saved nothing at any of the prices."""
    for target in sold or (None,):
        for group in groups:
            place = (*(group[name] for name in by), None if target is None else str(target))
            totals = sums.setdefault(place, [_Sum() for _ in days or (None,)])
            named = target or Target(group["own_model"], group["own_provider"], group["own_lane"])
            whose = report.ANY_LIST if target is not None else group["whose"]
            for total, day in zip(totals, days or (None,), strict=True):
                offer = lists.find(named.provider or "", named.model, named.lane, whose, day or group["sent_at"].date())
                _add(total, group, offer, named.lane, caching)
                if offer is not None and caching is not None and caching.read:
                    idle[named] = idle.get(named, True) and offer.is_idle
    lines = sorted(sums.items(), key=lambda item: [_nulls_last(part) for part in item[0][:-1]])
    return Repriced(
        [_line([*by, "as"], place, totals, days) for place, totals in lines],
        [_line([*by, "as"], place, totals, days) for place, totals in _whole(sums).items()],
        [_IDLE.format(named) for named, saves_nothing in idle.items() if saves_nothing],
    )


def _whole(sums: Mapping[tuple[Any, ...], list[_Sum]]) -> dict[tuple[Any, ...], list[_Sum]]:
    """Add up all groups of each target."""
    whole: dict[tuple[Any, ...], list[_Sum]] = {}
    for (*groups, target), totals in sums.items():
        place = (*[None] * len(groups), target)
        for total, more in zip(whole.setdefault(place, [_Sum() for _ in totals]), totals, strict=True):
            total.add(more)
    return whole


def _nulls_last(part: Any) -> tuple[bool, Any]:
    return (True, None) if part is None else (False, part)


def _sold(target: Target, prices: Prices) -> Target:
    """Name the provider if only one sells the model: there is no price of a model alone.

    Raises PriceError for what nobody has ever sold: most likely a name is mistyped.
    """
    if target.provider is not None:
        if not prices.has_any(target.provider, target.model):
            near = prices.nearest(target.model, target.provider)
            raise PriceError(f"--as {target}: no price of {target.model} at {target.provider} is known{near}")
        return target
    sellers = prices.sellers(target.model, datetime.now(UTC))
    if not sellers:
        near = prices.nearest(target.model, None)
        raise PriceError(
            f"--as {target}: nobody's price of {target.model} is known; `promptmill prices` lists some{near}"
        )
    if len(sellers) > 1:
        raise PriceError(f"--as {target}: {target.model} has several sellers; write {target.model}@ and one of"
                         f" {', '.join(sellers)}")  # fmt: skip
    return Target(target.model, sellers[0], target.lane)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A price that sells the lane."""

    price: Price
    is_idle: bool
    """A cache saves nothing: no price of cached input is known, or the lane has taken as much off all input."""


class _Lists:
    """The price lists; each price is looked up once a day."""

    def __init__(self, price_file: Path | None) -> None:
        self.all = Prices(price_file)
        books = {report.ANY_LIST: self.all, report.USERS_FILE: Prices(price_file, own_only=True)}

        @cache
        def find(provider: str, model: str, lane: str, whose: str, day: date) -> _Offer | None:
            if whose not in books:
                return None
            price = books[whose].find(provider, model, datetime.combine(day, time(), UTC))
            if price is None or not price.sells(lane):
                return None
            tariff, _ = price.terms_at(lane, None)
            dear = all(rates.cached_input >= rates.input for rates in tariff.every_rate())
            return _Offer(price, is_idle=dear and not price.is_free)

        self.find = find


def _groups(
    ledger: Ledger, prices: Prices, sold: Sequence[Target], by: Sequence[str], period: Period
) -> list[dict[str, Any]]:
    """Return attempts by what decides their price: the hour of sending, too, where a price depends on it."""
    with ledger.read() as connection:
        if sold:
            names = [(target.provider or "", target.model) for target in sold]
        else:
            names = [(row["provider"], row["model"]) for row in rows_of(connection, report.MODELS)]
        hours = any(prices.has_hours(*name) for name in names)
        query = report.SQL.format(
            by=", ".join(by),
            own="" if sold else report.OWN,
            moment=report.EXACTLY if hours else report.THE_DAY,
            where=period.condition,
        )
        return rows_of(connection, query)


def _add(total: _Sum, group: dict[str, Any], offer: _Offer | None, lane: str, caching: Caching | None) -> None:
    count = group["attempts"]
    total.attempts += count
    total.unknown_cost += group["unknown_cost"]
    total.cost_usd = _plus(total.cost_usd, group["cost_usd"])
    if group["unbilled"] and not may_be_billed(group["http_status"], group["error_type"]):
        return  # it would have cost nothing anywhere
    if offer is None or group["input_tokens"] is None or group["output_tokens"] is None:
        if offer is not None and offer.price.is_free:  # whatever its tokens were
            total.as_usd = _plus(total.as_usd, ZERO)
        else:
            total.as_unknown += count
        return
    usage = Usage(
        group["input_tokens"], group["output_tokens"], group["cached_input_tokens"] or 0,
        group["cache_write_tokens"] or 0, group["reasoning_tokens"] or 0,
    )  # fmt: skip
    usage = usage if caching is None else caching.of(usage)
    usd = cost_usd(offer.price, usage, lane=lane, at=group["sent_at"].replace(tzinfo=UTC))
    total.as_usd = _plus(total.as_usd, usd * count)


def _plus(total: Decimal | None, more: Decimal | None) -> Decimal | None:
    return total if more is None else (total or ZERO) + more


_IDLE = "{}: input read from the cache costs no less than other input there, as far as the price lists know"


def _line(names: Iterable[str], place: tuple[Any, ...], totals: Sequence[_Sum], days: Sequence[date]) -> dict[str, Any]:
    spent = totals[0]
    line = {
        **dict(zip(names, place, strict=True)),
        "attempts": spent.attempts,
        "cost_usd": (spent.cost_usd or None) if spent.unknown_cost else spent.cost_usd,
        "unknown_cost": spent.unknown_cost,
    }
    costs = [(total.as_usd or ZERO) if not total.as_unknown else total.as_usd for total in totals]
    in_full = [None if total.as_unknown else cost for total, cost in zip(totals, costs, strict=True)]
    if len(totals) == 1:
        spent_usd = None if spent.unknown_cost else spent.cost_usd
        return line | {
            "as_usd": costs[0],
            "as_unknown": spent.as_unknown,
            "difference_usd": _less(in_full[0], spent_usd),
        }
    for when, day, total, cost in zip(("before", "after"), days, totals, costs, strict=True):
        line |= {when: day, f"{when}_usd": cost, f"{when}_unknown": total.as_unknown}
    return line | {"change_usd": _less(in_full[1], in_full[0])}


def _less(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one - other
