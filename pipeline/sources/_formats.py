"""The formats there are: the modules of this package whose names don't start with `_`, loaded when asked for."""

import importlib
import pkgutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from pipeline.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

    from pipeline.sources._where import Where

CHUNK_ROWS = 1000
"""Rows that are read, filtered and handed on together."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is not a row."""

    problem: str
    """One sentence without the line's content."""
    digest: str
    """BLAKE2b-128 of the line's bytes, hex."""


Item = tuple[int, int, Mapping[str, Any] | Broken]
"""0-based position among the file's rows, the number shown to people, and the values."""


class Chunk(NamedTuple):
    """Rows that are read, filtered and handed on together: at most CHUNK_ROWS."""

    items: list[Item]
    share: float | None
    """Which part of the file has been read, from 0 to 1; None if nobody knows."""


class Passed:
    """Rows that are counted and not read: their answers are there, and the input is the same as then."""

    def __init__(self, bits: bytes, rows_before: int = 0) -> None:
        """Take a bit for each row of the input by its index, the lowest first, and the rows of earlier files."""
        self._bits, self._before = bits, rows_before
        self._end = 8 * len(bits) - rows_before

    def of_file(self, rows_before: int) -> "Passed":
        """Return the same by positions in a file that so many rows of the input precede."""
        return Passed(self._bits, rows_before)

    def has(self, position: int) -> bool:
        """Tell whether the row at this position is one."""
        at = self._before + position
        return position < self._end and bool(self._bits[at >> 3] >> (at & 7) & 1)

    def all_of(self, position: int, rows: int) -> bool:
        """Tell whether so many rows from this position on are all passed."""
        start, end = self._before + position, self._before + position + rows
        if position + rows > self._end:
            return False
        first, last = -(-start // 8), end // 8
        inner = self._bits[first:last]
        edges = (*range(start, min(8 * first, end)), *range(max(8 * last, start), end))
        return inner.count(255) == len(inner) and all(self._bits[at >> 3] >> (at & 7) & 1 for at in edges)

    def first_other(self) -> int:
        """Return the position of the first row that is none."""
        position = 0
        while self.has(position):
            at = self._before + position
            whole = not at & 7 and self._bits[at >> 3] == 255  # noqa: PLR2004 -- eight rows at once
            position += 8 if whole else 1
        return position


class Format(Protocol):
    """What a format's module states."""

    ENDINGS: tuple[str, ...]
    """The file names it reads end with one of these, in lower case, with the dot."""
    MARK: str
    """What stands between file name and number in a row's origin: `:` before a line, `#` before a row."""
    schema: "Callable[[Path], Mapping[str, pl.DataType]] | None"
    """Returns a file's columns and their types, whole columns of bytes that mean text as text; None where a format has
    no types beyond JSON's. Raises InputError."""
    stored: "Callable[[Path, Sequence[int]], pl.DataFrame] | None"
    """Returns the rows at these positions (ascending, at least one) with those types, None likewise."""

    def stream(self, file: Path, where: "Where | None", passed: Passed | None = None) -> Generator[Chunk, None, int]:
        """Yield the selected rows and all broken lines, in order; return how many rows the file has in all.

        Rows that are `passed` are left out, and change nothing about which others are selected. Raises InputError when
        the file can't be read.
        """
        ...

    def opaque(self, file: Path) -> Sequence[str]:
        """Name the columns with bytes that are no text: they come as base64. Raises InputError."""
        ...


@cache
def format_names() -> tuple[str, ...]:
    """List the formats by listing this package."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


def find_format(name: str) -> Format:
    """Load a format by its name. Raises InputError."""
    if name not in format_names():
        near = did_you_mean(name, format_names())
        raise InputError(f"[input] format: unknown name {name!r}{near}; known: {', '.join(format_names())}")
    return cast("Format", importlib.import_module(f"pipeline.sources.{name}"))


def format_of(file: Path) -> str | None:
    """Return the name of the format that reads files with this ending, if one does."""
    lower = file.name.lower()
    for name in format_names():
        if lower.endswith(find_format(name).ENDINGS):
            return name
    return None


def known_endings(names: Iterable[str] | None = None) -> str:
    """Return the endings that can be read, for messages."""
    chosen = format_names() if names is None else names
    return ", ".join(ending for name in chosen for ending in find_format(name).ENDINGS)
