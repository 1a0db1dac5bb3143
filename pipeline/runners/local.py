"""One process, one event loop: planner thread -> doorman -> workers -> desk, and a loader thread behind them.

The dispatcher is the doorman's only caller and the only writer of `sent` lines; the desk writes what came back. Every
line is on file before anything acts on it.
"""

import asyncio
import contextlib
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pipeline.budget import ZERO, Budget
from pipeline.doorman import Doorman, Limits, Ticket
from pipeline.errors import LEFT, PAUSED, Pause, PromptmillError, RunPaused, pause_of
from pipeline.estimating import Estimate, Forecast
from pipeline.health import Health, StopRules
from pipeline.journal import Journal
from pipeline.ledger import RowsDone
from pipeline.notices import Notify
from pipeline.providers import redact
from pipeline.runners import runlog
from pipeline.runners._ahead import Ahead
from pipeline.runners._desk import Arrival, Desk
from pipeline.runners._lines import outcome_line, sent_line
from pipeline.runners._loader import Loader
from pipeline.runners._planner import Batch, Planner
from pipeline.runners.attempt import Exchanger
from pipeline.runners.tally import Tally
from pipeline.threads import in_thread

CLOCK_SECONDS = 1.0
"""How often the wall clock is looked at: it may be set, and stands still for a sleeping laptop's timers."""
STOPPED = "stopped on request"
BY_CLOCK = Pause("time", "the time given with --until has come")
FINISHED = "finished"
PLANNER_PATIENCE = 1.0
"""Seconds that a stopped run waits for its planner's thread."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended."""

    run_id: int
    tally: Tally
    complete: bool
    """The run saw the end of the input."""
    spent: Decimal | None
    """Dollars this run's answers cost, as far as that is known; None where nothing is known."""
    uncertain: Decimal
    """Upper bound of what its exchanges of unknown cost may add, as far as they have one."""
    unbounded: int
    """Exchanges of unknown cost that have no upper bound; their cost is in no other figure."""
    plan_spent: Decimal | None
    """Dollars all runs of the plan spent, this one included, as the budget counts: unknown costs at their worst.

    None where some have no worst case."""
    paused: Pause | None
    """Why the run paused, None if it finished."""
    left_over: str | None
    """What is not in the ledger yet, and why."""
    seconds: float
    exit_code: int
    free: bool
    """Nothing this run did can cost anything, and nothing was charged."""
    duplicate_ids: int
    """Rows that repeat the id of an earlier one, among those that were read."""
    requests_per_minute: float | None
    """What the server's limits had taught at the end, None if they taught nothing."""
    another_plan: bool = False
    """The run began a plan of a job that had one before."""


class LocalRun:
    """A run in this process. `stop` and `leave_now` may be called from a signal handler of the loop."""

    def __init__(
        self,
        *,
        planner: Planner,
        limits: Limits,
        budget: Budget,
        exchanger: Exchanger,
        journal: Journal,
        loader: Loader,
        rules: StopRules,
        notify: Notify,
        until: float | None = None,
        total: int | None = None,
        estimate: Estimate | None = None,
        done: RowsDone | None = None,
    ) -> None:
        """Put the stations together. `until`: epoch seconds when nothing more goes out; `notify` hears news.

        `estimate`: the one that was shown; without it the run makes its own when all its rows are planned, and is held
        against that of its first requests until then. `done`: rows of the plan that the planner passes over.
        """
        self._planner, self._limits, self._budget, self._notify = planner, limits, budget, notify
        self._exchanger, self._journal, self._loader = exchanger, journal, loader
        self._until, self._estimate, self._ahead = until, estimate, Ahead()
        self._door = Doorman(limits, budget, notify)
        self._health = Health(
            rules,
            model=exchanger.spec.name,
            concurrency=limits.concurrency,
            most_open=limits.most_open,
            answered_before=bool(planner.known.own),
        )
        self._out: deque[Ticket] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        """Workers that wait for a ticket."""
        self._abandoned = threading.Event()
        self._spent_before = budget.spent
        self._dispatcher: asyncio.Task[None] | None = None
        self._main: asyncio.Task[RunReport] | None = None
        self._bug: BaseException | None = None
        self._hurried = self._dropped = False
        """The user wants to leave now; and what was on the wire then was dropped for it."""
        self.over = False
        """Nothing is on the wire and nothing goes out any more: what is left is to bring it all into the ledger."""
        self.tally = Tally(total=total)
        if done is not None:
            self.tally.done_before(done.rows, done.repeated)
        self._desk = Desk(
            door=self._door,
            health=self._health,
            budget=budget,
            exchanger=exchanger,
            journal=journal,
            loader=loader,
            tally=self.tally,
            ahead=self._ahead,
            notify=notify,
            stop=self._pause,
            fail=self._fail,
            # Rows that somebody asks for again were looked at: if they are rejected again, the job is not news.
            proven=planner.selection.retry is not None,
        )
        self.paused: Pause | None = None
        """Why the run is on its way out, None while it goes on."""

    @property
    def in_flight(self) -> int:
        """Requests on the wire now."""
        return self._door.in_flight

    @property
    def free(self) -> bool:
        """Tell whether the model costs nothing, by its price and by what was charged so far."""
        return self._exchanger.meter.is_free

    @property
    def shut_seconds(self) -> float:
        """How long a rate limit still keeps the door shut."""
        return self._door.shut_seconds

    @property
    def down(self) -> bool:
        """Tell whether the provider is down, and asked now and then whether it is back."""
        return self._health.down

    @property
    def waiting_alone(self) -> tuple[int, float]:
        """How many rows a rate limit refused while others passed, and seconds until the first is sent again."""
        return self._door.waiting_alone

    @property
    def requests_per_minute(self) -> float | None:
        """How many requests a minute are let out at most, as the server taught; None is no limit learned."""
        return self._door.requests_per_minute

    @property
    def spent(self) -> Decimal | None:
        """Dollars this run's answers have cost so far, as far as that is known; None where nothing is known.

        As in the ledger's views: failures that cost nothing don't make unknown costs look like free ones.
        """
        return None if self._desk.unknown and not self._desk.spent else self._desk.spent

    @property
    def projected(self) -> Decimal | None:
        """Dollars of the whole run, going by what is answered; None as long as nobody can tell."""
        return self._ahead.projected

    @property
    def uncertain(self) -> Decimal:
        """Upper bound of what exchanges of unknown cost may add to `spent`, as far as they have one."""
        return self._budget.spent - self._spent_before - self._desk.spent

    @property
    def unbounded(self) -> int:
        """Exchanges of unknown cost that may add any amount."""
        return self._desk.unbounded

    @property
    def ledger_problem(self) -> str | None:
        """Why the ledger is behind, if it is."""
        return self._loader.problem

    def stop(self, reason: str = STOPPED) -> None:
        """Let nothing more out; what is in flight may come home. A run that is over stays what it is: finished, say."""
        if not self.over:
            self._pause(Pause("stopped", reason))

    def tell(self, text: str) -> None:
        """Notify from a callback or a task that nobody waits for: what that raises is raised when the run has ended."""
        try:
            self._notify(text)
        except Exception as error:  # noqa: BLE001 -- whoever is notified is not ours
            self._fail(error)

    def _pause(self, pause: Pause) -> None:
        """Let nothing more out; the first reason stays."""
        if self.paused is None:
            runlog.pausing(pause)
        self.paused = self.paused or pause
        self._abandoned.set()
        self._door.stop()
        if self._dispatcher is not None:
            self._dispatcher.cancel()  # it may be waiting at a limiter

    def leave_now(self) -> None:
        """Drop what is on the wire too, and leave. Asking more often changes nothing."""
        if self._hurried:
            return
        self._hurried = True
        self._loader.hurry()
        if self.over:
            return  # a cancelled close would tell nobody what the ledger lacks
        self._dropped = True
        self.stop()
        if self._main is not None:
            self._main.cancel()

    async def execute(self, watch: Callable[["LocalRun"], Awaitable[None]] | None = None) -> RunReport:
        """Run to the end or to a pause; `watch` shows progress until it is cancelled.

        Raises only our own bugs, and what `watch` or whoever is notified raised: then the run stops.
        """
        self._main = asyncio.current_task()
        start = time.monotonic()
        if self._estimate is not None:  # now: whatever ends the run, what was agreed to is booked
            self._book_estimate(self._estimate.forecast, self._estimate.rows)
            self._expect(self._estimate.forecast, self._estimate.complete)
        watchers: list[asyncio.Future[None]] = []
        try:
            for each in self._watchers(watch):
                watchers.append(asyncio.ensure_future(each))
                watchers[-1].add_done_callback(self._has_watched)
            self._loader.start()
            await self._run_stations()
        except asyncio.CancelledError:
            if not self._dropped:
                raise
        except Exception as error:  # noqa: BLE001 -- `watch` could not begin: the run ends in good order all the same
            self._fail(error)
        finally:
            for watcher in watchers:
                watcher.cancel()
            left_over = await asyncio.shield(self._close())
            # What is shown of the job would be a part of it, or an older list.
            if self._loader.unlisted and self.paused is None and not self._hurried:
                self.paused = Pause("ledger", "the list of rows is not whole in the ledger, which could not be written")
        if self._bug is not None:
            raise self._bug
        return RunReport(
            run_id=self._exchanger.run_id,
            tally=self.tally,
            complete=self.tally.scanned and self._planner.plan.complete,
            spent=self.spent,
            uncertain=self.uncertain,
            unbounded=self.unbounded,
            plan_spent=self._budget.spent,
            paused=self.paused,
            left_over=left_over,
            seconds=time.monotonic() - start,
            exit_code=LEFT if self._hurried and left_over else self._exit_code(),
            free=self.free,
            duplicate_ids=self._planner.plan.duplicate_ids,
            requests_per_minute=self.requests_per_minute,
        )

    def _watchers(self, watch: Callable[["LocalRun"], Awaitable[None]] | None) -> Iterator[Awaitable[None]]:
        if watch is not None:
            watching = watch(self)
            if not inspect.isawaitable(watching):
                raise TypeError(f"`watch` must be a coroutine function (async def), not one that returns {watching!r}")
            yield watching
        yield self._mind_the_time()

    def _has_watched(self, watcher: "asyncio.Future[None]") -> None:
        """Hear that one who watched is done: if that is for an error, the run stops and raises it."""
        error = None if watcher.cancelled() else watcher.exception()
        if error is not None:
            self._fail(error)

    async def _mind_the_time(self) -> None:
        if self._until is None:
            return
        while (left := self._until - time.time()) > 0:  # noqa: ASYNC110 -- a clock on the wall sends no events
            await asyncio.sleep(min(CLOCK_SECONDS, left))
        if not self.over:
            self._pause(BY_CLOCK)

    async def _run_stations(self) -> None:
        loop = asyncio.get_running_loop()
        planned: asyncio.Future[None] = loop.create_future()
        # A thread of its own, which dies with the process: a stopped run does not wait for a scan that finds nothing.
        threading.Thread(target=self._plan, args=(loop, planned), name="promptmill-planner", daemon=True).start()
        workers = [asyncio.create_task(self._work()) for _ in range(self._limits.concurrency)]
        self._dispatcher = asyncio.create_task(self._dispatch())
        try:
            await asyncio.wait([self._dispatcher])
            while self._door.in_flight:
                self._desk.home.clear()
                await self._desk.home.wait()
        finally:
            self.over = True
            self._abandoned.set()
            self._door.stop()
            for task in (self._dispatcher, *workers):
                task.cancel()
            await asyncio.gather(self._dispatcher, *workers, return_exceptions=True)
            self._desk.book()
            await asyncio.wait([planned], timeout=PLANNER_PATIENCE)

    async def _close(self) -> str | None:
        """Write the last line, load everything, and say what could not be loaded."""
        await asyncio.wrap_future(in_thread(self._loader.stop, "promptmill-stop"))
        try:
            if self.paused is None:  # too few to blame the job
                self.paused = self._desk.book_held()
            kind, why = self.paused or (None, FINISHED)
            self._journal.append(
                "end",
                {"exit_code": self._exit_code(), "reason": why, "pause_kind": kind, "at": time.time()},
                came_back=True,
            )
        except RunPaused as error:
            self.paused = self.paused or pause_of(error)
        return await asyncio.wrap_future(in_thread(self._loader.finish, "promptmill-finish"))

    def _exit_code(self) -> int:
        if self._bug is not None:
            return 1
        if self._dropped:
            return LEFT
        if self.paused is not None:
            return PAUSED
        return 3 if self.tally.bad else 0

    def _fail(self, error: BaseException) -> None:
        """Stop on a bug of our own: what is in flight may come home, then the bug shows."""
        self._bug = self._bug or error
        said = redact(f"internal error: {type(error).__name__}: {error}", self._exchanger.secrets)
        self._pause(Pause("bug", said))

    async def _dispatch(self) -> None:
        """Fetch from the doorman, write the `sent` lines, hand over to workers."""
        try:
            while (ticket := await self._door.next()) is not None:
                tickets = [ticket, *self._door.more()]
                if self._exchanger.meter.charged:  # since they were counted: what was to be free has no bound
                    tickets = [each._replace(reserve_usd=None) for each in tickets]
                await self._announce(tickets)
                for each in tickets:
                    self._hand_over(each)
        except PromptmillError as error:
            self._pause(pause_of(error))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 -- the station's edge: a bug (or a panic) must stop the run
            self._fail(error)

    async def _announce(self, tickets: Sequence[Ticket]) -> None:
        try:
            await self._exchanger.connection.endpoint()  # the first time, this starts a model that runs here
            self._journal.append_all([sent_line(ticket) for ticket in tickets])
        except BaseException:
            for ticket in tickets:
                self._door.back(ticket, cost=ZERO, used_tokens=0)
            raise
        self.tally.sent += len(tickets)  # as the ledger counts: what never comes home is a lost attempt

    def _hand_over(self, ticket: Ticket) -> None:
        self._out.append(ticket)
        while self._idle:
            worker = self._idle.pop()
            if not worker.done():  # cancelled: the run is on its way out
                worker.set_result(None)
                return

    async def _next_out(self, loop: asyncio.AbstractEventLoop) -> Ticket:
        """Wait for a ticket: a queue without what a queue does for strangers."""
        while not self._out:
            idle = loop.create_future()
            self._idle.append(idle)
            await idle
        return self._out.popleft()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ticket = await self._next_out(loop)
            epoch = self._health.epoch
            try:
                attempt, result = await self._exchanger.send(ticket)
            except BaseException as error:
                self._desk.lost(ticket)
                if isinstance(error, asyncio.CancelledError):
                    raise
                self._fail(error)
            else:
                self._desk.arrive(Arrival(ticket, attempt, result, epoch))

    def _plan(self, loop: asyncio.AbstractEventLoop, planned: "asyncio.Future[None]") -> None:
        """Scan the input; each batch waits until the loop has taken it."""
        error: BaseException | None = None
        try:
            self._scan(loop)
        except BaseException as caught:  # noqa: BLE001 -- the thread's edge: a bug (or a panic) must stop the run
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for an abandoned scan
            loop.call_soon_threadsafe(self._scanned, planned, error)

    def _scan(self, loop: asyncio.AbstractEventLoop) -> None:
        for batch in self._planner.batches():
            if self._abandoned.is_set():
                return
            self._loader.add_rows(batch.rows)
            asyncio.run_coroutine_threadsafe(self._take(batch), loop).result()
        self._planned(loop)

    def _scanned(self, planned: "asyncio.Future[None]", error: BaseException | None) -> None:
        """Hear, in the loop, how the scan ended; a broken line behind the checked rows pauses the run."""
        try:
            if isinstance(error, PromptmillError):
                self._pause(pause_of(error))
            elif error is not None and not self._abandoned.is_set():
                self._fail(error)
            elif error is None and self.paused is None:
                self._say(self._planner.too_long.news(ended=True))
        except BaseException as caught:  # noqa: BLE001 -- whoever is told may fail, and the run must end all the same
            self._fail(caught)
        finally:
            self._door.no_more()
            planned.set_result(None)

    def _planned(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear that all rows of this run are planned: with --limit these are not all of the plan."""
        plan = self._planner.plan
        self.tally.total = self.tally.rows
        self.tally.scanned = True
        if plan.complete:
            self._loader.planned(self._planner.plan_id, plan.rows)
        if self._estimate is None:
            forecast = self._planner.forecast()
            self._book_estimate(forecast, plan.rows)
            loop.call_soon_threadsafe(self._expect, forecast, plan.complete)

    def _book_estimate(self, forecast: Forecast, rows: int) -> None:
        """Book the estimate of what this run is going to send."""
        self._loader.estimated(forecast.record(self._exchanger.run_id, self._planner.plan_id, rows))

    def _expect(self, forecast: Forecast, complete: bool) -> None:
        """Hold the run against its estimate."""
        self._ahead.expect(forecast.bill, forecast.requests, complete=complete)

    async def _take(self, batch: Batch) -> None:
        if self._loader.broken is not None:
            raise self._loader.broken
        for key, status, repeated in batch.seen:
            self.tally.row(key, status, repeated=repeated)
            self.tally.already += status is not None
            self.tally.repeated += repeated
        if batch.outcomes:  # in one write: a row that is reused costs little else
            self._journal.append_all([outcome_line(outcome) for outcome in batch.outcomes])
        for outcome in batch.outcomes:
            self.tally.ended(outcome.key, outcome.status)
            self.tally.reused += outcome.reused
        self._say(batch.notice)
        if batch.begun is not None:
            self._ahead.expect_first(batch.begun)
        await self._door.offer(batch.tickets)

    def _say(self, notice: str | None) -> None:
        if notice is not None:
            self._notify(notice)
