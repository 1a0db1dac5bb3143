"""The desk where exchanges come home: what each means, its lines in the journal, and then what follows from it.

Nothing has a consequence before it is on file. Whatever is beyond one exchange (stopping, a bug) is the run's.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.budget import ZERO, Budget, dollars
from pipeline.doorman import Doorman, Ticket
from pipeline.errors import PromptmillError, RunPaused
from pipeline.health import Health, Heard
from pipeline.journal import Journal
from pipeline.records import Attempt, Failure, Outcome, Reply
from pipeline.runners import _log
from pipeline.runners._ahead import Ahead
from pipeline.runners._lines import Fields, attempt_line, outcome_line
from pipeline.runners._loader import Loader
from pipeline.runners._tally import Tally
from pipeline.runners.attempt import Again, Done, Exchanger, Step


class Arrival(NamedTuple):
    """What came back, and the health's epoch when it was sent."""

    ticket: Ticket
    attempt: Attempt
    result: Reply | Failure
    epoch: int


class _Verdict(NamedTuple):
    """What it means, and the lines that say so."""

    heard: Heard
    step: Step
    lines: list[Fields]


class Desk:
    """Books what comes home, in the loop's thread. `stop` and `fail` are the run's."""

    def __init__(
        self,
        *,
        door: Doorman,
        health: Health,
        budget: Budget,
        exchanger: Exchanger,
        journal: Journal,
        loader: Loader,
        tally: Tally,
        ahead: Ahead,
        notify: Callable[[str], None],
        stop: Callable[[str], None],
        fail: Callable[[BaseException], None],
        proven: bool,
    ) -> None:
        """Take the stations around it. `proven`: rows of the plan were answered before, so the job can't be all wrong.

        `notify` hears news, `stop` why nothing more may go out, `fail` of a bug of our own.
        """
        self._door, self._health, self._budget = door, health, budget
        self._exchanger, self._journal, self._loader = exchanger, journal, loader
        self._tally, self._ahead = tally, ahead
        self._notify, self._stop, self._fail = notify, stop, fail
        self._proven = proven
        self._arrived: list[Arrival] = []
        self._held: list[Outcome] = []
        """Rejections that may be the job's fault: booked when that is ruled out."""
        self.home = asyncio.Event()
        """Set whenever something has come home."""
        self.spent = ZERO
        """Dollars of the answers so far, as far as they are known."""
        self.billed = False
        """The provider says what it charges."""

    def lost(self, ticket: Ticket) -> None:
        """Give a slot back whose exchange left no trace: what it cost is unknown, for it may be billed."""
        self._door.back(ticket, cost=None, used_tokens=None)
        self.home.set()

    def arrive(self, arrival: Arrival) -> None:
        """Book what arrives in one turn of the loop together: each write costs as much as half an exchange."""
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self.book)
        self._arrived.append(arrival)

    def book(self) -> None:
        """Write down what came back, then let it have its consequences."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return
        now = asyncio.get_running_loop().time()
        judged = [(arrival, verdict) for arrival in arrived if (verdict := self._judged(arrival, now)) is not None]
        for (arrival, verdict), on_file in zip(judged, self._write([each for _, each in judged]), strict=True):
            if not on_file:
                self.lost(arrival.ticket)
                continue
            try:
                self._settle(arrival, verdict)
            except RunPaused as error:
                self._stop(str(error))
            except BaseException as error:  # noqa: BLE001 -- the station's edge: a bug (or a panic) must stop the run
                self._fail(error)
        self.home.set()

    def _judged(self, arrival: Arrival, now: float) -> _Verdict | None:
        """Say what an exchange means; None if that shows a bug of our own."""
        ticket, attempt, result, epoch = arrival
        try:
            self._door.heard(ticket, result)
            heard = self._hear(ticket, result, epoch, now)
            step = self._next_step(ticket, attempt, result, heard)
            lines = [attempt_line(attempt, ticket, held=heard.hold)]
            if isinstance(step, Done) and not heard.hold:
                lines.append(outcome_line(step.outcome))
        except BaseException as error:  # noqa: BLE001 -- as above
            self.lost(ticket)
            self._fail(error)
            return None
        return _Verdict(heard, step, lines)

    def _write(self, verdicts: Sequence[_Verdict]) -> list[bool]:
        """Put answers and their outcomes on file; tell which are there.

        An answer and its outcome are in one write: a kill between them would leave the row pending.
        """
        try:
            self._journal.append_all([line for verdict in verdicts for line in verdict.lines], came_back=True)
        except RunPaused as error:
            if len(verdicts) == 1:
                self._stop(str(error))
                return [False]
            return [each for verdict in verdicts for each in self._write([verdict])]  # there may be room for some
        except BaseException as error:  # noqa: BLE001 -- as above
            self._fail(error)
            return [False] * len(verdicts)
        return [True] * len(verdicts)

    def _settle(self, arrival: Arrival, verdict: _Verdict) -> None:
        attempt, heard, step = arrival.attempt, verdict.heard, verdict.step
        cost = attempt.cost_usd
        self._door.back(arrival.ticket, cost=cost, used_tokens=_tokens_used(attempt))
        _log.exchange(attempt)
        self.billed = self.billed or attempt.billed_usd is not None
        if cost:
            self.spent += cost
        self._mind(heard)
        if cost is not None and isinstance(step, Done):
            self._look_ahead()
        self._watch_books(attempt)
        self._go_on(step, heard)

    def _look_ahead(self) -> None:
        notice = self._ahead.settled(self.spent)
        if notice is not None:
            self._notify(notice)

    def _hear(self, ticket: Ticket, result: Reply | Failure, epoch: int, now: float) -> Heard:
        proven = self._proven or bool(self._tally.statuses["ok"])
        return self._health.heard(ticket.request.key, result, now, began=epoch, proven=proven)

    def _next_step(self, ticket: Ticket, attempt: Attempt, result: Reply | Failure, heard: Heard) -> Step:
        jitter = random.random()  # noqa: S311 -- spreads retries, guards nothing
        streak = self._door.closed_in_a_row
        return self._exchanger.next_step(ticket, attempt, result, streak=streak, jitter=jitter, outage=heard.outage)

    def _mind(self, heard: Heard) -> None:
        """Let what an exchange told about the provider and the job have its consequences."""
        self._door.narrow(1 if self._health.down else None)
        if heard.notice is not None:
            self._notify(heard.notice)
        if heard.release:
            self.book_held()
        if heard.pause is not None:
            self._stop(heard.pause)

    def book_held(self) -> None:
        """Book the rejections that were held back: they are the rows' own."""
        while self._held:
            self._journal.append_all([outcome_line(self._held[-1])], came_back=True)
            outcome = self._held.pop()
            self._tally.ended(outcome.key, outcome.status)

    def _go_on(self, step: Step, heard: Heard) -> None:
        if isinstance(step, Again):
            self._send_again(step)
        elif isinstance(step, Done):
            self._ended(step.outcome, heard)
        else:
            self._stop(step.reason)

    def _ended(self, outcome: Outcome, heard: Heard) -> None:
        self._door.ended(outcome.key)
        if heard.hold:
            self._held.append(outcome)
            return
        self._tally.ended(outcome.key, outcome.status)
        worthless = self._health.ended(outcome.status)
        if worthless is not None:
            self._stop(worthless)

    def _send_again(self, step: Again) -> None:
        if step.shuts_door:
            self._door.shut_for(step.wait_seconds)
            _log.door_shut(step.wait_seconds)
        self._door.again(step.ticket, 0.0 if step.shuts_door else step.wait_seconds)

    def _watch_books(self, attempt: Attempt) -> None:
        """Pause when what is booked can't be trusted any more: a broken ledger, a bill that breaks its bound."""
        broken = self._loader.broken
        if broken is not None:
            said = isinstance(broken, PromptmillError)
            self._stop(str(broken) if said else f"the ledger can't be written: {broken}")
        self._watch_bill(attempt)

    def _watch_bill(self, attempt: Attempt) -> None:
        """Pause when a provider bills more than the worst case that max_tokens promised: the cap can't hold then."""
        cost, worst_case = attempt.cost_usd, attempt.reserved_usd
        if self._budget.cap is None or cost is None or worst_case is None or cost <= worst_case:
            return
        self._stop(
            f"the provider billed {dollars(cost)} for a request that could cost {dollars(worst_case)} at most under"
            " max_tokens: the budget can't be held; does this provider honour max_tokens?"
        )


def _tokens_used(attempt: Attempt) -> int | None:
    usage = attempt.usage
    return None if usage is None else usage.input_tokens + usage.output_tokens
