"""Ctrl-C, SIGTERM and a closed terminal while nothing is sent yet, and once a run is over.

Only the main thread hears signals. Light on purpose: a command hears them before it loads what a run needs.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import STOP_REQUEST, RunStopped

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: STOP_REQUEST, signal.SIGHUP: "a closed terminal"}


def hears_signals() -> bool:
    """Tell whether this thread does."""
    return threading.current_thread() is threading.main_thread()


def that_count() -> list[signal.Signals]:
    """Return the signals that count: not what a shell protects a background job from, or `nohup` does."""
    return [number for number in NAMES if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN]


class Asked:
    """What was asked before the run could hear it."""

    def __init__(self) -> None:
        self.by: str | None = None
        """What stops the run from sending anything; None if it may."""
        self.begun = False
        """The run has its number and its journal: it is not broken off any more, but ends as a paused run does."""
        self._over = False

    @property
    def stopped(self) -> RunStopped | None:
        """What it comes to that the run was broken off; None if it was not."""
        return None if self.by is None or self.begun else RunStopped.before_sending(self.by)

    def over(self) -> None:
        """Hear that the run has ended: nobody changes any more how it did, or what is said of it."""
        self.by, self.begun, self._over = None, True, True

    def hear(self, number: int, _: FrameType | None) -> None:
        """Be the handler of a signal."""
        insists = self._over and self.by is not None  # as on a reader of the sum that reads nothing
        self.by = self.by or NAMES[signal.Signals(number)]
        if insists or not self.begun:
            raise KeyboardInterrupt  # looking up what is answered may take long, and so may waiting for a lock


@contextmanager
def stoppable(*, leaving: bool = False) -> Iterator[Asked]:
    """Hear requests to stop while a run begins, or is only looked into. Raises RunStopped: nothing was sent.

    Enter it before the job's lock is taken: whoever sees that a job runs may stop it. The first process of a container
    hears no signal that nobody listens to. `leaving`: the process ends behind it, and what comes then is not heard.
    """
    asked = Asked()
    before = {}
    if hears_signals():
        before = {number: signal.signal(number, asked.hear) for number in that_count()}
    try:
        yield asked
    except BaseException:  # DuckDB makes an error of its own of what ended its query
        if asked.stopped is None:
            raise
        raise asked.stopped from None
    else:
        if asked.stopped is not None:  # what was raised then got lost on its way, as in a finalizer
            raise asked.stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if leaving else signal.SIG_DFL if handler is None else handler)
