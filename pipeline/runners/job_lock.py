"""One live run per job and ledger: a file lock beside the journals, whom to name when it is taken, how to stop it."""

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import LedgerBusy, LedgerError
from pipeline.files import Planted, open_own

SUFFIX = ".lock"
STOP_SUFFIX = ".stop"
"""Of a file that asks a run to stop which no signal reaches: in a thread of somebody's program, or elsewhere."""

_LARGEST_PID = 2**31 - 1
"""What the kernel's own type holds; nobody numbers processes that high."""


@contextmanager
def job_lock(folder: Path, job: str, account: str, *, hears_signals: bool = True) -> Iterator[list[str]]:
    """Hold the job's lock; yields the names of other live jobs on the same account. Raises LedgerBusy if taken.

    `account` says whose limits the run uses (provider and address, and the NAME of the key's variable).
    """
    if not folder.parent.is_dir():
        raise LedgerError(f"the folder {folder.parent} doesn't exist; make it, or name another ledger with --ledger")
    try:
        folder.mkdir(exist_ok=True)
        fd = open_own(folder / f"{job}{SUFFIX}", os.O_RDWR | os.O_CREAT)
    except Planted as error:
        raise LedgerError(str(error)) from error
    except OSError as error:
        raise LedgerError(f"the folder {folder} can't be written: {error.strerror}; choose another --ledger") from error
    try:
        if not _locked(fd, folder):
            pid = live_runs(folder).get(job, {}).get("pid", "?")
            raise LedgerBusy(
                f"the job {job} is already running (process {pid}); `promptmill status` shows it,"
                f" `promptmill stop {job}` stops it"
            )
        _stop_file(folder, job).unlink(missing_ok=True)  # it was for another run
        facts = {"pid": os.getpid(), "account": account, "hears_signals": hears_signals, "where": _where()}
        _write_facts(fd, folder, facts)
        try:
            yield [name for name, facts in live_runs(folder).items() if name != job and facts.get("account") == account]
        finally:
            # Not only closed: a process that was forked meanwhile (a pool in a notebook) would keep the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def ask_to_stop(folder: Path, job: str, facts: Mapping[str, Any]) -> None:
    """Ask a live run to stop, of which `live_runs` says these facts. Raises OSError if that can't be done.

    A run on another machine, or in another container, finds a file: here its number may be a stranger's. So does number
    1, which is a run only where that is all of a container, and else what the machine was started with.
    """
    pid = int(facts["pid"])
    if pid > 1 and facts.get("hears_signals", True) and facts.get("where", _where()) == _where():
        os.kill(pid, signal.SIGTERM)
    else:
        os.close(open_own(_stop_file(folder, job), os.O_WRONLY | os.O_CREAT))


def _where() -> str:
    """Name the place where process numbers mean what they mean here: a machine since it was started, a container."""
    found = [socket.gethostname()]
    with suppress(OSError):  # Linux
        boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
        found += [boot.read_text().strip(), str(space.readlink())]
    return " ".join(found)


def asked_to_stop(folder: Path, job: str) -> bool:
    """Tell whether somebody has asked the job's run to stop by a file, once."""
    try:
        _stop_file(folder, job).unlink()
    except OSError:
        return False
    return True


def _stop_file(folder: Path, job: str) -> Path:
    return folder / f"{job}{STOP_SUFFIX}"


def _write_facts(fd: int, folder: Path, facts: dict[str, Any]) -> None:
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(facts).encode(), 0)
    except OSError as error:
        raise LedgerError(
            f"the folder {folder} can't be written: {error.strerror}; make room, or choose another --ledger"
        ) from error


def _locked(fd: int, folder: Path) -> bool:
    """Take the lock; try again shortly, because `status` in another terminal holds it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError as error:  # a network drive without locks
            raise LedgerError(
                f"nothing can be locked in the folder {folder}: {error.strerror}; choose another --ledger, on a disk of"
                " this machine"
            ) from error
        else:
            return True
    return False


def live_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the running jobs of a ledger: name -> what their lock file says (`pid`, `account`, `hears_signals`)."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
        try:
            fd = open_own(path, os.O_RDONLY)
        except OSError:  # no file of ours, gone, or another user's
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found[path.name.removesuffix(SUFFIX)] = _facts(os.read(fd, 4096))
        except OSError:  # nothing can be locked there, so nothing runs
            continue
        finally:
            os.close(fd)
    return found


def _facts(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):  # just being written, or by somebody else
        return {}
    return facts if isinstance(facts, dict) and _is_process(facts.get("pid")) else {}


def _is_process(pid: object) -> bool:
    """Tell whether a number can be a run's: to the kernel 0 and below mean groups of processes, or all of them."""
    return type(pid) is int and 1 <= pid <= _LARGEST_PID
