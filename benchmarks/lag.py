"""promptmill with a watch on its event loop: `python lag.py run job.toml --yes` says last when the loop was how late.

The command line runs as it is. Only whatever loop it starts gets one more task, which wants to wake every 5 ms; a tick
that the loop was too busy for counts with the time it had to wait, so that one long stall weighs as much as it lasts.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Coroutine
from typing import Any

from pipeline.cli import main

TICK_SECONDS = 0.005
late: list[tuple[float, float]] = []
"""(when the tick was due, epoch seconds; by how much it was late, seconds)."""
run_as_it_is = asyncio.Runner.run


async def watch() -> None:
    """Note how late every tick is, until cancelled."""
    epoch = time.time() - time.perf_counter()
    due = time.perf_counter() + TICK_SECONDS
    while True:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        while due <= now:
            late.append((epoch + due, now - due))
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
    sys.stderr.write(f"\nlag {json.dumps(late)}\n")
