"""Limiters whose rate may change from one request to the next. One waiter at a time: see `pipeline.doorman`."""

import asyncio

from aiolimiter import AsyncLimiter

NOTICED_RISE = 1.03
"""A smaller rise of a rate is not worth a new limiter."""
LEAST_CHANGE = 1e-3
TOKEN_SECONDS, TOKEN_PIECE = 0.1, 0.6
"""Tokens are drawn in pieces of this share of what so many seconds allow; the rest makes up for late timers."""
LAPSE_SECONDS = 0.04
"""What is drawn and not used for so long would be a burst."""
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
    """Requests: one at a time, or several that were drawn together where they follow each other fast."""

    def __init__(self) -> None:
        self._limiter = _Limiter()
        self._drawn = 0
        """Requests that are drawn and have not passed yet."""
        self._lapse = 0.0

    async def draw(self, per_second: float | None, catch_up_seconds: float = 0.0, slice_seconds: float = 0.0) -> None:
        """Wait until one more request may pass; so much lateness is caught up.

        Those of `slice_seconds`, which must not be more than is caught up, are drawn together: waking up for each of
        thousands in a second costs more than sending them.
        """
        if per_second is None:
            self._limiter.drop()
            self._drawn = 0
            return
        if self.at_hand:
            self.take()
            return
        most = 1 + catch_up_seconds * per_second
        await self._limiter.set(per_second, most)
        together = max(int(min(slice_seconds * per_second, most)), 1)
        await self._limiter.draw(together)
        self._drawn, self._lapse = together - 1, asyncio.get_running_loop().time() + LAPSE_SECONDS

    @property
    def at_hand(self) -> bool:
        """Tell whether one more is drawn already; one that could have passed long ago has lapsed."""
        return self._drawn > 0 and asyncio.get_running_loop().time() <= self._lapse

    def take(self) -> None:
        """Let one pass that is at hand, or that nothing limits."""
        self._drawn = max(self._drawn - 1, 0)


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
