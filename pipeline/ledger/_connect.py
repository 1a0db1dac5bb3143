"""Opening the ledger file, and sharing it politely with other processes (docs/journal.md: 9, 11-13).

DuckDB's lock is a kernel lock of the whole process, and any other open-and-close of the file in this process would
drop it silently. So nothing here or elsewhere opens the ledger's path except through DuckDB; `stat` is safe.
"""

import ctypes
import fcntl
import math
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Self

import duckdb

from pipeline.errors import LedgerBusy, LedgerError
from pipeline.files import Planted, open_own
from pipeline.threads import LOOK_SECONDS

BOUNDED = "2GB"
"""Memory in which our own questions are answered: what is larger goes to the disk. DuckDB takes most of the machine."""
ROW_GROUP = 6144
"""Rows that are compressed together. Each burst writes the last, unfinished group of every table anew: with DuckDB's
own 122,880 rows that takes twice the processor time and three times the memory, and reading is no faster."""
QUIET = "set enable_progress_bar = false"
"""It would be drawn on standard output, into the results."""
READER_PATIENCE = 20.0
"""Seconds a reading command waits for the file."""
_POLL = 0.02
_TELL_AFTER = 1.0
_FORK_PATIENCE = 1.0
_NESTED_PATIENCE = 5.0
_GATE_AFTER = 2.0
_GATE_HELD = 1.0
_GATE_POLL, _GATE_TRIES = 0.001, 200
"""Often, for among many readers the moments are short in which none is passing."""
_LOCKED = "Could not set lock on file"
_NO_LOCKS = ("No locks available", "not supported", "Function not implemented")
"""What follows that on a drive that has none."""
_OPEN_HERE = ("Unique file handle conflict", "same database file with a different configuration")
"""What DuckDB says where this very process has the file open, by a connection that is not ours."""
_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of a KeyboardInterrupt."""
_HOLDER = re.compile(r"\(PID (\d+)\)")
_BAD_WAL = re.compile(r'replaying WAL file "(.+?)": .*(?:[Cc]orrupt|does not match)', re.DOTALL)


class _Turn:
    """One connection of this process to a file at a time: two modes at once are an error in DuckDB."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # it knows who has it, whatever interrupts that one

    @classmethod
    def at(cls, path: Path) -> "_Turn":
        """Return whose turn it is with a file, by whatever name it goes: also by another link to it."""
        name, file = os.path.realpath(path), _identity(path)
        with _turns_lock:
            found = _turns.get(name) if file is None else _turns.get(file) or _turns.get(name)
            turn = found or cls()
            _turns[name] = turn
            if file is not None:
                _turns[file] = turn
            return turn

    def is_mine(self) -> bool:
        """Tell whether this thread has it."""
        return self.lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 -- as `Condition` asks

    @contextmanager
    def taken(self, patience: "Patience | None") -> Iterator[None]:
        """Keep this process's other threads out.

        Raises LedgerError where a thread would wait for itself, LedgerBusy where it waits with another ledger open, for
        somebody who may wait for that, and where a `patience` ends that may be shortened.
        """
        if self.is_mine():
            raise LedgerError(
                "this thread has the ledger open already: whoever is told something while it is read (`notify`) can't"
                " ask it, and what `Ledger.read` gives is to be left first"
            )
        try:
            self._take(patience)
            yield
        finally:
            if self.is_mine():
                self._give()

    @contextmanager
    def left(self, patience: "Patience | None" = None) -> Iterator[None]:
        """Let others in while nothing is open: they may wait for somebody else, too. Raises as `taken`."""
        self._give()
        try:
            yield
        finally:
            self._take(patience)

    def _give(self) -> None:
        _open_here.count = _opened_here() - 1
        self.lock.release()

    def _take(self, patience: "Patience | None") -> None:
        """Wait for it; in pieces, in between which a thread hears Ctrl-C."""
        until = time.monotonic() + _NESTED_PATIENCE if _opened_here() else math.inf
        while not self.lock.acquire(timeout=LOOK_SECONDS):
            if time.monotonic() > until or (callable(patience) and patience() <= 0):
                raise LedgerBusy("another thread of this program has the ledger open")
        _open_here.count = _opened_here() + 1


def _identity(path: Path) -> str | None:
    """Return what is the same for all names of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def _opened_here() -> int:
    """Return how many ledgers this thread has open."""
    found: int = getattr(_open_here, "count", 0)
    return found


_turns: dict[str, _Turn] = {}
_turns_lock = threading.Lock()
_open_here = threading.local()
_forking = threading.local()
_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _after_fork() -> None:
    global _turns_lock  # noqa: PLW0603 -- whoever had it is not in the child
    _turns_lock = threading.Lock()
    _turns.clear()
    for engine in list(_engines):
        engine.forget()


def _before_fork() -> None:
    """Wait until no other thread has a ledger open: a child would wait for ever for locks that DuckDB had at the fork.

    Not longer than a moment: whoever has one open for long is seldom within DuckDB.
    """
    _forking.has = []
    until = time.monotonic() + _FORK_PATIENCE
    for turn in set(_turns.values()):
        left = max(until - time.monotonic(), 0.0)
        if not turn.is_mine() and turn.lock.acquire(timeout=left):
            _forking.has.append(turn.lock)


def _after_fork_here() -> None:
    locks, _forking.has = _forking.has, []
    for lock in locks:
        lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_here, after_in_child=_after_fork)

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
    patience: Patience | None = None,
    waiting: Waiting | None = None,
    engine: "Engine | None" = None,
    config: dict[str, str] | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the ledger read-only; fetch everything you need, then leave. Raises LedgerBusy or LedgerError.

    With a `config` the file is opened by itself, not in the `engine`: such settings hold for all of a DuckDB.
    """
    turn = _Turn.at(path)
    with turn.taken(patience):
        engine = engine or Engine()
        shared = partial(engine.attach, path, read_only=True)
        opens = shared if config is None else partial(_by_itself, path, config)
        connection = _patiently(
            path, opens, turn=turn, read_only=True, patience=patience, waiting=waiting, report=waiting
        )
        session = engine.lending(connection, forgiving=True) if config is None else closing(connection)
        with _translated(path), session:
            yield connection


_UNITS = {"bytes": 1} | {
    f"{letter}{unit}B": base**power
    for power, letter in enumerate("KMGT", 1)
    for unit, base in (("", 1000), ("i", 1024))
}
_AMOUNT = re.compile(r"([\d.]+) ?([A-Za-z]+)")


def _bytes(text: str) -> float:
    """Read an amount of memory as DuckDB writes it; what can't be read is no limit."""
    found = _AMOUNT.fullmatch(text)
    return math.inf if found is None else float(found[1]) * _UNITS.get(found[2], math.inf)


def _bound(connection: duckdb.DuckDBPyConnection, most: str) -> None:
    """Give DuckDB so much memory at most: less where its own limit is lower, for it knows what a container may use."""
    ((own,),) = connection.execute("select current_setting('memory_limit')").fetchall()
    if _bytes(most) < _bytes(own):
        connection.execute(f"set memory_limit = '{most}'")


def _by_itself(path: Path, config: dict[str, str]) -> duckdb.DuckDBPyConnection:
    others: dict[str, str | bool | int | float | list[str]] = {
        name: value for name, value in config.items() if name != "memory_limit"
    }
    connection = duckdb.connect(str(path), read_only=True, config=others)
    try:
        if "memory_limit" in config:
            _bound(connection, config["memory_limit"])
        connection.execute(QUIET)
    except BaseException:
        connection.close()
        raise
    return connection


class Engine:
    """DuckDB without a file. Making one takes 16 ms of the processor, opening a ledger in it 3: a command makes few.

    It is for one ledger. Each session has a connection of its own, and leaves no temporary tables, variables or
    transactions to the next. What it keeps is memory that DuckDB took from the system: `give_back` returns it. When
    anything fails it is thrown away, as DuckDB may be beyond use then.
    """

    def __init__(self) -> None:
        self._root: duckdb.DuckDBPyConnection | None = None
        _engines.add(self)

    def __reduce__(self) -> tuple[type["Engine"], tuple[()]]:
        """Go to another process without DuckDB, which makes one of its own there."""
        return Engine, ()

    def forget(self) -> None:
        """Leave DuckDB to the process that this one was forked from: without its threads, even closing it crashes."""
        root, self._root = self._root, None
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(root))  # not even when Python ends

    def attach(self, path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Return a connection that has the ledger open. Raises DuckDB's errors; the file is not open then."""
        if self._root is None:
            self._root = duckdb.connect(config={"temp_directory": f"{path}.tmp"})
        session = self._root.cursor()
        try:
            # All of DuckDB's, whoever set them. (Not `threads`, which only those set who write: that takes 2 ms.)
            session.execute("reset memory_limit; reset preserve_insertion_order")
            file = str(path).replace("'", "''")
            # A file that is opened by itself would have row groups of DuckDB's own size: nothing remembers ours.
            how = "read_only" if read_only else f"row_group_size {ROW_GROUP}"
            session.execute(f"attach '{file}' as ledger ({how})")  # not under the file's own name: some are reserved
            session.execute("use ledger")
            if read_only:
                _bound(session, BOUNDED)
            session.execute(QUIET)
        except BaseException as error:
            session.close()
            if not any(said in str(error) for said in (_LOCKED, *_OPEN_HERE)):  # else there is a next try
                self.drop()
            raise
        return session

    @contextmanager
    def lending(self, session: duckdb.DuckDBPyConnection, *, forgiving: bool) -> Iterator[None]:
        """Close the file at the end. If `forgiving`, it matters to nobody that DuckDB can't tidy the file up."""
        try:
            yield
            session.close()  # an answer that was not fetched to its end would hold the file
        except BaseException:
            session.close()
            self.drop()
            raise
        try:
            if self._root is not None:
                self._root.execute("detach ledger")
        except BaseException as error:  # on a full disk, say: what was committed is in the write-ahead log
            self.drop()
            if not forgiving or not isinstance(error, duckdb.Error):
                raise

    def give_back(self, path: Path) -> None:
        """Drop it between two sessions, whichever thread has them."""
        with _Turn.at(path).taken(None):
            self.drop()

    def drop(self) -> None:
        """Throw DuckDB away, and the file with it; the next session makes a new one."""
        root, self._root = self._root, None
        if root is not None:
            root.close()


@contextmanager
def writing(
    path: Path,
    *,
    patience: Patience | None = None,
    waiting: Waiting | None = None,
    report: Waiting | None = None,
    engine: Engine | None = None,
    forgiving: bool = True,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the ledger read-write, making the file if it is missing. Raises LedgerBusy or LedgerError.

    `waiting` hears who holds the file; `report` hears when a damaged write-ahead log was set aside. Who opens the file
    again and again brings an `engine`. Unless `forgiving`, a file that can't be tidied up after all was committed is an
    error, too.
    """
    turn = _Turn.at(path)
    with turn.taken(patience):
        engine = engine or Engine()
        opens = partial(engine.attach, path, read_only=False)
        connection = _patiently(
            path, opens, turn=turn, read_only=False, patience=patience, waiting=waiting, report=report or waiting
        )
        with _translated(path), engine.lending(connection, forgiving=forgiving):
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
    opens: Callable[[], duckdb.DuckDBPyConnection],
    *,
    turn: _Turn,
    read_only: bool,
    patience: Patience | None,
    waiting: Waiting | None,
    report: Waiting | None,
) -> duckdb.DuckDBPyConnection:
    """Poll for the file's lock, whose `turn` this thread has, but not while it sleeps.

    Readers pass the gate only to open; a writer closes the gate after a while.
    """
    start = time.monotonic()
    told = False
    with _Gate(path) as gate:
        while True:
            waited = time.monotonic() - start
            try:
                try:
                    gate.shut_or_open(waited, reader=read_only)
                    return _open(path, opens)
                except _BadWal:
                    if gate.absent:
                        raise
                    gate.shut()
                    _set_wal_aside(path, report)
            except LedgerBusy as busy:
                allowed = READER_PATIENCE if patience is None else patience
                most = allowed() if callable(allowed) else allowed
                if waited >= most:
                    raise
                if waiting is not None and not told and waited > _TELL_AFTER:
                    told = True
                    with turn.left(patience):
                        waiting(f"waiting up to {most:g} s: {busy.holder}")
            finally:
                if read_only:
                    gate.open()
            with turn.left(patience):
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
            self._fd = open_own(self._path, os.O_RDWR | os.O_CREAT)
        except Planted as error:
            raise LedgerError(str(error)) from error
        except OSError:
            self._fd = None
        return self

    def __exit__(self, *_: object) -> None:
        self.open()  # not only closed: a process that was forked meanwhile would keep the lock
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
                self._flock(fcntl.LOCK_SH)
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
                self._flock(fcntl.LOCK_EX)
            except BlockingIOError:
                time.sleep(_GATE_POLL)
            else:
                self._shut = self._fd is not None
                return
        raise LedgerBusy(
            f"other commands are passing {self._path}, or one was stopped (Ctrl-Z) while it opened the ledger",
            "let it go on, or wait and run the command again",
        )

    def open(self) -> None:
        """Let others pass."""
        self._flock(fcntl.LOCK_UN)
        self._shut = False

    def _flock(self, how: int) -> None:
        """Lock or unlock; on a drive without locks there is no gate. Raises BlockingIOError."""
        if self._fd is None:
            return
        try:
            fcntl.flock(self._fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            os.close(self._fd)
            self._fd = None


def _open(path: Path, opens: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
    with _translated(path):
        return opens()


def _set_wal_aside(path: Path, report: Waiting | None) -> None:
    """Rule 13: give a damaged write-ahead log another name. Called with the gate shut, so two never do it at once.

    While the log is damaged nobody can open the ledger, so the log can't be one that a process is writing.
    """
    try:
        _open(path, partial(Engine().attach, path, read_only=True)).close()
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


def _kept_out(path: Path, text: str) -> LedgerError | None:
    if _LOCKED in text and any(said in text for said in _NO_LOCKS):
        return LedgerError(
            f"nothing can be locked where the ledger {path} is, and without locks two processes would destroy it;"
            " choose another --ledger, on a disk of this machine"
        )
    if _LOCKED in text:
        holder = _HOLDER.search(text)
        who = f"process {holder.group(1)}" if holder else "another process"
        return LedgerBusy(f"the ledger {path} is open in {who}", "close it there, or wait and run the command again")
    if any(said in text for said in _OPEN_HERE):
        return LedgerBusy(
            f"the ledger {path} is open in this very process, by a DuckDB connection of your own",
            "close that one; `pipeline.api.sql` asks the ledger beside a run",
        )
    return None


def translate(path: Path, error: duckdb.Error) -> LedgerError:
    """Turn DuckDB's words into ours: busy (try again) or unusable (say what to do)."""
    text = str(error)
    bad = _BAD_WAL.search(text)
    if bad is not None:
        return _BadWal(Path(bad.group(1)))
    kept_out = _kept_out(path, text)
    if kept_out is not None:
        return kept_out
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
