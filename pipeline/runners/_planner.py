"""The planner's side of a run: what each row of the plan means, sorted into batches for the loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

from pipeline.counting import Counting, ToCount
from pipeline.doorman import Limits, Ticket
from pipeline.estimating import Forecast, Outlook, TooLong, ToSend, forecast, quick_bill
from pipeline.ledger import HELD_BACK, Known, OpenAnswer
from pipeline.planning import Plan, PlannedRow, Selection, cut_before, decide
from pipeline.records import Outcome, Request, TokenCount
from pipeline.runners._ahead import Begun
from pipeline.runners._backlog import PlanRow

BREATH_SECONDS = 0.001
"""Between two batches with something to send: the loop, which has answers to read, gets the interpreter's lock. The
planner is several times faster than the loop, so this delays nothing."""
FIRST_REQUESTS = 500
"""The last row is planned only when nearly all is sent, so a run without an estimate gets one for its first so many
requests, for twice as many, and so on. With fewer there would seldom be more to say: a notice needs 160 answers, and if
these differ by as much as their mean, 500 must be 13 % off before it isn't chance. More would have to be paid first."""
_ID, _KEY = attrgetter("id"), attrgetter("key")


@dataclass(slots=True)
class Batch:
    """What the planner hands to the loop."""

    rows: list[PlanRow] = field(default_factory=list)
    """Rows that the ledger doesn't have yet."""
    seen: list[tuple[str, str | None, bool]] = field(default_factory=list)
    """(key, status if it has ended before, repeated)."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Outcomes that need no exchange: reused answers, rows that can't be sent."""
    tickets: list[Ticket] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Of all its rows, and below their ids: to name those that are too long, where the model's context is known."""
    ids: list[str] = field(default_factory=list)
    notice: str | None = None
    """What the user has to hear before the tickets go out."""
    begun: Begun | None = None
    """What all tickets so far were estimated to cost, these included, when that is due."""


@dataclass(slots=True)
class Planner:
    """Decides, row by row. Lives in the planner's thread."""

    plan: Plan
    plan_id: int
    stored: int
    """Rows with an index below this are in the ledger already."""
    known: Known
    selection: Selection
    max_tokens: int | None
    counting: Counting
    limits: Limits
    outlook: Outlook
    to_send: ToSend
    too_long: TooLong
    forecasts: bool
    """The run has no estimate yet, and may cost something."""
    repair: int = 0
    """So many repairs may an answer have."""
    repair_of: Callable[[Request, OpenAnswer], Ticket] | None = None
    """Writes the ticket that goes on with an answer of an earlier run."""
    _sent: int = field(default=0, init=False)
    _due: int = field(default=FIRST_REQUESTS, init=False)
    """So many requests make the next estimate due."""

    def batches(self) -> Iterator[Batch]:
        """Scan the plan."""
        for batch, requests, counts in self.counting.counted(self._steps()):
            sent = list(self._metered(requests, counts, batch))
            self.to_send.add(sent)
            if batch.ids and sent and self.too_long.holds(max(sent).tokens):
                self._name_too_long(batch)
            self._sent += len(sent)
            if self.forecasts and self._sent >= self._due:
                batch.begun = self._begun()
            yield batch

    def forecast(self) -> Forecast:
        """Say what the requests handed out so far cost, as far as that can be known before their answers."""
        return forecast(self.to_send, self.counting.meter, self.outlook, self.limits, datetime.now(UTC))

    def _begun(self) -> Begun | None:
        """Say what the requests so far cost; the next time when they are twice as many."""
        self._due *= 2
        bill = quick_bill(self.to_send, self.counting.meter, self.outlook, self.limits, datetime.now(UTC))
        return None if bill is None else Begun(bill, self._sent)

    def _name_too_long(self, batch: Batch) -> None:
        ids = dict(zip(reversed(batch.keys), reversed(batch.ids), strict=True))  # of rows with one key the first
        self.too_long.add((ids[ticket.request.key], ticket.input_tokens) for ticket in batch.tickets)
        batch.notice = self.too_long.news()

    def _steps(self) -> Iterator[ToCount[Batch]]:
        for rows in self.plan.batches():
            step = ToCount(Batch(), [], [])
            if self.too_long.window is not None:
                step.carried.keys, step.carried.ids = list(map(_KEY, rows)), list(map(_ID, rows))
            for row in rows:
                request = self._place(row, step.carried)
                if request is not None:
                    step.requests.append(request)
                elif row.request is not None and not row.repeated:
                    step.passed.append(row.key)
            yield step
            if step.requests:
                time.sleep(BREATH_SECONDS)

    def _place(self, row: PlannedRow, batch: Batch) -> Request | None:
        """Put a row where it belongs; returns its request if it is to be sent."""
        index, row_id, key, request, repeated, problem, _ = row
        if index >= self.stored:
            batch.rows.append((self.plan_id, index, row_id, key, repeated))
        what, status = decide(self.known, key, self.selection, self.max_tokens)
        if what == "skip":
            return None
        if what == "reuse" and status != "ok" and key in self.known.open:
            what = "send"  # an answer of the job's own, which waits for its repair, goes before another job's half one
        ended = status if what == "ended" else None
        batch.seen.append((key, ended, repeated))
        if ended is not None or repeated:
            return None
        if request is None:
            batch.outcomes.append(Outcome(key, "rejected", 0, error_type="bad_row", error=problem))
        elif what == "reuse":
            batch.outcomes.append(self._reused(key))
        else:
            return request
        return None

    def _reused(self, key: str) -> Outcome:
        other = self.known.others[key]
        status, max_tokens, run, attempt = other
        return Outcome(key, status, 0, run, attempt, max_tokens, reused=True)

    def _metered(self, requests: Sequence[Request], counts: Sequence[TokenCount], batch: Batch) -> Iterator[TokenCount]:
        """Write the tickets of requests, but of those that a stated limit never lets through; yield their counts."""
        write, never_fits = self.counting.meter.ticket, self.limits.never_fits
        answers, waiting = bool(self.known.own or self.known.others), self.known.open
        for request, count in zip(requests, counts, strict=True):
            ticket = write(request, count)
            if waiting and request.key in waiting:
                found = self._goes_on(request, waiting[request.key], batch)
                if found is None:
                    continue
                ticket = found
            never = never_fits(ticket.tokens)
            if never is None:
                batch.tickets.append(ticket)
                if answers and (limit := cut_before(self.known, request.key, self.max_tokens)) is not None:
                    self.to_send.was_cut_off(count, limit)
                yield count
            else:
                batch.outcomes.append(Outcome(request.key, "rejected", 0, error_type=HELD_BACK, error=never))

    def _goes_on(self, request: Request, answer: OpenAnswer, batch: Batch) -> Ticket | None:
        """Return the ticket of an open answer's next repair; None if it may have no more, and has its outcome now."""
        ticket = None if self.repair_of is None else self.repair_of(request, answer)
        never = None if ticket is None else self.limits.never_fits(ticket.tokens)
        if ticket is not None and answer.repairs < self.repair and never is None:
            return ticket
        error = answer.error if never is None else f"{answer.error}; it can't be repaired: {never}"
        ended = Outcome(request.key, "invalid", 0, answer.run_id, answer.attempt, self.max_tokens)
        batch.outcomes.append(ended._replace(error_type=answer.error_type, error=error))
        return None
