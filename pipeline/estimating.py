"""What a job will cost, before it costs anything: count every request as rendered, send nothing."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any

from pipeline.counting import Counting, ToCount
from pipeline.doorman import Limits
from pipeline.ledger import Known
from pipeline.planning import Meter, Plan, PlannedRow, Selection, decide
from pipeline.pricing import cost_usd
from pipeline.records import Request, TokenCount, Usage

_RANK = {"exact": 0, "formula": 1, "approximate": 2}
_EXACT = Context(prec=60)
"""Sums of many exact costs, whatever the calling thread's own precision is."""
Tick = Callable[[int, float | None], None]
"""Hears how many rows are counted, and which share of the input that is (None: nobody knows)."""


class Forecast:
    """Running sums over the requests that will be sent.

    Requests of one size cost the same, so sizes are counted and priced once. (Different sizes are few: a million of
    them would be 2 TB of text.)
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.sizes: Counter[int] = Counter()
        """Input tokens of a request -> how many requests have that many."""
        self._bounds: Counter[int] = Counter()
        self._methods: set[str] = {"exact"}

    def add(self, counts: Sequence[TokenCount]) -> None:
        """Count requests."""
        self.sizes.update([count.tokens for count in counts])
        self._bounds.update([count.bound for count in counts])
        self._methods.update([count.method for count in counts])

    @property
    def requests(self) -> int:
        """How many there are."""
        return self.sizes.total()

    @property
    def input_tokens(self) -> int:
        """Input tokens of all requests, as counted."""
        return sum(size * requests for size, requests in self.sizes.items())

    @property
    def limit_tokens(self) -> int:
        """Input tokens + max_tokens: what tokens-per-minute limits are charged."""
        return sum(self._meter.limit_tokens(size) * requests for size, requests in self.sizes.items())

    @property
    def longest(self) -> int:
        """Input tokens of the longest request."""
        return max(self.sizes, default=0)

    @property
    def method(self) -> str:
        """The least sure method among the counts."""
        return max(self._methods, key=_RANK.__getitem__)

    @property
    def low_usd(self) -> Decimal | None:
        """The input alone, as counted; None without a price."""
        price = self._meter.price
        return None if price is None else _total(self.sizes, lambda size: cost_usd(price, Usage(size, 0)))

    @property
    def ceiling_usd(self) -> Decimal | None:
        """Every request at its worst case, retries apart; None if price or max_tokens leave it open."""
        return _total(self._bounds, self._meter.worst_case)

    def record(self, run_id: int, plan_id: int, rows: int) -> dict[str, Any]:
        """Return the row for `estimates`."""
        return {
            "run_id": run_id,
            "plan_id": plan_id,
            "rows": rows,
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "count_method": self.method,
            "low_usd": _as_text(self.low_usd),
            "ceiling_usd": _as_text(self.ceiling_usd),
        }


def _total(sizes: Counter[int], cost: Callable[[int], Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    with localcontext(_EXACT):
        for size, requests in sizes.items():
            one = cost(size)
            if one is None:
                return None
            total += one * requests
    return total


def _as_text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"


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
    counter: str | None
    """What counted: `tiktoken` or `toktok`; None if every count was kept from an earlier command."""
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


@dataclass(slots=True)
class _Sorted:
    """What the rows of a plan mean for a run, and how many need no exchange."""

    known: Known
    selection: Selection
    max_tokens: int | None
    repeated: int = 0
    already: int = 0
    reused: int = 0
    rejected: int = 0

    def steps(self, plan: Plan) -> Iterator[ToCount[tuple[int, float | None]]]:
        """Scan the plan: the requests that would be sent, batch by batch."""
        for rows in plan.batches():
            step: ToCount[tuple[int, float | None]] = ToCount((plan.rows, plan.share), [], [])
            for row in rows:
                self._sort(row, step.requests, step.passed)
            yield step

    def _sort(self, row: PlannedRow, requests: list[Request], passed: list[str]) -> None:
        what = decide(self.known, row.key, self.selection, self.max_tokens).what
        if what in {"ended", "skip"}:
            self.already += 1
        elif row.repeated:
            self.repeated += 1
        elif what == "reuse":
            self.reused += 1
        elif row.request is None:
            self.rejected += 1
        else:
            requests.append(row.request)
            return
        if row.request is not None and not row.repeated:
            passed.append(row.key)


def estimate(
    plan: Plan,
    known: Known,
    counting: Counting,
    limits: Limits,
    *,
    selection: Selection,
    max_tokens: int | None,
    tick: Tick | None = None,
) -> Estimate:
    """Scan the whole plan and add up what would be sent. `tick` hears how far it is, now and then."""
    meter, rows = counting.meter, _Sorted(known, selection, max_tokens)
    forecast = Forecast(meter)
    for progress, _, counts in counting.counted(rows.steps(plan), whole=lambda: plan.complete):
        fitting = [count for count in counts if not limits.never_fits(meter.limit_tokens(count.tokens))]
        rows.rejected += len(counts) - len(fitting)
        forecast.add(fitting)
        if tick is not None:
            tick(*progress)
    seconds, binding = _time(forecast, limits)
    return Estimate(
        rows=plan.rows,
        to_send=forecast.requests,
        repeated=rows.repeated,
        already=rows.already,
        reused=rows.reused,
        rejected=rows.rejected,
        input_tokens=forecast.input_tokens,
        count_method=forecast.method,
        counter=meter.counter.library if counting.made else None,
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
