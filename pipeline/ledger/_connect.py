"""Opening the ledger file, and sharing it politely with other processes (docs/journal.md: 9, 11-13).

DuckDB's lock is a kernel lock of the whole process, and any other open-and-close of the file in this process would
drop it silently. So nothing here or elsewhere opens the ledger's path except through DuckDB; `stat` is safe.
"""

import fcntl
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Self

import duckdb

from pipeline.errors import LedgerBusy, LedgerError

BOUNDED = {"memory_limit": "2GB"}
"""How our own questions are asked: what is larger goes to the disk. Without it DuckDB takes most of the machine."""
ROW_GROUP = 6144
"""Rows that are compressed together. Each burst writes the last, unfinished group of every table anew: with DuckDB's
own 122,880 rows that takes twice the processor time and three times the memory, and reading is no faster."""
READER_PATIENCE = 20.0
"""Seconds a reading command waits for the file."""
_POLL = 0.02
_TELL_AFTER = 1.0
_GATE_AFTER = 2.0
_GATE_HELD = 1.0
_GATE_POLL, _GATE_TRIES = 0.001, 200
"""Often, for among many readers the moments are short in which none is passing."""
_LOCKED = "Could not set lock on file"
_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of a KeyboardInterrupt."""
_HOLDER = re.compile(r"\(PID (\d+)\)")
_BAD_WAL = re.compile(r'replaying WAL file "(.+?)": .*(?:[Cc]orrupt|does not match)', re.DOTALL)

_in_this_process = threading.Lock()
"""One connection of this process at a time: two modes at once are an error in DuckDB."""

Waiting = Callable[[str], None]
Patience = float | Callable[[], float]
"""Seconds to wait for the file; a function is asked anew all the while, so that somebody may shorten it."""


_NO_WAY_TO_WRITE = {
    "No space left on device": "the disk is full; make room, then run the same command again",
    "Disk quota exceeded": "the disk quota is used up; make room, then run the same command again",
    "Read-only file system": "its file system is read-only; make it writable, or name another with --ledger",
}


class Unwritable(LedgerError):
    """The file can be read, but neither changed nor made: a full disk, a read-only file system, missing rights."""


class _BadWal(LedgerError):
    """DuckDB can't replay its write-ahead log, so no process has the ledger open."""

    def __init__(self, wal: Path) -> None:
        super().__init__(f"{wal} is damaged and can't be moved aside; make its folder writable, or rename it to .bad")
        self.wal = wal


def gate_path(path: Path) -> Path:
    """Return the lock file that lets a loader through busy readers."""
    return path.with_name(path.name + ".gate")


@contextmanager
def reading(
    path: Path,
    *,
    patience: float | None = None,
    waiting: Waiting | None = None,
    config: dict[str, str] | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the ledger read-only; fetch everything you need, then leave. Raises LedgerBusy or LedgerError."""
    with _in_this_process:
        connection = _patiently(path, read_only=True, patience=patience, waiting=waiting, report=waiting, config=config)
        with _translated(path), closing(connection):
            yield connection


class Engine:
    """DuckDB without a file. Making one takes 16 ms of the processor, opening a ledger in it 3: bursts share one.

    It is for one ledger, and is thrown away when anything fails: DuckDB may be beyond use then.
    """

    def __init__(self) -> None:
        self._idle: duckdb.DuckDBPyConnection | None = None

    def take(self, path: Path) -> duckdb.DuckDBPyConnection:
        """Return a connection without a file, for the ledger at this path."""
        idle, self._idle = self._idle, None
        return idle or duckdb.connect(config={"temp_directory": f"{path}.tmp"})

    def give_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Keep a connection that has no file open."""
        self._idle = connection

    @contextmanager
    def lending(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Close the file at the end, and keep the engine if all went well."""
        try:
            yield
            connection.complete()  # an answer that was not fetched to its end would hold the file
            connection.execute("use memory")
            connection.execute("detach ledger")
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)


@contextmanager
def writing(
    path: Path,
    *,
    patience: Patience | None = None,
    waiting: Waiting | None = None,
    report: Waiting | None = None,
    engine: Engine | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the ledger read-write, making the file if it is missing. Raises LedgerBusy or LedgerError.

    `waiting` hears who holds the file; `report` hears when a damaged write-ahead log was set aside. Who opens the file
    again and again brings an `engine`.
    """
    with _in_this_process:
        connection = _patiently(
            path, read_only=False, patience=patience, waiting=waiting, report=report or waiting, engine=engine
        )
        with _translated(path), closing(connection) if engine is None else engine.lending(connection):
            yield connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise translate(path, error) from error
    except RuntimeError as error:
        if str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from error
        raise


def _patiently(
    path: Path,
    *,
    read_only: bool,
    patience: Patience | None,
    waiting: Waiting | None,
    report: Waiting | None,
    config: dict[str, str] | None = None,
    engine: Engine | None = None,
) -> duckdb.DuckDBPyConnection:
    """Poll for the file's lock. Readers pass the gate only to open; a writer closes the gate after a while."""
    start = time.monotonic()
    told = False
    with _Gate(path) as gate:
        while True:
            waited = time.monotonic() - start
            try:
                try:
                    gate.shut_or_open(waited, reader=read_only)
                    return _open(path, read_only=read_only, config=config, engine=engine)
                except _BadWal:
                    if gate.absent:
                        raise
                    gate.shut()
                    _set_wal_aside(path, report)
            except LedgerBusy as busy:
                most = READER_PATIENCE if patience is None else patience
                if waited >= (most() if callable(most) else most):
                    raise
                if waiting is not None and not told and waited > _TELL_AFTER:
                    waiting(f"waiting up to {READER_PATIENCE if patience is None else patience:g} s: {busy.holder}")
                    told = True
            finally:
                if read_only:
                    gate.open()
            time.sleep(_POLL * random.uniform(0.5, 1.5))  # noqa: S311 -- spreading polls, not secrets


class _Gate:
    """`flock` on a file beside the ledger. On a read-only folder there is no gate, and none is needed."""

    def __init__(self, path: Path) -> None:
        self._path = gate_path(path)
        self._fd: int | None = None
        self._shut = False

    @property
    def absent(self) -> bool:
        """Tell whether the folder is read-only."""
        return self._fd is None

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            self._fd = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def shut_or_open(self, waited: float, *, reader: bool) -> None:
        """Readers pass only while no loader has shut the gate; a loader shuts it for 1 of every 3 seconds.

        Raises LedgerBusy for a reader before a shut gate: it comes again, and gives up when its patience ends.
        """
        if self._fd is None:
            return
        if reader:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LedgerBusy(f"a run is waiting to write {self._path}", "run the command again") from None
        elif waited % (_GATE_AFTER + _GATE_HELD) >= _GATE_AFTER:
            self.shut()
        else:
            self.open()

    def shut(self) -> None:
        """Let nobody else pass, as soon as nobody is passing.

        Raises LedgerBusy if that takes longer than a moment: whoever was stopped there holds all others up.
        """
        if self._fd is None or self._shut:
            return
        for _ in range(_GATE_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_GATE_POLL)
            else:
                self._shut = True
                return
        raise LedgerBusy(
            f"other commands are passing {self._path}, or one was stopped (Ctrl-Z) while it opened the ledger",
            "let it go on, or wait and run the command again",
        )

    def open(self) -> None:
        """Let others pass."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._shut = False


def _open(
    path: Path, *, read_only: bool, config: dict[str, str] | None, engine: Engine | None = None
) -> duckdb.DuckDBPyConnection:
    try:
        connection = _reader(path, config or BOUNDED) if read_only else _writer(path, engine or Engine())
    except duckdb.Error as error:
        raise translate(path, error) from error
    connection.execute("set enable_progress_bar = false")  # it would be drawn on standard output, into the results
    return connection


def _reader(path: Path, config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(path), read_only=True, config=dict(config))


def _writer(path: Path, engine: Engine) -> duckdb.DuckDBPyConnection:
    """Attach the file instead of opening it: the size of row groups can't be said otherwise, and is not remembered."""
    connection = engine.take(path)
    try:
        file = str(path).replace("'", "''")
        # Not under the file's own name: some are reserved.
        connection.execute(f"attach '{file}' as ledger (row_group_size {ROW_GROUP})")
        connection.execute("use ledger")
    except BaseException as error:
        if _LOCKED in str(error):
            engine.give_back(connection)  # for the next try
        else:
            connection.close()
        raise
    return connection


def _set_wal_aside(path: Path, report: Waiting | None) -> None:
    """Rule 13: give a damaged write-ahead log another name. Called with the gate shut, so two never do it at once.

    While the log is damaged nobody can open the ledger, so the log can't be one that a process is writing.
    """
    try:
        _open(path, read_only=True, config=None).close()
    except _BadWal as bad:
        aside = _free_name(bad.wal)
        try:
            bad.wal.rename(aside)
        except OSError as error:
            raise LedgerError(f"{bad} ({error.strerror})") from error
        if report is not None:
            report(
                f"the ledger's write-ahead log was damaged and is now {aside}; what it held is loaded again from the"
                " journals, but the list of rows may have gaps at its end: run the job again to complete it"
            )


def _free_name(wal: Path) -> Path:
    names = (wal.with_name(f"{wal.name}.bad{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def translate(path: Path, error: duckdb.Error) -> LedgerError:
    """Turn DuckDB's words into ours: busy (try again) or unusable (say what to do)."""
    text = str(error)
    bad = _BAD_WAL.search(text)
    if bad is not None:
        return _BadWal(Path(bad.group(1)))
    if _LOCKED in text:
        holder = _HOLDER.search(text)
        who = f"process {holder.group(1)}" if holder else "another process"
        return LedgerBusy(f"the ledger {path} is open in {who}", "close it there, or wait and run the command again")
    if "does not exist" in text:
        return LedgerError(f"there is no ledger {path}; `promptmill run JOB` makes one, --ledger names another")
    if "not a valid DuckDB database file" in text:
        return LedgerError(
            f"{path} is not a DuckDB file; name another with --ledger, or move it away: the next command makes the"
            " ledger again from its journals, if there are any"
        )
    for said, told in _NO_WAY_TO_WRITE.items():
        if said in text:
            return Unwritable(f"the ledger {path} can't be written: {told}")
    first = " ".join(text.split())[:300]
    return LedgerError(f"the ledger {path} can't be used: {first}")
