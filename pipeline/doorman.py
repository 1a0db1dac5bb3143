"""The one coroutine that lets requests out, in order: budget, rates, slots, and the pause that everybody shares.

It is the only waiter at the limiters, so nothing starves and nothing stampedes (aiolimiter wakes the smallest waiter
first). Rates are drawn in slices of 10 ms or one request, whichever is larger, so that no second sees a burst.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from aiolimiter import AsyncLimiter

from pipeline.budget import ZERO, Budget, dollars
from pipeline.errors import BudgetExhausted
from pipeline.records import AttemptKind, Request

SLICE_SECONDS = 0.01
QUEUED_LEAST = 256
"""Fresh tickets that may always wait; for many slots twice their number."""
OPEN_PER_SLOT = 4
"""At most this many requests per slot are between their first send and their outcome."""


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
                f" {self.tokens_per_minute:,.0f} tokens per minute"
            )
        return None


@dataclass(frozen=True, slots=True)
class Ticket:
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
    """The attempt whose invalid answer this one repairs: if the repair brings none, that answer is kept."""


class Doorman:
    """Lets tickets out one at a time; `next` has exactly one caller."""

    def __init__(self, limits: Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._requests = _limiter(limits.requests_per_minute)
        self._tokens = _limiter(limits.tokens_per_minute)
        self._token_credit = 0.0
        self._fresh: deque[Ticket] = deque()
        self._retries: deque[Ticket] = deque()
        self._started: set[str] = set()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._no_more = False
        self._stopping = False
        self._shut_until = 0.0
        self._slots = limits.concurrency
        self.in_flight = 0

    # -- who brings tickets -------------------------------------------------------------------------

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
        """Queue a retry ahead of fresh rows; it sleeps outside the door until its time has come."""
        asyncio.get_running_loop().call_later(wait_seconds, self._ready_again, ticket)

    def _ready_again(self, ticket: Ticket) -> None:
        self._retries.append(ticket)
        self._changed.set()

    # -- who lets them out --------------------------------------------------------------------------

    async def next(self) -> Ticket | None:
        """Return the next ticket that may go out now, holding a slot and its worst case of the budget.

        None when all is done or `stop` was called. Raises BudgetExhausted when the next ticket's worst case can't fit
        and nothing is in flight that could settle for less.
        """
        ticket = await self._pick()
        if ticket is None or not await self._reserve(ticket):
            return None
        try:
            await self._pause_is_over()
            await self._rates(ticket)
            await self._slot()
        except BaseException:  # cancelled while waiting: nothing went out
            self._budget.settle(ticket.reserve_usd or ZERO, ZERO)
            raise
        if self._stopping:
            self._budget.settle(ticket.reserve_usd or ZERO, ZERO)
            return None
        self.in_flight += 1
        self._started.add(ticket.request.key)
        return ticket

    async def _pick(self) -> Ticket | None:
        while not self._stopping:
            if self._retries:
                return self._retries.popleft()
            if self._fresh and len(self._started) < self._limits.most_open:
                self._room.set()
                return self._fresh.popleft()
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
                raise BudgetExhausted(
                    f"the next request may cost up to {dollars(worst_case)}, but {dollars(left)} of the budget of"
                    f" {dollars(cap)} is left; raise it with --budget to go on"
                )
            await self._wait_for_change()
        return True

    async def _pause_is_over(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._shut_until - loop.time()) > 0 and not self._stopping:  # noqa: ASYNC110 -- it may grow
            await asyncio.sleep(left)

    async def _rates(self, ticket: Ticket) -> None:
        if self._requests is not None:
            await self._requests.acquire(1)
        if self._tokens is None:
            return
        credit = min(self._token_credit, ticket.tokens)
        self._token_credit -= credit
        needed = ticket.tokens - credit
        while needed > 0:  # in pieces: one acquire above the slice would raise
            piece = min(needed, self._tokens.max_rate)
            await self._tokens.acquire(piece)
            needed -= piece

    async def _slot(self) -> None:
        """Wait for a free slot; if the door was shut meanwhile, wait for that too."""
        while self.in_flight >= self._slots and not self._stopping:
            await self._wait_for_change()
        await self._pause_is_over()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # -- who comes back -----------------------------------------------------------------------------

    def back(self, ticket: Ticket, *, cost: Decimal | None, used_tokens: int | None) -> None:
        """Return a slot after an exchange: settle the budget, keep unused tokens as credit.

        `cost` None is unknown (the worst case stays booked); `used_tokens` None gives no credit.
        """
        self.in_flight -= 1
        self._budget.settle(ticket.reserve_usd or ZERO, cost)
        if used_tokens is not None and self._tokens is not None:
            limit = self._limits.tokens_per_minute or 0.0
            self._token_credit = min(self._token_credit + max(ticket.tokens - used_tokens, 0), limit)
        self._changed.set()

    def ended(self, key: str) -> None:
        """Forget a request that has its outcome: it no longer counts as open."""
        self._started.discard(key)
        self._changed.set()

    def shut_for(self, seconds: float) -> None:
        """Let nobody out for this long (a rate limit was hit); a longer pause already set stays."""
        self._shut_until = max(self._shut_until, asyncio.get_running_loop().time() + seconds)

    def narrow(self, slots: int | None) -> None:
        """Use only so many of the slots from now on; None is all of them."""
        self._slots = self._limits.concurrency if slots is None else slots
        self._changed.set()

    @property
    def shut_seconds(self) -> float:
        """How much longer the door stays shut."""
        return max(0.0, self._shut_until - asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Let nothing more out. Whoever runs `next` should be cancelled too: it may be waiting at a limiter."""
        self._stopping = True
        self._changed.set()
        self._room.set()


def _limiter(per_minute: float | None) -> AsyncLimiter | None:
    if per_minute is None:
        return None
    per_second = per_minute / 60
    amount = max(1.0, per_second * SLICE_SECONDS)
    return AsyncLimiter(amount, amount / per_second)
