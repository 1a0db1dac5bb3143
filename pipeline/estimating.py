"""What a job will cost, before it costs anything: count every request as rendered, send nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipeline.doorman import Limits, Ticket
from pipeline.ledger import Known
from pipeline.planning import Meter, Plan, Selection, decide
from pipeline.pricing import cost_usd
from pipeline.records import Usage

_RANK = {"exact": 0, "formula": 1, "approximate": 2}


class Forecast:
    """Running sums over the requests that will be sent.

    `low_usd` is the input alone, as counted; `ceiling_usd` is every request at its worst case, retries apart.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.requests = 0
        self.input_tokens = 0
        self.limit_tokens = 0
        """Input tokens + max_tokens: what tokens-per-minute limits are charged."""
        self.method = "exact"
        self.low_usd: Decimal | None = None if meter.price is None else Decimal(0)
        self.ceiling_usd: Decimal | None = Decimal(0)
        self.longest = 0

    def add(self, ticket: Ticket) -> None:
        """Count one request."""
        self.requests += 1
        self.input_tokens += ticket.input_tokens
        self.limit_tokens += ticket.tokens
        self.longest = max(self.longest, ticket.input_tokens)
        if _RANK[ticket.count_method] > _RANK[self.method]:
            self.method = ticket.count_method
        if self.low_usd is not None and self._meter.price is not None:
            self.low_usd += cost_usd(self._meter.price, Usage(ticket.input_tokens, 0))
        if self.ceiling_usd is not None:
            self.ceiling_usd = None if ticket.reserve_usd is None else self.ceiling_usd + ticket.reserve_usd

    def record(self, run_id: int, plan_id: int, rows: int) -> dict[str, Any]:
        """Return the row for `estimates`."""
        return {
            "run_id": run_id,
            "plan_id": plan_id,
            "rows": rows,
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "count_method": self.method,
            "low_usd": None if self.low_usd is None else f"{self.low_usd:f}",
            "ceiling_usd": None if self.ceiling_usd is None else f"{self.ceiling_usd:f}",
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer of `estimate`. Dollars are None where the price (or max_tokens) is unknown, never zero."""

    rows: int
    to_send: int
    repeated: int
    """Rows that share another row's request."""
    already: int
    """Rows that have their outcome."""
    reused: int
    """Requests that another job's answer serves."""
    rejected: int
    """Rows that can't be sent: broken, or larger than a stated limit."""
    input_tokens: int
    count_method: str
    longest: int
    """Input tokens of the longest request."""
    low_usd: Decimal | None
    ceiling_usd: Decimal | None
    seconds: float | None
    """Least time to finish under the stated limits; None if none is stated."""
    binding_limit: str | None
    duplicate_ids: int
    complete: bool
    """False when --limit ended the scan before the input's end."""


def estimate(
    plan: Plan,
    known: Known,
    meter: Meter,
    limits: Limits,
    *,
    selection: Selection,
    max_tokens: int | None,
    tick: Callable[[int], None] | None = None,
) -> Estimate:
    """Scan the whole plan and add up what would be sent. `tick` hears the number of rows read, now and then."""
    forecast = Forecast(meter)
    repeated = already = reused = rejected = 0
    for batch in plan.batches():
        for row in batch:
            decision = decide(known, row.key, selection, max_tokens)
            if decision.what in {"ended", "skip"}:
                already += 1
            elif row.repeated:
                repeated += 1
            elif decision.what == "reuse":
                reused += 1
            elif row.request is None:
                rejected += 1
            else:
                ticket = meter.ticket(row.request)
                if limits.never_fits(ticket.tokens):
                    rejected += 1
                else:
                    forecast.add(ticket)
        if tick is not None:
            tick(plan.rows)
    seconds, binding = _time(forecast, limits)
    return Estimate(
        rows=plan.rows,
        to_send=forecast.requests,
        repeated=repeated,
        already=already,
        reused=reused,
        rejected=rejected,
        input_tokens=forecast.input_tokens,
        count_method=forecast.method,
        longest=forecast.longest,
        low_usd=forecast.low_usd,
        ceiling_usd=forecast.ceiling_usd,
        seconds=seconds,
        binding_limit=binding,
        duplicate_ids=plan.duplicate_ids,
        complete=plan.complete,
    )


def _time(forecast: Forecast, limits: Limits) -> tuple[float | None, str | None]:
    times: list[tuple[float, str]] = []
    if limits.requests_per_minute is not None:
        times.append((forecast.requests / limits.requests_per_minute * 60, "requests_per_minute"))
    if limits.tokens_per_minute is not None:
        times.append((forecast.limit_tokens / limits.tokens_per_minute * 60, "tokens_per_minute"))
    return max(times) if times else (None, None)
