"""The one coroutine that lets requests out, in order: budget, rates, slots, and the pause that everybody shares.

It is the only waiter at the limiters, so nothing starves and nothing stampedes (aiolimiter wakes the smallest waiter
first). Stated rates are kept to a hair below; what a server does not state, `pace` learns.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from pipeline.budget import ZERO, Budget, dollars
from pipeline.crowding import BUSY, SLOW, Crowding
from pipeline.errors import BudgetExhausted
from pipeline.minute import Minute
from pipeline.notices import Notify
from pipeline.pace import (
    NO_RAMP_UP_TO,
    SLICE_SECONDS,
    Pace,
    careful_seconds,
    catch_up_seconds,
    lowest,
    paced,
)
from pipeline.records import AttemptKind, Failure, Reply, Request
from pipeline.slots import Sent
from pipeline.suspects import HONEST, Standing, Suspects
from pipeline.taps import RequestTap, TokenTap

QUEUED_LEAST = 256
"""Fresh tickets that may always wait; for many slots twice their number."""
OPEN_PER_SLOT = 4
"""At most this many requests per slot are between their first send and their outcome."""
STEP_BACK_SECONDS = 1.0
"""So long after the door has opened one comes back that lets another go first."""
LARGEST_FIRST_SECONDS = 90.0
"""So long a row larger than all others is tried first after each pause."""
APART_SECONDS = 3.0
"""Where too few others pass, so far apart are rows tried that are refused while others pass."""
WAITING_APART = 1000
"""So many rows that wait for themselves alone don't count as open: they must not keep the others from going out."""
TRIED_IN_AN_OUTAGE = 64
"""So many fresh rows more may be open while some have failed and nothing else came back: it may be the rows' fault."""
RELEASED_PER_PASS = 2
"""So many of these are tried again for each exchange that brings something else."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the provider allows and what the user wants.

    | field | unit | None means |
    | --- | --- | --- |
    | requests_per_minute | requests | unlimited |
    | tokens_per_minute | input tokens + max_tokens | unlimited |
    | concurrency | requests in flight at once | (always set) |
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 32

    @property
    def most_open(self) -> int:
        """How many requests may be between their first send and their outcome."""
        return OPEN_PER_SLOT * self.concurrency

    def never_fits(self, tokens: int) -> str | None:
        """Say why a request of this size can never be sent, or None."""
        if self.tokens_per_minute is not None and tokens > self.tokens_per_minute:
            return (
                f"the request needs {tokens:,} tokens (input + max_tokens), more than the stated limit of"
                f" {self.tokens_per_minute:,.0f} tokens per minute; raise it and run again"
            )
        return None


class Ticket(NamedTuple):
    """A request on its way to the door, with what it may cost at worst."""

    request: Request
    reserve_usd: Decimal | None
    """None when the price or max_tokens is unknown; then there is no budget either."""
    tokens: int
    """Input tokens + max_tokens, as tokens-per-minute limits count them."""
    input_tokens: int
    count_method: str
    attempt: int = 1
    tries: int = 0
    """Attempts that count against the retry policy (rate-limited ones don't)."""
    kind: AttemptKind = "first"
    repairs: int = 0
    answered_attempt: int | None = None
    """The attempt whose invalid answer this one repairs: if the repair brings none that is as good, it is kept."""
    answered_run: int | None = None
    """The run of that attempt, if it was an earlier one."""
    turned_away: int = 0
    """Attempts that a server without room did not take; they don't count as `tries`."""
    alone: bool = False
    """It is sent with nobody beside it."""


class Doorman:
    """Lets tickets out one at a time; `next` has exactly one caller."""

    def __init__(self, limits: Limits, budget: Budget, notify: Notify | None = None) -> None:
        """Take the limits and the run's budget; `notify` hears what the server taught."""
        self._limits, self._notify = limits, notify
        self._budget = budget
        self._stated_requests = paced(limits.requests_per_minute)
        self._stated_tokens = paced(limits.tokens_per_minute)
        self._stated = self._stated_requests is not None or self._stated_tokens is not None
        self._pace = Pace(ramps=not self._stated and limits.concurrency > NO_RAMP_UP_TO)
        self._requests = RequestTap()
        self._tokens = TokenTap()
        self._minute = None if limits.tokens_per_minute is None else Minute(limits.tokens_per_minute)
        self._suspects = Suspects()
        self._crowding = Crowding(limits.concurrency)
        self._gives_back = True
        self._out: dict[str, Sent] = {}
        self._fresh: deque[Ticket] = deque()
        self._retries: deque[Ticket] = deque()
        self._apart: deque[Ticket] = deque()
        """Rows that are refused while others pass."""
        self._failed: deque[Ticket] = deque()
        """Retries of rows that failed, nothing else having come back since."""
        self._silent = False
        """What came back last was a failure of the server's own."""
        self._alone: deque[Ticket] = deque()
        """Rows that broke off together with others, each time: which of them is to blame shows alone."""
        self._alone_out: str | None = None
        self._apart_from = 0.0
        self._apart_is_next = False
        self._waiting = 0
        """Rows that were refused by chance and wait for themselves alone."""
        self._alone_until: dict[str, float] = {}
        """These and the ones apart, and when each may go out again."""
        self._started: set[str] = set()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._no_more = False
        self._stopping = False
        self._waited = False
        self._shut_until = 0.0
        self._narrowed: int | None = None
        self._answers = 0
        """Requests answered so far."""
        self._answered_at = 0.0
        """When one was last."""
        self.in_flight = 0

    async def offer(self, tickets: Iterable[Ticket]) -> None:
        """Queue fresh tickets; returns when there is room for more."""
        self._fresh.extend(tickets)
        self._changed.set()
        most = max(QUEUED_LEAST, 2 * self._limits.concurrency)
        while len(self._fresh) > most and not self._stopping:
            self._room.clear()
            await self._room.wait()

    def no_more(self) -> None:
        """Say that the input has ended: `next` returns None once everything let out has ended too."""
        self._no_more = True
        self._changed.set()

    def again(self, ticket: Ticket, wait_seconds: float) -> None:
        """Queue a retry ahead of fresh rows; it sleeps outside the door until its time has come.

        Behind them, if its row failed and nothing else has come back since.
        """
        asyncio.get_running_loop().call_later(wait_seconds, self._ready_again, ticket)

    def again_apart(self, ticket: Ticket, wait_seconds: float) -> None:
        """Queue a retry that is refused while others pass: it keeps nobody waiting, and few calls are spent on it."""
        self._wait_alone(ticket, wait_seconds, self._ready_apart)

    def again_by_itself(self, ticket: Ticket, wait_seconds: float) -> None:
        """Queue a retry that was refused by chance: it alone waits, and keeps no fresh row from going out."""
        self._waiting += 1
        self._wait_alone(ticket, wait_seconds, self._waited_by_itself)

    def _wait_alone(self, ticket: Ticket, seconds: float, then: Callable[[Ticket], None]) -> None:
        loop = asyncio.get_running_loop()
        self._alone_until[ticket.request.key] = loop.time() + seconds
        loop.call_later(seconds, then, ticket)

    def _waited_by_itself(self, ticket: Ticket) -> None:
        del self._alone_until[ticket.request.key]
        self._waiting -= 1
        self._ready_again(ticket)

    def _ready_apart(self, ticket: Ticket) -> None:
        del self._alone_until[ticket.request.key]
        now = asyncio.get_running_loop().time()
        if self._apart_from > now and not self._suspects.may_try:
            self.again_apart(ticket, self._apart_from - now)
            return
        self._apart_from = now + APART_SECONDS
        (self._alone if ticket.alone else self._apart).append(ticket)
        self._changed.set()

    def again_alone(self, ticket: Ticket, wait_seconds: float) -> None:
        """Queue a retry that goes out when nothing else is on the wire, and nothing else does until it is back."""
        asyncio.get_running_loop().call_later(wait_seconds, self._ready_alone, ticket)

    def _ready_alone(self, ticket: Ticket) -> None:
        self._alone.append(ticket)
        self._changed.set()

    def step_back(self, ticket: Ticket) -> None:
        """Queue a retry so that another one goes first, whenever the door opens."""
        asyncio.get_running_loop().call_later(self.shut_seconds + STEP_BACK_SECONDS, self._has_stepped_back, ticket)

    def _has_stepped_back(self, ticket: Ticket) -> None:
        if self.shut_seconds > 0:  # somebody else shut it meanwhile
            self.step_back(ticket)
        else:
            self._ready_again(ticket)

    def _ready_again(self, ticket: Ticket) -> None:
        if ticket.alone:
            self._ready_alone(ticket)
            return
        # Whether the server is down is seen only if others are tried: rows may fail on their own account.
        behind = self._silent and (ticket.tries or ticket.turned_away or self._narrowed is not None)
        (self._failed if behind else self._retries).append(ticket)
        self._changed.set()

    def _no_longer_behind(self, most: int) -> None:
        for _ in range(min(most, len(self._failed))):
            self._retries.append(self._failed.popleft())
        self._changed.set()

    async def next(self) -> Ticket | None:
        """Return the next ticket that may go out now, holding a slot and its worst case of the budget.

        None when all is done or `stop` was called. Raises BudgetExhausted when the next ticket's worst case can't fit
        and nothing is in flight that could settle for less.
        """
        ticket = self._picked() or await self._pick()
        if ticket is None or not (self._budget.reserve(ticket.reserve_usd or ZERO) or await self._reserve(ticket)):
            return None
        try:
            may_wait = self._may_wait
            if may_wait or self._waited:  # once more when it ends: that forgets the limit
                self._waited = may_wait
                await self._pause_is_over()
                await self._rates(ticket)
                await self._slot()
            elif self.in_flight >= self._slots:
                await self._slot()
        except BaseException:  # cancelled while waiting: nothing went out
            self._budget.settle(ticket.reserve_usd or ZERO, ZERO)
            raise
        if self._stopping:
            self._budget.settle(ticket.reserve_usd or ZERO, ZERO)
            return None
        self._goes_out(ticket, asyncio.get_running_loop().time())
        return ticket

    def more(self) -> list[Ticket]:
        """Return the tickets behind it that need not wait for anything, holding what `next` holds."""
        tickets: list[Ticket] = []
        now = asyncio.get_running_loop().time()
        while self.in_flight < self._slots and self._need_not_wait(now):
            ticket = self._picked()
            if ticket is None:
                break
            if not self._budget.reserve(ticket.reserve_usd or ZERO):
                (self._alone if ticket.alone else self._retries).appendleft(ticket)  # it is the next one all the same
                break
            self._requests.take()
            self._goes_out(ticket, now)
            tickets.append(ticket)
        return tickets

    def _need_not_wait(self, now: float) -> bool:
        """Tell whether the next one may go: nothing limits it, or a rate of requests alone and it is drawn already."""
        if not self._may_wait:
            return not self._waited
        tokens = self._stated_tokens is not None or self._pace.tokens_per_second is not None
        return self._requests.at_hand and not tokens and max(self._shut_until, self._pace.alone_until()) <= now

    def _goes_out(self, ticket: Ticket, now: float) -> None:
        self.in_flight += 1
        if ticket.alone:
            self._alone_out = ticket.request.key
        self._started.add(ticket.request.key)
        self._out[ticket.request.key] = self._pace.sent(now, self.in_flight, self._answers)
        if self._crowding.most is not None:
            self._crowding.goes_out(now, self.in_flight)
        if self._minute is not None:
            self._minute.add(now, ticket.tokens)

    @property
    def _may_wait(self) -> bool:
        """Tell whether a pause or a rate may be in force: without any, nothing needs to be drawn."""
        return self._stated or self._shut_until > 0 or self._pace.may_limit

    def _picked(self) -> Ticket | None:
        if self._stopping:
            return None
        if self._alone:  # nobody else until it has gone
            return None if self.in_flight else self._alone.popleft()
        if self._retries and not (self._apart and self._apart_is_next):
            self._apart_is_next = self._no_more and not self._fresh  # a few that are refused must not starve them
            return self._retries.popleft()
        if self._apart and (self._apart_is_next or self._suspects.may_try or not self._fresh_may_go):
            self._apart_is_next = False
            self._suspects.tried()
            return self._apart.popleft()
        if self._fresh_may_go:
            if not self._room.is_set():
                self._room.set()
            return self._fresh.popleft()
        return self._failed.popleft() if self._failed else None

    @property
    def _fresh_may_go(self) -> bool:
        if not self._fresh:
            return False
        beyond = len(self._started) - self._limits.most_open
        if beyond < 0:
            return True
        tried = TRIED_IN_AN_OUTAGE if self._failed or self._narrowed is not None else 0
        return beyond < max(tried, min(self._suspects.count + self._waiting, WAITING_APART))

    async def _pick(self) -> Ticket | None:
        while not self._stopping:
            ticket = self._picked()
            if ticket is not None:
                return ticket
            if self._no_more and not self._fresh and not self._started:
                return None
            await self._wait_for_change()
        return None

    async def _reserve(self, ticket: Ticket) -> bool:
        """Set the worst case aside, waiting for exchanges to settle if need be; False when the door is stopping."""
        worst_case = ticket.reserve_usd or ZERO
        while not self._budget.reserve(worst_case):
            if self._stopping:
                return False
            if self.in_flight == 0:
                left, cap = self._budget.left or ZERO, self._budget.cap or ZERO
                what_is_left = f"{dollars(left)} of the budget of {dollars(cap)} is left"
                if left < 0:  # an earlier run had a larger one
                    what_is_left = f"{dollars(self._budget.spent)} is spent already, and the budget is {dollars(cap)}"
                raise BudgetExhausted(
                    f"the next request may cost up to {dollars(worst_case)}, but {what_is_left}; raise it with"
                    " --budget, or [budget] usd"
                )
            await self._wait_for_change()
        return True

    async def _pause_is_over(self) -> None:
        await _sleep_until(lambda: 0.0 if self._stopping else self._shut_until)

    async def _rates(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        await _sleep_until(self._pace.alone_until)
        await self._draw_request(self._pace.requests_per_second(loop.time()))
        await self._tokens.draw(ticket.tokens, lowest(self._stated_tokens, self._pace.tokens_per_second))
        if self._minute is not None:
            minute = self._minute
            await _sleep_until(lambda: loop.time() + minute.wait_seconds(loop.time(), ticket.tokens))

    async def _draw_request(self, learned: float | None) -> None:
        stated = self._stated_requests
        if learned is not None and (stated is None or learned < stated):
            slice_seconds = SLICE_SECONDS if self._pace.ramps else 0.0
            await self._requests.draw(learned, careful_seconds(learned), slice_seconds)
        else:
            await self._requests.draw(stated, 0.0 if stated is None else catch_up_seconds(stated), SLICE_SECONDS)

    async def _slot(self) -> None:
        """Wait for a free slot; if the door was shut meanwhile, wait for that too."""
        while self.in_flight >= self._slots and not self._stopping:
            await self._wait_for_change()
        await self._pause_is_over()

    @property
    def _slots(self) -> int:
        learned, room, narrowed = self._pace.slots, self._crowding.most, self._narrowed
        if self._alone or self._alone_out is not None:
            return 1
        if learned is None and room is None and narrowed is None:
            return self._limits.concurrency
        known = (self._limits.concurrency, learned, room, narrowed)
        return min(most for most in known if most is not None)

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def heard(self, ticket: Ticket, result: Reply | Failure) -> Standing:
        """Learn from what came back how fast the server lets requests through. Call it before `back`.

        Says of a 429 whether it is a limit for everybody or the row's own.
        """
        if result.hint is not None:
            self._pace.heard(result.hint)
        self._silent = isinstance(result, Failure) and result.result == "unavailable"
        if self._failed and not self._silent:  # a few: if it is these rows' fault, others pass between them
            self._no_longer_behind(RELEASED_PER_PASS)
        if isinstance(result, Failure):
            return self._refused(ticket, result) if result.closes_door else HONEST
        self._answers += 1
        self._answered_at = asyncio.get_running_loop().time()
        if self._pace.wants_answers:
            self._pace.passed(self._out[ticket.request.key], ticket.tokens)
        if self._crowding.watches:
            sent, now = self._out[ticket.request.key], asyncio.get_running_loop().time()
            self._crowding.came_back(sent, now, first=ticket.attempt == 1, turned_away=False)
            self._tell(self._crowding.passed(sent, now))
        if self._suspects.doubted:
            key, now = ticket.request.key, asyncio.get_running_loop().time()
            self._suspects.passed(key, now, self._out[key].number, ticket.tokens)
        return HONEST

    def failed(self, ticket: Ticket, failure: Failure, home: AbstractSet[str], *, wanted: bool) -> int:
        """Learn from a failure of the server's own; call it behind `heard`, before `back`.

        Return how many requests that had gone out before it are still on the wire, if that is `wanted`; `home`: keys of
        those that are not, though they are not `back` yet.
        """
        sent, now = self._out[ticket.request.key], asyncio.get_running_loop().time()
        busy = failure.http_status in BUSY
        older = self._older(sent.number, home) if busy or wanted else 0
        if busy:
            self._crowding.came_back(sent, now, first=ticket.attempt == 1, turned_away=True)
        if self._narrowed is not None:  # it seems to be down, and then that is no question of room
            return older
        if busy:
            self._tell(self._crowding.turned_away(sent, now, older))
        elif failure.http_status in SLOW or failure.error_type == "timeout":
            self._tell(self._crowding.timed_out(sent, now, self._answers - sent.answered, self._answered_at))
        return older

    def sent_at(self, ticket: Ticket) -> float:
        """Return when a request on the wire went out, by the loop's clock; before `back`."""
        return self._out[ticket.request.key].at

    def full(self, ticket: Ticket, failure: Failure) -> bool:
        """Tell whether a failure is one of many with which the server says that it has no room; before `back`."""
        if failure.http_status not in BUSY:
            return False
        now = asyncio.get_running_loop().time()
        return self._crowding.full(self._out[ticket.request.key], now, ticket.turned_away)

    def _older(self, number: int, home: AbstractSet[str]) -> int:
        older = 0
        for key, other in self._out.items():  # in the order in which they went out
            if other.number >= number:
                break
            older += key not in home
        return older

    def _tell(self, news: str | None) -> None:
        if news is not None and self._notify is not None:
            self._notify(news)

    def _refused(self, ticket: Ticket, failure: Failure) -> Standing:
        key, now = ticket.request.key, asyncio.get_running_loop().time()
        sent, last = self._out[key], self._no_more and not self._fresh
        standing = self._suspects.refused(key, now, sent.at, sent.number, ticket.tokens, last=last)
        if standing.apart:
            return standing
        if not self._pace.limited(now, sent, failure.hint, ticket.tokens):
            return standing._replace(by_chance=True)
        self._gives_back = self._gives_back and self._minute is None
        return standing._replace(steps_back=standing.refusals > 1 and self._another_goes_first(ticket, standing))

    def _another_goes_first(self, ticket: Ticket, standing: Standing) -> bool:
        """Find another one to go first after a row was refused twice; not a smaller one, which may slip through.

        Where there is none, the row itself tries until a limit per minute must have had room for it.
        """
        if self._suspects.like(ticket.tokens) or standing.seconds > LARGEST_FIRST_SECONDS:
            return True
        if self._retries and self._retries[0].tokens >= ticket.tokens:
            return True
        if len(self._started) < self._limits.most_open:
            for place, other in enumerate(self._fresh):
                if other.tokens >= ticket.tokens:
                    del self._fresh[place]
                    self._retries.appendleft(other)
                    return True
        return False

    def back(self, ticket: Ticket, *, cost: Decimal | None, used_tokens: int | None) -> None:
        """Return a slot after an exchange: settle the budget, keep unused tokens as credit.

        `cost` None is unknown (the worst case stays booked); `used_tokens` None gives no credit.
        """
        self.in_flight -= 1
        self._budget.settle(ticket.reserve_usd or ZERO, cost)
        sent = self._out.pop(ticket.request.key)
        if self._alone_out == ticket.request.key:
            self._alone_out = None
        if used_tokens is not None and used_tokens < ticket.tokens and self._gives_back and self._pace.tokens_to_spare:
            self._tokens.give_back(ticket.tokens - used_tokens)
            if self._minute is not None:
                self._minute.give_back(sent.at, ticket.tokens - used_tokens)
        self._changed.set()

    def ended(self, key: str) -> None:
        """Forget a request that has its outcome: it no longer counts as open."""
        self._started.discard(key)
        if self._suspects.doubted:
            self._suspects.forget(key)
        self._changed.set()

    def shut_for(self, seconds: float) -> None:
        """Let nobody out for this long (a rate limit was hit); a longer pause already set stays."""
        self._shut_until = max(self._shut_until, asyncio.get_running_loop().time() + seconds)
        self._pace.shut(self._shut_until)

    def narrow(self, slots: int | None) -> None:
        """Use only so many of the slots from now on; None is all of them."""
        if slots != self._narrowed:
            self._crowding.interrupted(asyncio.get_running_loop().time())
            self._narrowed = slots
            self._changed.set()

    @property
    def shut_seconds(self) -> float:
        """How much longer the door stays shut."""
        return max(0.0, self._shut_until - asyncio.get_running_loop().time())

    @property
    def waiting_alone(self) -> tuple[int, float]:
        """How many rows wait for themselves alone while others pass, and in how many seconds the first may go out."""
        now = asyncio.get_running_loop().time()
        return len(self._alone_until), max(min(self._alone_until.values(), default=now) - now, 0.0)

    @property
    def requests_per_minute(self) -> float | None:
        """The rate that the server taught, by headers or 429s, and that is in force now; None is none."""
        rate = self._pace.learned_per_second(asyncio.get_running_loop().time())
        return None if rate is None else rate * 60

    @property
    def closed_in_a_row(self) -> int:
        """How many closings in a row there were since the server last let a request through."""
        return self._pace.closed_in_a_row

    def stop(self) -> None:
        """Let nothing more out. Whoever runs `next` should be cancelled too: it may be waiting at a limiter."""
        self._stopping = True
        self._changed.set()
        self._room.set()


async def _sleep_until(moment: Callable[[], float]) -> None:
    """Sleep until a moment that may move meanwhile."""
    loop = asyncio.get_running_loop()
    while (left := moment() - loop.time()) > 0:  # noqa: ASYNC110 -- time is what is waited for
        await asyncio.sleep(left)
