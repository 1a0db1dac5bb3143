"""The desk where exchanges come home: what each means, its lines in the journal, and then what follows from it.

Nothing has a consequence before it is on file. Whatever is beyond one exchange (stopping, a bug) is the run's.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import NamedTuple

from pipeline.budget import ZERO, Budget, dollars
from pipeline.doorman import Doorman, Ticket
from pipeline.errors import Pause, PromptmillError, RunPaused, pause_of
from pipeline.health import Health, Heard
from pipeline.journal import Journal
from pipeline.notices import Notify
from pipeline.records import Attempt, Failure, Outcome, Reply
from pipeline.runners import runlog
from pipeline.runners._ahead import Ahead
from pipeline.runners._lines import Fields, attempt_line, outcome_line
from pipeline.runners._loader import Loader
from pipeline.runners._oddities import Oddities
from pipeline.runners.attempt import Again, Done, Exchanger, Step
from pipeline.runners.tally import Tally
from pipeline.suspects import Standing
from pipeline.text import duration

TOGETHER_SECONDS, ALONE_IN_VAIN = 1.0, 10
"""So far apart may exchanges break off that one of them ends; after so many rows in a row that broke off alone, too,
no more are sent alone."""
LONG_WAIT_SECONDS, MUCH_LONGER = 10.0, 4
"""A pause for a rate limit that people wonder about, and by what it must grow to be told again."""
TURNED_AWAY_MOST = 30
"""So often may a server without room turn a row away beside its attempts: a quarter of an hour and more."""


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
        notify: Notify,
        stop: Callable[[Pause], None],
        fail: Callable[[BaseException], None],
        proven: bool,
    ) -> None:
        """Take the stations around it. `proven`: somebody knows these rows, and asks for them again.

        `notify` hears news, `stop` why nothing more may go out, `fail` of a bug of our own.
        """
        self._door, self._health, self._budget = door, health, budget
        self._exchanger, self._journal, self._loader = exchanger, journal, loader
        self._tally, self._ahead = tally, ahead
        self._notify, self._stop, self._fail = notify, stop, fail
        self._proven = proven
        self._free = exchanger.meter.is_free
        self._oddities = Oddities(
            max_tokens=exchanger.spec.max_tokens,
            free=self._free,
            capped=budget.cap is not None,
            tells_costs=exchanger.provider.tells_costs,
            notify=notify,
            stop=stop,
        )
        self._arrived: list[Arrival] = []
        self._at_hand: list[Arrival] = []
        """What is being booked in this turn."""
        self._home_keys = set[str]()
        """Its keys, once somebody has wanted them."""
        self._broke = ("", 0.0)
        """Whose exchange broke off last, and when."""
        self._alone_in_vain = 0
        self._told_to_wait = 0.0
        """Seconds of the longest pause for a rate limit that the user was told of."""
        self._held: list[Outcome] = []
        """Rejections that may be the job's fault: booked when that is ruled out."""
        self._doubted: list[tuple[Ticket, Outcome]] = []
        """Last failures that may be the provider's fault: booked, or sent again, when that is known."""
        self.home = asyncio.Event()
        """Set whenever something has come home."""
        self.spent = ZERO
        """Dollars of the answers so far, as far as they are known."""
        self.unknown = 0
        """Exchanges of unknown cost."""
        self.unbounded = 0
        """Those of them whose cost has no upper bound either."""

    def lost(self, ticket: Ticket) -> None:
        """Give a slot back whose exchange left no trace: what it cost is unknown, for it may be billed."""
        self._door.back(ticket, cost=None, used_tokens=None)
        self._not_known(ticket)
        self.home.set()

    def arrive(self, arrival: Arrival) -> None:
        """Book what arrives in one turn of the loop together: each write costs as much as half an exchange."""
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self.book)
        self._arrived.append(arrival)

    def book(self) -> None:
        """Write down what came back, then let it have its consequences."""
        arrived, self._arrived = self._arrived, []
        self._at_hand, self._home_keys = arrived, set()
        if not arrived:
            return
        now = asyncio.get_running_loop().time()
        judged = [(arrival, verdict) for arrival in arrived if (verdict := self._judged(arrival, now)) is not None]
        for (arrival, verdict), on_file in zip(judged, self._write([each for _, each in judged]), strict=True):
            if not on_file:
                self._keep(arrival)
                continue
            try:
                self._settle(arrival, verdict)
            except RunPaused as error:
                self._stop(pause_of(error))
            except BaseException as error:  # noqa: BLE001 -- the station's edge: a bug (or a panic) must stop the run
                self._fail(error)
        self.home.set()

    def _judged(self, arrival: Arrival, now: float) -> _Verdict | None:
        """Say what an exchange means; None if that shows a bug of our own."""
        ticket, attempt, result, _ = arrival
        try:
            standing = self._door.heard(ticket, result)
            with_others = isinstance(result, Failure) and self._broke_with_others(ticket, result, now)
            heard = self._hear(arrival, now, with_others=with_others)
            step = self._next_step(arrival, heard, standing, with_others=with_others)
            lines = [attempt_line(attempt, ticket, held=heard.hold or heard.doubt)]
            if isinstance(step, Done) and not (heard.hold or heard.doubt):
                lines.append(outcome_line(step.outcome))
        except BaseException as error:  # noqa: BLE001 -- as above
            self._fail(error)
            self._keep(arrival)
            return None
        return _Verdict(heard, step, lines)

    def _keep(self, arrival: Arrival) -> None:
        """Put on file what came back, though what follows from it can't be; whoever loads the journal books the row.

        Of a failure nobody knows then whether its row is to blame: it stays pending.
        """
        ticket, attempt, result, _ = arrival
        try:
            self._journal.append_all([attempt_line(attempt, ticket, held=isinstance(result, Failure))], came_back=True)
        except BaseException as error:  # noqa: BLE001 -- as above
            self._not_written(error)
            self.lost(ticket)
            return
        self._add_up(ticket, attempt.cost_usd)
        self._door.back(ticket, cost=attempt.cost_usd, used_tokens=None)
        self.home.set()

    def _write(self, verdicts: Sequence[_Verdict]) -> list[bool]:
        """Put answers and their outcomes on file; tell which are there.

        An answer and its outcome are in one write: a kill between them would leave the row pending.
        """
        try:
            self._journal.append_all([line for verdict in verdicts for line in verdict.lines], came_back=True)
        except BaseException as error:  # noqa: BLE001 -- as above
            if len(verdicts) > 1:  # there may be room for some, or one alone can't be written
                return [each for verdict in verdicts for each in self._write([verdict])]
            self._not_written(error)
            return [False]
        return [True] * len(verdicts)

    def _not_written(self, error: BaseException) -> None:
        if isinstance(error, RunPaused):
            self._stop(pause_of(error))
        else:
            self._fail(error)

    def _settle(self, arrival: Arrival, verdict: _Verdict) -> None:
        attempt, heard, step = arrival.attempt, verdict.heard, verdict.step
        cost = attempt.cost_usd
        self._door.back(arrival.ticket, cost=cost, used_tokens=_tokens_used(attempt))
        runlog.exchange(attempt)
        self._add_up(arrival.ticket, cost)
        self._mind(heard)
        if cost is not None and isinstance(step, Done):
            self._look_ahead()
        self._watch_books()
        self._oddities.look_at(arrival.ticket, attempt)
        self._go_on(arrival, step, heard)

    def _add_up(self, ticket: Ticket, cost: Decimal | None) -> None:
        if cost is None:
            self._not_known(ticket)
        elif cost:
            self.spent += cost
            if self._free:
                self._not_free(cost)

    def _not_known(self, ticket: Ticket) -> None:
        self.unknown += 1
        self.unbounded += ticket.reserve_usd is None or self._exchanger.meter.charged

    def _not_free(self, cost: Decimal) -> None:
        """Hear of the first dollars of a model that was to be free."""
        self._free = False
        self._exchanger.meter.heard_of_charges()
        self._notify(
            f"the provider says it charged {dollars(cost)} for an answer that is free by the price: what it charges is"
            " booked, and no upper bound is known; is the price right?"
        )

    def _look_ahead(self) -> None:
        notice = self._ahead.settled(self.spent)
        if notice is not None:
            self._notify(notice)

    def _broke_with_others(self, ticket: Ticket, failure: Failure, now: float) -> bool:
        """Tell whether other exchanges broke off at the same time: a row that crashes a server takes them with it."""
        if not _breaks(failure):
            return False
        key, (before, at) = ticket.request.key, self._broke
        self._broke = key, now
        if ticket.alone:
            self._alone_in_vain += 1
            return False
        if self._alone_in_vain >= ALONE_IN_VAIN:  # these rows are to blame, each for itself
            return False
        return (before != key and now - at <= TOGETHER_SECONDS) or any(
            each.ticket.request.key != key and isinstance(each.result, Failure) and _breaks(each.result)
            for each in self._at_hand
        )

    def _hear(self, arrival: Arrival, now: float, *, with_others: bool) -> Heard:
        ticket, _, result, epoch = arrival
        key = ticket.request.key
        if not isinstance(result, Failure):
            if ticket.alone:
                self._alone_in_vain = 0
            sent = self._door.sent_at(ticket) if self._health.wants_sent else None
            return self._health.heard(key, result, now, began=epoch, sent=sent)
        if ticket.alone and result.error_type == "broken":  # it had the server to itself: that is proof
            return Heard()
        older = 0
        if result.result == "unavailable":
            if not self._home_keys:
                self._home_keys = {each.ticket.request.key for each in self._at_hand}
            older = self._door.failed(ticket, result, self._home_keys, wanted=self._health.wants_older)
        goes_on = with_others or self._turned_away(ticket, result)
        last = ticket.tries + 1 >= self._exchanger.policy.attempts and not goes_on
        return self._health.heard(key, result, now, began=epoch, proven=self._proven, last=last, older=older)

    def _next_step(self, arrival: Arrival, heard: Heard, standing: Standing, *, with_others: bool) -> Step:
        ticket, attempt, result, _ = arrival
        return self._exchanger.next_step(
            ticket,
            attempt,
            result,
            streak=self._door.closed_in_a_row,
            jitter=random.random(),  # noqa: S311 -- spreads retries, guards nothing
            outage=heard.outage,
            standing=standing,
            turned_away=self._turned_away(ticket, result),
            held=heard.hold,
            broke_with_others=with_others,
        )

    def _turned_away(self, ticket: Ticket, result: Reply | Failure) -> bool:
        """Tell whether a server without room is to blame, and not the row; nobody knows of one that never finds any."""
        return isinstance(result, Failure) and ticket.turned_away < TURNED_AWAY_MOST and self._door.full(ticket, result)

    def _mind(self, heard: Heard) -> None:
        """Let what an exchange told about the provider and the job have its consequences."""
        self._door.narrow(1 if self._health.down else None)
        if heard.notice is not None:
            self._notify(heard.notice)
        if heard.release and self._held:
            self._book_rejections()
        if self._doubted:
            self._mind_the_doubted(heard)
        if heard.pause is not None:
            self._stop(heard.pause)

    def book_held(self) -> Pause | None:
        """Book what was held back: nothing speaks for the rows any more. Unless the provider never spoke either.

        Then they stay pending, and the reason to pause is returned.
        """
        if self._doubted:
            pause = self._health.nothing_came(self._doubted[-1][1], len(self._doubted))
            if pause is not None:
                return pause
        if self._held:
            pause = self._health.shut_out()
            if pause is not None:
                return pause
        self._book_rejections()
        self._book_doubted()
        return None

    def _book_rejections(self) -> None:
        while self._held:
            self._book_late(self._held[-1])
            self._held.pop()

    def _book_doubted(self) -> None:
        while self._doubted:
            self._book_late(self._doubted[-1][1])
            self._doubted.pop()

    def _mind_the_doubted(self, heard: Heard) -> None:
        if heard.alive:
            self._book_doubted()
        elif heard.outage:
            self._send_doubted_again()

    def _book_late(self, outcome: Outcome) -> None:
        self._health.forget(outcome.key)
        self._journal.append_all([outcome_line(outcome)], came_back=True)
        self._tally.ended(outcome.key, outcome.status)

    def _send_doubted_again(self) -> None:
        """Let rows have their last try once more: the provider was to blame."""
        doubted, self._doubted = self._doubted, []
        for ticket, _ in doubted:
            self._door.again(ticket._replace(attempt=ticket.attempt + 1, kind="retry"), 0.0)

    def _go_on(self, arrival: Arrival, step: Step, heard: Heard) -> None:
        if isinstance(step, Again):
            self._send_again(step, arrival.attempt, limited=arrival.attempt.result == "rate_limited")
        elif isinstance(step, Done):
            self._ended(arrival.ticket, step.outcome, heard)
        else:
            self._stop(step.pause)

    def _ended(self, ticket: Ticket, outcome: Outcome, heard: Heard) -> None:
        self._door.ended(outcome.key)
        if heard.hold:
            self._held.append(outcome)
            return
        if heard.doubt:
            self._doubted.append((ticket, outcome))
            return
        self._health.forget(outcome.key)
        self._tally.ended(outcome.key, outcome.status)
        worthless = self._health.ended(outcome.status)
        if worthless is not None:
            last = "" if outcome.error is None else f". The last one: {outcome.error}"
            self._stop(worthless._replace(why=f"{worthless.why}{last}"))

    def _send_again(self, step: Again, attempt: Attempt, *, limited: bool) -> None:
        if step.shuts_door:
            before = self._door.shut_seconds
            self._door.shut_for(step.wait_seconds)
            if limited:
                self._tally.rate_limited += 1
                self._tally.shut_seconds += self._door.shut_seconds - before
                self._tell_of_a_long_wait(step.wait_seconds, attempt)
            runlog.door_shut(step.wait_seconds, limited=limited)
        elif limited:
            self._tally.limited_alone += 1
        if step.queue == "second":
            self._door.step_back(step.ticket)
        elif step.queue == "apart":
            self._door.again_apart(step.ticket, step.wait_seconds)
        elif step.queue == "alone":
            self._door.again_alone(step.ticket, step.wait_seconds)
        elif step.queue == "own":
            self._door.again_by_itself(step.ticket, step.wait_seconds)
        else:
            self._door.again(step.ticket, 0.0 if step.shuts_door else step.wait_seconds)

    def _tell_of_a_long_wait(self, seconds: float, attempt: Attempt) -> None:
        """Say why nothing goes out: a limit of the day looks no different from one of the minute until it is read."""
        if seconds >= max(LONG_WAIT_SECONDS, MUCH_LONGER * self._told_to_wait):
            self._told_to_wait = seconds
            self._notify(
                f"a rate limit keeps everything back for {duration(seconds)}; the provider says: {attempt.error}"
            )

    def _watch_books(self) -> None:
        """Pause when nothing can be booked any more."""
        broken = self._loader.broken
        if broken is not None:
            if isinstance(broken, PromptmillError):
                self._stop(pause_of(broken))
            else:
                self._stop(Pause("ledger", f"the ledger can't be written: {broken}"))


def _breaks(failure: Failure) -> bool:
    """Tell whether a server broke off in the middle, or whoever stands before it says that it did."""
    return failure.error_type == "broken" or failure.http_status == HTTPStatus.BAD_GATEWAY


def _tokens_used(attempt: Attempt) -> int | None:
    usage = attempt.usage
    return None if usage is None else usage.input_tokens + usage.output_tokens
