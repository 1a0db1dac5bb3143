"""Work in a thread of its own, beside the executors of the standard library.

Those take nothing more once the main thread has ended, though a run goes on in another thread that keeps the process
alive; and a program's own executor has few threads, which runs would hold for hours.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
LOOK_SECONDS = 0.1
"""How often a thread that waits hears signals: a library's own handler may restart the wait."""


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Begin work in a new thread, with the context of this one; the process waits for it before it ends."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def target() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 -- whoever waits for it gets it
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=target, name=name).start()
    return future


def wait_for(future: Future[T]) -> T:
    """Return what the work brings, or raise what it raises; Ctrl-C interrupts the wait."""
    while not wait([future], LOOK_SECONDS).done:
        pass
    return future.result()
