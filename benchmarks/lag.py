"""promptmill with a watch on its event loop: `python lag.py run job.toml --yes` says last how late the loop was.

The command line runs as it is. Only whatever loop it starts gets one more task, which wants to wake every 5 ms; a tick
that the loop was too busy for counts with the time it had to wait, so that one long stall weighs as much as it lasts.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine
from typing import Any

from pipeline.cli import main

TICK_SECONDS = 0.005
PERCENTILES = (50, 99, 99.9, 100)
late: list[float] = []
run_as_it_is = asyncio.Runner.run


async def watch() -> None:
    """Note how late every tick is, until cancelled."""
    due = time.perf_counter() + TICK_SECONDS
    while True:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        while due <= now:
            late.append(now - due)
            due += TICK_SECONDS


async def watched(work: Coroutine[Any, Any, Any]) -> Any:
    """Do the work with a watch beside it."""
    watching = asyncio.create_task(watch())
    try:
        return await work
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def run(runner: asyncio.Runner, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
    """Stand in for `asyncio.Runner.run`, which `asyncio.run` and uvloop's `run` use."""
    return run_as_it_is(runner, watched(work), **options)


asyncio.Runner.run = run  # type: ignore[method-assign, assignment]  # narrower than it need be
try:
    main(sys.argv[1:])
finally:
    late.sort()
    found = [late[min(len(late) - 1, int(len(late) * percentile / 100))] for percentile in PERCENTILES if late]
    sys.stderr.write(f"\nlag {' '.join(f'{seconds * 1000:.1f}' for seconds in found)}\n")
