"""Ctrl-C, SIGTERM, a closed terminal and `promptmill stop`: from before a job counts as running until its run is over.

Only the main thread hears signals. A run in another thread, of a notebook or a server, looks every so often whether
somebody asks it to stop: its caller by an event, `promptmill stop` by a file.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType

from pipeline.errors import STOP_REQUEST, RunStopped
from pipeline.notices import Notify
from pipeline.runners._loader import LAST_PATIENCE
from pipeline.runners.local import LocalRun

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: STOP_REQUEST, signal.SIGHUP: "a closed terminal"}


def _heard() -> list[signal.Signals]:
    """Return the signals that count: not what a shell protects a background job from, or `nohup` does."""
    return [number for number in _NAMES if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN]


LOOK_SECONDS = 0.25
"""How often."""


def hears_signals() -> bool:
    """Tell whether this thread does."""
    return threading.current_thread() is threading.main_thread()


async def look_out(run: LocalRun, asked: Callable[[], bool], notify: Notify) -> None:
    """Stop a run gently once somebody asks for it by other means than a signal."""
    while not asked():  # noqa: ASYNC110 -- a file, and an event of another thread, wake nobody here
        await asyncio.sleep(LOOK_SECONDS)
    run.stop(f"stopped by {STOP_REQUEST}")
    notify(f"{STOP_REQUEST}: letting nothing more out, waiting for {run.in_flight} in flight")


class Asked:
    """What was asked before the run could hear it."""

    def __init__(self) -> None:
        self.by: str | None = None
        """What stops the run from sending anything; None if it may."""
        self.begun = False
        """The run has its number and its journal: it is not broken off any more, but ends as a paused run does."""

    def hear(self, number: int, _: FrameType | None) -> None:
        """Be the handler of a signal."""
        self.by = self.by or _NAMES[signal.Signals(number)]
        if not self.begun:
            raise KeyboardInterrupt  # looking up what is answered may take long, and so may waiting for a lock


@contextmanager
def stoppable() -> Iterator[Asked]:
    """Hear requests to stop while a run begins, or is only looked into. Raises RunStopped: nothing was sent.

    Enter it before the job's lock is taken: whoever sees that a job runs may stop it. The first process of a container
    hears no signal that nobody listens to.
    """
    asked = Asked()
    before = {}
    if hears_signals():
        before = {number: signal.signal(number, asked.hear) for number in _heard()}
    try:
        yield asked
    except BaseException:  # DuckDB makes an error of its own of what ended its query
        if asked.by is None or asked.begun:
            raise
        raise RunStopped.before_sending(asked.by) from None
    else:
        if asked.by is not None and not asked.begun:  # what was raised then got lost on its way, as in a finalizer
            raise RunStopped.before_sending(asked.by)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def listen(run: LocalRun, asked: Asked, notify: Notify, longest: float) -> None:
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
            notify(f"{name}: nothing is on the wire any more, {waiting} ({leave} leaves now)")
            return
        before = run.paused
        run.stop(f"stopped by {name}")  # first of all: saying so may fail
        what = "letting nothing more out" if before is None else f"stopping already ({before.why})"
        waiting = f"waiting for {run.in_flight} in flight, at most {longest:g} s" if run.in_flight else "leaving"
        notify(f"{name}: {what}, {waiting} ({leave} leaves now)")

    def on_interrupt() -> None:
        # Counted here: a run that stopped by itself (budget, quota, --until, a full disk) heard no Ctrl-C yet.
        if next(interrupts) == 1:
            gently(_NAMES[signal.SIGINT], "Ctrl-C again")
            return
        run.leave_now()
        lost = "answers still on the wire are lost and listed as lost attempts"
        notify(f"leaving now; {'what the ledger lacks stays in the journal' if run.over else lost}")

    for number in _heard():
        if number == signal.SIGINT:
            loop.add_signal_handler(number, on_interrupt)
        else:
            loop.add_signal_handler(number, gently, _NAMES[number], "Ctrl-C twice")
    if asked.by is not None:  # since the run has begun
        run.stop(f"stopped by {asked.by}")
