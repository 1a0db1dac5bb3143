"""The answer of `estimate`: count every request as rendered, add what is known from before, send nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from pipeline.counting import Counting, ToCount
from pipeline.doorman import Limits
from pipeline.estimating._forecast import Forecast, forecast
from pipeline.estimating._outlook import Outlook
from pipeline.estimating._sample import Sample
from pipeline.estimating._to_send import ToSend
from pipeline.estimating._too_long import TooLong
from pipeline.ledger import Known
from pipeline.planning import Meter, Plan, PlannedRow, Selection, cut_before, decide, is_raised
from pipeline.records import Request, TokenCount
from pipeline.tokens import NOTHING_ATTACHED, Attached

Tick = Callable[[int, float | None], None]
"""Hears how many rows are counted, and which share of the input that is (None: nobody knows)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would send now and what it would cost. Dollars are None where nobody knows them, never zero."""

    rows: int
    to_send: int
    repeated: int
    """Rows that share another row's request."""
    already: int
    """Rows that have their outcome."""
    passed_over: int
    """Those of them that a retry doesn't look at; what it asked before it was interrupted is not among them."""
    reused: int
    """Requests that another job's answer serves."""
    rejected: int
    """Rows that can't be sent: broken, or larger than a stated limit."""
    held_back: int
    """Those of them that are larger than a stated limit."""
    sizes: Mapping[int, int]
    """Input tokens of a request -> how many requests to send have that many."""
    counter: str | None
    """What counted: `tiktoken` or `toktok`; None if every count was kept from an earlier command."""
    longest: int
    """Input tokens of the longest request."""
    attached: Attached
    """Images and files in the requests to send: what they cost is a guess."""
    outlook: Outlook
    forecast: Forecast
    answered: int
    """Rows that have an answer of this job, good or bad."""
    cut_off: int
    """Requests whose answer was cut off before, and that are not asked again now."""
    cut_off_below: int
    """Those of them that a run with twice the max_tokens asks again."""
    spent_usd: Decimal | None
    """What earlier runs of the plan have spent, as the budget counts; None where some of it has no worst case."""
    too_long: TooLong
    duplicate_ids: int
    complete: bool
    """False when --limit ended the scan before the input's end."""


_Counted = tuple[str, int | None]
"""Id of a row whose request is counted, and the lower limit at which its answer was cut off before, if it was."""
_Progress = tuple[tuple[int, float | None], list[_Counted]]
"""How far the scan is, and whose requests are counted."""
_ANSWERED = frozenset({"ok", "truncated", "invalid", "refused"})


@dataclass(slots=True)
class Scan:
    """What the rows of a plan mean for a run: the sums of one scan."""

    known: Known
    selection: Selection
    limits: Limits
    meter: Meter
    too_long: TooLong
    sample: Sample | None = None
    """Filled on the way, for a pilot."""
    to_send: ToSend = field(init=False)
    repeated: int = 0
    already: int = 0
    passed_over: int = 0
    reused: int = 0
    rejected: int = 0
    held_back: int = 0
    answered: int = 0
    cut_off: int = 0
    cut_off_below: int = 0
    attached: Attached = NOTHING_ATTACHED

    def __post_init__(self) -> None:
        self.to_send = ToSend(self.meter)
        if self.sample is not None:
            self.too_long.keeps += self.sample.size

    def run(self, plan: Plan, counting: Counting, tick: Tick | None) -> None:
        """Scan the whole plan and add up."""
        for (progress, whose), requests, counts in counting.counted(self._steps(plan), whole=lambda: plan.complete):
            self._add(whose, requests, counts)
            if tick is not None:
                tick(*progress)

    def ended(self, known: Known) -> None:
        """Take off what a pilot has brought to its end since the scan."""
        if self.sample is None:
            return
        for key, chosen in self.sample.chosen.items():
            if chosen.count is not None and key in known.own:
                self.to_send.remove(chosen.count, chosen.cut_off)
                self.too_long.remove(chosen.row_id, chosen.count.tokens)
                self.attached = self.attached.plus(chosen.attached, times=-1)
                self.already += chosen.rows
                self.repeated -= chosen.rows - 1
                self._ended(known, key, known.own[key][0], rows=chosen.rows)

    def _steps(self, plan: Plan) -> Iterator[ToCount[_Progress]]:
        for rows in plan.batches():
            whose: list[_Counted] = []
            step: ToCount[_Progress] = ToCount(((plan.rows, plan.share), whose), [], [])
            for row in rows:
                self._sort(row, step.requests, step.passed, whose)
            yield step

    def _sort(self, row: PlannedRow, requests: list[Request], passed: list[str], whose: list[_Counted]) -> None:
        what, status = decide(self.known, row.key, self.selection, self.meter.max_tokens)
        if self.sample is not None and row.request is not None and what in {"ended", "send"}:
            if row.repeated:
                self.sample.again(row.key)
            else:
                self.sample.offer(row.key, row.index)
        if what in {"ended", "skip"}:
            self.already += 1
            self.passed_over += what == "skip"
            self._ended(self.known, row.key, status, repeated=row.repeated)
        elif row.repeated:
            self.repeated += 1
        elif what == "reuse":
            self.reused += 1
        elif row.request is None:
            self.rejected += 1
        else:
            requests.append(row.request)
            # Most plans have no answers at all: then this costs nothing.
            has_answers = self.known.own or self.known.others
            whose.append((row.id, cut_before(self.known, row.key, self.meter.max_tokens) if has_answers else None))
            return
        if row.request is not None and not row.repeated:
            passed.append(row.key)

    def _ended(self, known: Known, key: str, status: str, *, rows: int = 1, repeated: bool = False) -> None:
        """Look at the outcome that a row has already, or that a request has got for all of its rows."""
        self.answered += rows * (status in _ANSWERED)
        if status == "truncated" and not repeated:
            twice = None if self.meter.max_tokens is None else 2 * self.meter.max_tokens
            self.cut_off += 1
            self.cut_off_below += is_raised(known.own[key][1], twice)

    def _add(self, whose: Sequence[_Counted], requests: Sequence[Request], counts: Sequence[TokenCount]) -> None:
        longest = max([count.tokens for count in counts], default=0)
        counted = list(zip(whose, requests, counts, strict=True))
        if not self._fits(longest):  # else all the others fit, too
            counted = [each for each in counted if self._fits(each[2].tokens)]
            self.held_back += len(counts) - len(counted)
            self.rejected += len(counts) - len(counted)
        self.to_send.add([count for _, _, count in counted])
        for (_, cut_off), _, count in counted:
            if cut_off is not None:
                self.to_send.was_cut_off(count, cut_off)
        most = max([count.bound for _, _, count in counted], default=0)
        if self.sample is not None or self.meter.may_attach(most):
            self._look_at_each(counted)
        if self.too_long.holds(longest):
            self.too_long.add((row_id, count.tokens) for (row_id, _), _, count in counted)

    def _look_at_each(self, counted: Sequence[tuple[_Counted, Request, TokenCount]]) -> None:
        """Look at what goes with requests beside their text, and at those of a pilot."""
        for (row_id, cut_off), request, count in counted:
            attached = self.meter.attached(request, count)
            if attached != NOTHING_ATTACHED:
                self.attached = self.attached.plus(attached)
            if self.sample is not None:
                self.sample.counted(request.key, count, cut_off, row_id=row_id, attached=attached)

    def _fits(self, tokens: int) -> bool:
        return not self.limits.never_fits(self.meter.limit_tokens(tokens))

    def answer(self, plan: Plan, outlook: Outlook, spent_usd: Decimal | None, counter: str | None) -> Estimate:
        """Put the sums and what is known from before together; `spent_usd`: by the plan's earlier runs."""
        to_send = self.to_send
        found = forecast(to_send, self.meter, outlook, self.limits, datetime.now(UTC), cut_off=self.cut_off_below)
        return Estimate(
            rows=plan.rows,
            to_send=to_send.requests,
            repeated=self.repeated,
            already=self.already,
            passed_over=self.passed_over,
            reused=self.reused,
            rejected=self.rejected,
            held_back=self.held_back,
            sizes=to_send.sizes,
            counter=counter,
            longest=to_send.longest,
            attached=self.attached,
            outlook=outlook,
            forecast=found,
            answered=self.answered,
            cut_off=self.cut_off,
            cut_off_below=self.cut_off_below,
            spent_usd=spent_usd,
            too_long=self.too_long,
            duplicate_ids=plan.duplicate_ids,
            complete=plan.complete,
        )
