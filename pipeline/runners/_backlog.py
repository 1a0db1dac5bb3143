"""Planned rows on their way to the ledger.

Nobody who plans waits for it, however long it is locked, and memory stays bounded.
"""

import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import orjson

from pipeline.errors import RunPaused

MOST_ROWS = 50_000
"""Rows that are held in memory to be loaded next."""
PIECE_ROWS = 10_000
"""Of the rows behind those, so many are written to the file together."""

PlanRow = tuple[int, int, str, str, bool]
"""(plan_id, row_index, row_id, key, repeated)."""


class Backlog:
    """A queue: the first rows in memory, those behind them in a file, the last of all in memory again.

    The file has no name, so a kill takes it away: rows are planned again from the input. It stands beside the journal,
    where there must be room anyhow. `add` may be called from another thread than the others.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: list[PlanRow] = []
        self._written: deque[tuple[int, int, int]] = deque()
        """Offset, bytes and rows of each piece in the file."""
        self._last: list[PlanRow] = []
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._first) + sum(rows for _, _, rows in self._written) + len(self._last)

    @property
    def long(self) -> bool:
        """Tell whether there is more than memory should hold."""
        return bool(self._written)

    def add(self, rows: Sequence[PlanRow]) -> None:
        """Put rows behind the others. Raises RunPaused on a full disk; they are kept all the same."""
        with self._lock:
            if self._written or self._last or len(self._first) >= MOST_ROWS:
                self._last += rows
            else:
                self._first += rows
            if len(self._last) >= PIECE_ROWS:
                self._write()

    def first(self) -> tuple[list[PlanRow], bool]:
        """Return the rows to load next, and whether these are all. Raises OSError if they can't be read now."""
        with self._lock:
            if not self._first:
                self._fetch()
            return self._first.copy(), not (self._written or self._last)

    def drop(self, count: int) -> None:
        """Forget so many of the first rows: they are loaded."""
        with self._lock:
            del self._first[:count]

    def close(self) -> None:
        """Give up what is not loaded: the run is over."""
        with self._lock:
            self._written.clear()
            self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self) -> None:
        data = memoryview(orjson.dumps(self._last))
        offset = sum(self._written[-1][:2]) if self._written else 0
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 -- for many calls
            done = 0
            while done < len(data):
                done += os.pwrite(self._file.fileno(), data[done:], offset + done)
        except OSError as error:
            raise RunPaused(
                f"the ledger is locked, and the list of rows can't be kept in {self._folder} meanwhile:"
                f" {error.strerror}; make room, then run the same command again"
            ) from error
        self._written.append((offset, len(data), len(self._last)))
        self._last = []

    def _fetch(self) -> None:
        while self._file is not None and self._written and len(self._first) < MOST_ROWS:
            offset, size, _ = self._written[0]
            self._first += map(tuple, orjson.loads(_read(self._file.fileno(), size, offset)))
            self._written.popleft()  # not before: no row may be left out
        if not self._written:
            self._drop_file()
            self._first += self._last
            self._last = []


def _read(fd: int, size: int, offset: int) -> bytes:
    """Read a piece whole. Raises OSError."""
    found = b""
    while len(found) < size:
        more = os.pread(fd, size - len(found), offset + len(found))
        if not more:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        found += more
    return found
