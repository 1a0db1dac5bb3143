"""What if: attempts of the ledger at prices of other models, providers, lanes and days.

Each attempt is priced by itself from its stored token counts, because tiers, hours and rounding ask for that (equal
ones at once). What can't be known stays NULL.
"""

from collections.abc import Iterable, Sequence
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
from pipeline.records import Usage
from pipeline.reports import reprice as report
from pipeline.reports.spend import DIMENSIONS


@dataclass(slots=True)
class _Sum:
    attempts: int = 0
    cost_usd: Decimal | None = None
    unknown_cost: int = 0
    as_usd: Decimal | None = None
    as_unknown: int = 0


def reprice(
    ledger: Ledger,
    price_file: Path | None,
    targets: Sequence[Target],
    *,
    by: Sequence[str],
    days: Sequence[date] = (),
) -> list[dict[str, Any]]:
    """Return the cost of each group beside what it would have been, a line for each target.

    Without a target each attempt keeps its model, provider and lane. Prices are those in force when the attempts were
    sent, or on a day; of two days a line has both, and the difference. Raises UsageError, PriceError.
    """
    for name in by:
        if name not in DIMENSIONS:
            raise UsageError(f"--by {name}: choose from {', '.join(DIMENSIONS)}")
    if len(days) > 2 or len(set(days)) < len(days):  # noqa: PLR2004 -- one, or two to compare
        raise UsageError("--at: name one day, or two different ones to compare their prices")
    days = sorted(days)
    lists = _Lists(price_file)
    sold = [_sold(target, lists.all) for target in targets]
    groups = _groups(ledger, lists.all, sold, by)
    sums: dict[tuple[Any, ...], list[_Sum]] = {}
    for target in sold or (None,):
        for group in groups:
            place = (*(group[name] for name in by), None if target is None else str(target))
            totals = sums.setdefault(place, [_Sum() for _ in days or (None,)])
            named = target or Target(group["own_model"], group["own_provider"], group["own_lane"])
            whose = report.ANY_LIST if target is not None else group["whose"]
            for total, day in zip(totals, days or (None,), strict=True):
                price = lists.find(named.provider or "", named.model, named.lane, whose, day or group["sent_at"].date())
                _add(total, group, price, named.lane)
    lines = sorted(sums.items(), key=lambda item: [_nulls_last(part) for part in item[0][:-1]])
    return [_line([*by, "as"], place, totals, days) for place, totals in lines]


def _nulls_last(part: Any) -> tuple[bool, Any]:
    return (True, None) if part is None else (False, part)


def _sold(target: Target, prices: Prices) -> Target:
    """Name the provider if only one sells the model: there is no price of a model alone."""
    if target.provider is not None:
        return target
    sellers = prices.sellers(target.model, datetime.now(UTC))
    if not sellers:
        raise PriceError(f"--as {target}: nobody's price of {target.model} is known; `promptmill prices` lists some")
    if len(sellers) > 1:
        raise PriceError(f"--as {target}: {target.model} has several sellers; write {target.model}@ and one of"
                         f" {', '.join(sellers)}")  # fmt: skip
    return Target(target.model, sellers[0], target.lane)


class _Lists:
    """The price lists; each price is looked up once a day."""

    def __init__(self, price_file: Path | None) -> None:
        self.all = Prices(price_file)
        books = {report.ANY_LIST: self.all, report.USERS_FILE: Prices(price_file, own_only=True)}

        @cache
        def find(provider: str, model: str, lane: str, whose: str, day: date) -> Price | None:
            if whose not in books:
                return None
            price = books[whose].find(provider, model, datetime.combine(day, time(), UTC))
            return price if price is not None and price.sells(lane) else None

        self.find = find


def _groups(ledger: Ledger, prices: Prices, sold: Sequence[Target], by: Sequence[str]) -> list[dict[str, Any]]:
    """Return attempts by what decides their price: the hour of sending, too, where a price depends on it."""
    with ledger.read() as connection:
        if sold:
            names = [(target.provider or "", target.model) for target in sold]
        else:
            names = [(row["provider"], row["model"]) for row in rows_of(connection, report.MODELS)]
        hours = any(prices.has_hours(*name) for name in names)
        query = report.SQL.format(
            by=", ".join(by), own="" if sold else report.OWN, moment=report.EXACTLY if hours else report.THE_DAY
        )
        return rows_of(connection, query)


def _add(total: _Sum, group: dict[str, Any], price: Price | None, lane: str) -> None:
    count = group["attempts"]
    total.attempts += count
    total.unknown_cost += group["unknown_cost"]
    total.cost_usd = _plus(total.cost_usd, group["cost_usd"])
    if group["unbilled"]:
        return  # it would have cost nothing anywhere
    if price is None or group["input_tokens"] is None or group["output_tokens"] is None:
        total.as_unknown += count
        return
    usage = Usage(
        group["input_tokens"], group["output_tokens"], group["cached_input_tokens"] or 0,
        group["cache_write_tokens"] or 0, group["reasoning_tokens"] or 0,
    )  # fmt: skip
    usd = cost_usd(price, usage, lane=lane, at=group["sent_at"].replace(tzinfo=UTC))
    total.as_usd = _plus(total.as_usd, usd * count)


def _plus(total: Decimal | None, more: Decimal | None) -> Decimal | None:
    return total if more is None else (total or ZERO) + more


def _line(names: Iterable[str], place: tuple[Any, ...], totals: Sequence[_Sum], days: Sequence[date]) -> dict[str, Any]:
    spent = totals[0]
    line = {
        **dict(zip(names, place, strict=True)),
        "attempts": spent.attempts,
        "cost_usd": spent.cost_usd,
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
