"""The command line in a process that kills itself (SIGKILL) at the n-th time that something happens in any thread.

    dies(project, "call pipeline.ledger._frames.Bundle.insert 2", "run", "job.toml", "--yes")

`call` and `return` are for Python functions (module and qualified name), `before` and `after` for builtins such as
`posix.rename`. A generator is called again when it goes on, and returns when it yields. Nothing of
ours is patched: the interpreter's profiler watches.
"""

import os
import signal
import subprocess
import sys
import threading
from itertools import count
from types import FrameType
from typing import Any

from pipeline.cli import main

EVENTS = {"call": "call", "return": "return", "before": "c_call", "after": "c_return"}


def dies(project, moment, *command):
    """Run a command until the moment kills it; a moment that never comes is a mistake of the test."""
    place, nth = moment.rsplit(" ", 1)
    arguments = [sys.executable, "-W", "error", __file__, place, nth, *command]
    done = subprocess.run(
        arguments, cwd=project.folder, env=project._env(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -9, f"{moment} did not come: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


def hears(project, moment, number, *command):
    """Run a command that gets a signal at the moment; return how it ended."""
    place, nth = moment.rsplit(" ", 1)
    arguments = [sys.executable, "-W", "error", __file__, place, nth, *command]
    environment = project._env() | {"SIGNAL": str(int(number))}
    return subprocess.run(
        arguments, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def die_at(moment: str, nth: int, number: int) -> None:
    """Kill this process, or send it another signal, at the n-th such moment."""
    word, name = moment.split()
    awaited, hits = EVENTS[word], count(1)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event != awaited:
            return
        if event.startswith("c_"):
            found = f"{getattr(argument, '__module__', None)}.{getattr(argument, '__name__', None)}"
        else:
            found = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        if found == name and next(hits) == nth:
            os.kill(os.getpid(), number)

    threading.setprofile(watch)
    sys.setprofile(watch)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]), int(os.environ.get("SIGNAL", signal.SIGKILL)))
    main(sys.argv[3:])
