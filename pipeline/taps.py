"""Limiters whose rate may change from one request to the next. One waiter at a time: see `pipeline.doorman`."""

import asyncio

from aiolimiter import AsyncLimiter

NOTICED_RISE = 1.03
"""A smaller rise of a rate is not worth a new limiter."""
LEAST_CHANGE = 1e-3
TOKEN_SECONDS, TOKEN_PIECE = 0.1, 0.6
"""Tokens are drawn in pieces of this share of what so many seconds allow; the rest makes up for late timers."""
CREDIT_SECONDS = 2.0
"""Credit is kept for so long a lull: more would be a burst."""


class _Limiter:
    """An aiolimiter at a rate that may change; a change lets no burst out."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._limiter: AsyncLimiter | None = None
        self._last = 0.0

    async def set(self, rate: float, most: float) -> AsyncLimiter:
        """Return a limiter for this rate that lets `most` out at once."""
        if self._limiter is not None and self._rate * (1 - LEAST_CHANGE) <= rate <= self._rate * NOTICED_RISE:
            return self._limiter
        limiter = AsyncLimiter(most, most / rate)
        idle = asyncio.get_running_loop().time() - self._last
        spared = 1.0 if self._limiter is None else min(idle * rate, 1.0)
        await limiter.acquire(max(most - spared, 0.0))  # passes at once: the limiter is new
        self._rate, self._limiter = rate, limiter
        return limiter

    async def draw(self, amount: float) -> None:
        """Wait until this much may pass; not more than the `most` of `set`."""
        if self._limiter is not None:
            await self._limiter.acquire(amount)
            self._last = asyncio.get_running_loop().time()

    def drop(self) -> None:
        """Forget the limit."""
        self._limiter = None


class RequestTap:
    """Requests, one at a time."""

    def __init__(self) -> None:
        self._limiter = _Limiter()

    async def draw(self, per_second: float | None, catch_up_seconds: float = 0.0) -> None:
        """Wait until one more request may pass; so much lateness is caught up."""
        if per_second is None:
            self._limiter.drop()
            return
        await self._limiter.set(per_second, 1 + catch_up_seconds * per_second)
        await self._limiter.draw(1)


class TokenTap:
    """Tokens of requests of any size: a request passes when those before it are paid for.

    So a large one waits for nobody but its predecessors, and no second sees more than one request above the rate.
    """

    def __init__(self) -> None:
        self._limiter = _Limiter()
        self._owed = 0.0
        """Negative is credit."""
        self._rate: float | None = None

    async def draw(self, tokens: float, per_second: float | None) -> None:
        """Wait until a request of so many tokens may pass."""
        self._rate = per_second
        if per_second is None:
            self._limiter.drop()
            self._owed = 0.0
            return
        most = TOKEN_SECONDS * per_second
        await self._limiter.set(per_second, most)
        while self._owed > 0:
            piece = min(self._owed, TOKEN_PIECE * most)
            await self._limiter.draw(piece)
            self._owed -= piece
        self._owed += tokens

    def give_back(self, tokens: float) -> None:
        """Credit tokens that a request did not use; credit beyond two seconds' worth lapses."""
        if self._rate is not None:
            most = max(CREDIT_SECONDS * self._rate, tokens)
            self._owed = max(self._owed - tokens, min(self._owed, -most))
