"""Ctrl-C, SIGTERM, a closed terminal and `promptmill stop` while a run goes on: `pipeline.stopping` hears them before.

A run in another thread than the main one, of a notebook or a server, looks every so often whether somebody asks it to
stop: its caller by an event, `promptmill stop` by a file.
"""

import asyncio
import signal
from collections.abc import Callable
from itertools import count

from pipeline.errors import STOP_REQUEST
from pipeline.runners._loader import LAST_PATIENCE
from pipeline.runners.local import LocalRun
from pipeline.stopping import NAMES, Asked, hears_signals, that_count

LOOK_SECONDS = 0.25
"""How often."""


async def look_out(run: LocalRun, asked: Callable[[], bool]) -> None:
    """Stop a run gently once somebody asks for it by other means than a signal."""
    while not asked():  # noqa: ASYNC110 -- a file, and an event of another thread, wake nobody here
        await asyncio.sleep(LOOK_SECONDS)
    run.stop(f"stopped by {STOP_REQUEST}")
    run.tell(f"{STOP_REQUEST}: letting nothing more out, waiting for {run.in_flight} in flight")


def listen(run: LocalRun, asked: Asked, longest: float) -> None:
    """First Ctrl-C (or SIGTERM, SIGHUP, or `promptmill stop`): stop gently. A second Ctrl-C: leave now.

    Whatever else stopped the run, its first Ctrl-C is the first one: it throws no answer away.
    """
    if not hears_signals():
        return
    loop = asyncio.get_running_loop()
    interrupts = count(1)

    def gently(name: str, leave: str) -> None:
        if run.over:
            waiting = f"waiting for the ledger, at most {LAST_PATIENCE:g} s if it is locked"
            run.tell(f"{name}: nothing is on the wire any more, {waiting} ({leave} leaves now)")
            return
        before = run.paused
        run.stop(f"stopped by {name}")  # first of all: saying so may fail
        what = "letting nothing more out" if before is None else f"stopping already ({before.why})"
        waiting = f"waiting for {run.in_flight} in flight, at most {longest:g} s" if run.in_flight else "leaving"
        run.tell(f"{name}: {what}, {waiting} ({leave} leaves now)")

    def on_interrupt() -> None:
        # Counted here: a run that stopped by itself (budget, quota, --until, a full disk) heard no Ctrl-C yet.
        if next(interrupts) == 1:
            gently(NAMES[signal.SIGINT], "Ctrl-C again")
            return
        run.leave_now()
        lost = "answers still on the wire are lost and listed as lost attempts"
        run.tell(f"leaving now; {'what the ledger lacks stays in the journal' if run.over else lost}")

    for number in that_count():
        if number == signal.SIGINT:
            loop.add_signal_handler(number, on_interrupt)
        else:
            loop.add_signal_handler(number, gently, NAMES[number], "Ctrl-C twice")
    if asked.by is not None:  # since the run has begun
        run.stop(f"stopped by {asked.by}")
