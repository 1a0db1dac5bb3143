"""An event loop whose clock stands still while there is work and jumps to the next timer when there is none.

No test sleeps: an hour of waiting takes as long as its callbacks. When every task waits and no timer is left, nothing
will ever happen again, and the test fails at once instead of hanging.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

TURN = 1e-9
"""Seconds that each turn of the loop takes: a clock that stood quite still would keep aiolimiter, which may wake a
rounding error too early and look again, awake for ever."""


class StandstillError(AssertionError):
    """Every task waits for something that no timer brings."""


class _Selector(selectors.DefaultSelector):
    """Where a loop would wait for files, its clock is turned instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        self.now += TURN
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise StandstillError("every task waits, and no timer is set")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the start."""

    def __init__(self) -> None:
        self._turning = _Selector()
        super().__init__(self._turning)

    def time(self) -> float:
        return self._turning.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def settle() -> None:
    """Let everything happen that can happen now, without turning the clock."""
    for _ in range(20):
        await asyncio.sleep(0)
