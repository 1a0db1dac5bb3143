"""What if: attempts of the ledger at the prices of other models, providers, lanes and days, from stored token counts.

Each attempt is priced by itself, because tiers, hours and rounding ask for that (equal ones at once).
What can't be known stays NULL.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from typing import Any

from pipeline.budget import ZERO
from pipeline.errors import PriceError, UsageError
from pipeline.ledger import Ledger, rows_of
from pipeline.pricebook import Prices, Target
from pipeline.pricing import Price, cost_usd
from pipeline.providers import may_be_billed
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
    ledger: Ledger, prices: Prices, targets: Sequence[Target], *, by: Sequence[str], on: date | None = None
) -> list[dict[str, Any]]:
    """Return the cost of each group beside what it would have been, a line for each target.

    Prices are those in force when the attempts were sent, or `on` a day. Raises UsageError, PriceError.
    """
    for name in by:
        if name not in DIMENSIONS:
            raise UsageError(f"--by {name}: choose from {', '.join(DIMENSIONS)}")
    targets = [_sold(target, prices) for target in targets]
    hours = any(prices.has_hours(target.provider or "", target.model) for target in targets)
    query = report.SQL.format(by=", ".join(by), moment=report.EXACTLY if hours else report.THE_DAY)
    with ledger.read() as connection:
        groups = rows_of(connection, query)
    sums: dict[tuple[Any, ...], _Sum] = {}
    for target in targets:
        look_up = _look_up(prices, target, on)
        for group in groups:
            place = (*(group[name] for name in by), str(target))
            _add(sums.setdefault(place, _Sum()), group, look_up, target.lane)
    for total in sums.values():
        if not total.as_unknown:
            total.as_usd = total.as_usd or ZERO
    lines = sorted(sums.items(), key=lambda item: [str(part) for part in item[0][:-1]])
    return [_line([*by, "as"], place, total) for place, total in lines]


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


def _look_up(prices: Prices, target: Target, on: date | None) -> Any:
    @cache
    def at(day: date) -> Price | None:
        found = prices.find(target.provider or "", target.model, datetime.combine(day, time(), UTC))
        return found if found is not None and found.sells(target.lane) else None

    return lambda sent: at(on or sent.date())


def _add(total: _Sum, group: dict[str, Any], look_up: Any, lane: str) -> None:
    count = group["attempts"]
    total.attempts += count
    total.unknown_cost += group["unknown_cost"]
    total.cost_usd = _plus(total.cost_usd, group["cost_usd"])
    if group["unbilled"] and not may_be_billed(group["http_status"], group["error_type"]):
        return  # it would have cost nothing anywhere
    price = look_up(group["sent_at"])
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


def _line(names: Iterable[str], place: tuple[Any, ...], total: _Sum) -> dict[str, Any]:
    known = total.as_usd is not None and total.cost_usd is not None
    comparable = known and not total.as_unknown and not total.unknown_cost
    return {
        **dict(zip(names, place, strict=True)),
        "attempts": total.attempts,
        "cost_usd": (total.cost_usd or None) if total.unknown_cost else total.cost_usd,
        "unknown_cost": total.unknown_cost,
        "as_usd": total.as_usd,
        "as_unknown": total.as_unknown,
        "difference_usd": (total.as_usd or ZERO) - (total.cost_usd or ZERO) if comparable else None,
    }
