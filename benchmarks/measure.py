"""What a command costs: the processor time of all its processes and threads, its wall time, its anonymous memory."""

import math
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SAMPLE_SECONDS = 0.05
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """A command that has ended. Seconds and bytes."""

    started: float
    """Epoch."""
    wall: float
    cpu: float
    """User and system time, of all threads and of all child processes that it waited for."""
    peak_anonymous: int
    """The most anonymous memory that it and its descendants had at one time, as sampled every 50 ms."""
    code: int
    stdout: str
    stderr: str


def as_installed() -> dict[str, str]:
    """Return this process's environment, but let Python keep its compiled modules, as an installed package has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(
    command: Sequence[str | Path],
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    expect: tuple[int, ...] = (0,),
    most_bytes: float = math.inf,
) -> Measured:
    """Run a command to its end and say what it cost. Raises RuntimeError if it ends with an unexpected code.

    With more anonymous memory than `most_bytes` it is killed, before the machine suffers: code -9.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 -- the benchmarks' own commands
            [str(part) for part in command],
            cwd=folder,
            env={**as_installed(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        ended, peak = threading.Event(), [0]
        sampler = threading.Thread(target=_sample, args=(process.pid, ended, peak, most_bytes), daemon=True)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
        stdout, stderr = (_text(file) for file in (out, err))
    if process.returncode not in expect:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{stdout}\n{stderr}")
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(started, wall, cpu, peak[0], process.returncode, stdout, stderr)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _sample(pid: int, ended: threading.Event, peak: list[int], most_bytes: float) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        tree = list(_tree(pid))
        peak[0] = max(peak[0], sum(anonymous(each) for each in tree))
        if peak[0] > most_bytes and not ended.is_set():
            for each in tree:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            return


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text(encoding="ascii").split()
        except OSError:  # the thread has ended
            continue
        for child in found:
            yield from _tree(int(child))


def anonymous(pid: int) -> int:
    """Return a process's anonymous memory now, 0 if it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
