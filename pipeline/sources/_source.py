"""One input: its files in order, read as rows in bounded batches, every row under its true number."""

import hashlib
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from pipeline.errors import InputError, did_you_mean
from pipeline.records import BrokenRow, Row
from pipeline.sources._formats import Broken, Chunk, Format, Item, Passed

if TYPE_CHECKING:
    import polars as pl

    from pipeline.sources._where import Where

COLUMNS_FROM = 1000
"""Rows that decide which columns an input has."""
FILES_LOOKED_AT = 100
"""Files that are asked for columns of bytes before anything is sent."""
_EDGE_BYTES = 64 * 1024
_HASHED_BYTES = 4 * 2**30
_AS_JSON = (bool, list, dict)


class Source:
    """The rows of an input. It can be scanned any number of times, and holds nothing open between scans."""

    def __init__(
        self,
        files: tuple[Path, ...],
        reader: Format,
        *,
        format_name: str,
        id_column: str | None,
        where: str | None,
        limit: int | None,
        reject: bool,
    ) -> None:
        self.files = files
        self._reader = reader
        self._format_name = format_name
        self._id_column = id_column
        self._where = where
        self._limit = limit
        self._reject = reject
        self._starts: list[int] = []
        """The index of the first row of each file that a scan has come to."""
        self._stamps: list[tuple[int, int]] = []
        """Size and time of change of each of them, as it was then."""
        self.as_hashed: list[_Hashed] | None = None
        """All files as they were when the fingerprint was made: that is what a plan is of."""
        self.share: float | None = None
        """Which part of the input the newest scan has read, from 0 to 1; None if its format can't tell."""

    def batches(self, size: int = 64, *, passed: bytes = b"") -> Iterator[list[Row | BrokenRow]]:
        """Yield the selected rows in file order, `size` at a time; abandon it when you like. Raises InputError.

        `passed` has a bit for each row by its index (the lowest first): rows that are left out, mostly unread.

        An index is the row's position among all rows of the input, before `where` and `limit`. A broken line stops
        the scan with an error, or comes as a BrokenRow (which `where` can't hide, and `limit` counts).
        """
        where = self.check_where()
        self._check_columns(where)
        with closing(self._chunks(where, Passed(passed) if passed else None)) as chunks:
            rows = islice(chain.from_iterable(starmap(self._rows, chunks)), self._limit)
            while batch := list(islice(rows, size)):
                yield batch

    def first_columns(self, rows: int = COLUMNS_FROM) -> tuple[str, ...]:
        """Return the columns of the first rows (before `where` and `limit`), in order of appearance.

        Broken lines have no columns; they are an error when their turn comes, which `limit` may prevent.
        """
        names: dict[str, None] = {}
        with closing(self._chunks(None)) as chunks:
            for _, _, values in islice(chain.from_iterable(items for items, _, _ in chunks), rows):
                if not isinstance(values, Broken):
                    names.update(dict.fromkeys(values))
        return tuple(names)

    def opaque_columns(self) -> list[str]:
        """Name the columns that hold bytes which are no text, by the first files; they come as base64."""
        return list(dict.fromkeys(chain.from_iterable(map(self._reader.opaque, self.files[:FILES_LOOKED_AT]))))

    def types(self) -> "dict[str, pl.DataType] | None":
        """Return the columns of all files with their types; None if they have none, or not the same in all files."""
        if self._reader.schema is None:
            return None
        found: dict[str, pl.DataType] = {}
        for file in self.files:
            for name, dtype in self._reader.schema(file).items():
                if found.setdefault(name, dtype) != dtype:
                    return None
        return found

    def stored(self, indices: Sequence[int]) -> "Iterator[pl.DataFrame]":
        """Yield rows with the types of their files, one frame for each file; none if they have none.

        The indices ascend, and the newest scan has yielded those rows. Raises InputError, also if the file is not the
        one that was scanned.
        """
        at = 0
        while self._reader.stored is not None and at < len(indices):
            file = bisect_right(self._starts, indices[at]) - 1
            end = len(indices)
            if file + 1 < len(self._starts):
                end = bisect_left(indices, self._starts[file + 1])
            start = self._starts[file]
            found = self._reader.stored(self.files[file], [index - start for index in indices[at:end]])
            if found.height != end - at or _stamp(self.files[file]) != self._stamps[file]:
                raise InputError(f"{self.files[file]} was changed while it was read; give the command again")
            yield found
            at = end

    def fingerprint(self) -> str:
        """Return a hash that changes when the input does.

        It is made of the files' names and content, the format, the id column, `where` and `limit`: so a file that was
        only touched or copied is the same input. Beyond 4 GiB in all, sizes, times of change and both ends of each
        file stand for the content, because reading it all would keep the run waiting (about 0.6 s per GB).
        """
        stamps = [_stamp(file) for file in self.files]
        for number, begun in enumerate(self._stamps):
            if begun != stamps[number]:  # what has been read is perhaps not what is hashed now
                raise self._changed(number)
        whole = sum(size for size, _ in stamps) <= _HASHED_BYTES
        facts = [_content(file) if whole else _facts(file) for file in self.files]
        self.as_hashed = list(map(_Hashed, stamps, facts if whole else [None] * len(facts)))
        for number, file in enumerate(self.files):
            self._check(number, _stamp(file))
        content = [facts, self._format_name, self._id_column, self._where, self._limit]
        return hashlib.blake2b(orjson.dumps(content), digest_size=16).hexdigest()

    def be_the_input_of(self, other: "Source") -> None:
        """Take over what another scan of the same input knows of its files: they must not have changed since."""
        self.as_hashed = other.as_hashed

    def _check(self, number: int, stamp: tuple[int, int]) -> None:
        """Raise InputError if a file is not what it was: what is read now belongs to another plan."""
        if self.as_hashed is None or stamp == self.as_hashed[number].stamp:
            return
        file, hashed = self.files[number], self.as_hashed[number]
        if stamp[0] == hashed.stamp[0] and hashed.content is not None and _content(file) == hashed.content:
            self.as_hashed[number] = hashed._replace(stamp=stamp)  # somebody has only touched it
            return
        raise self._changed(number)

    def _changed(self, number: int) -> InputError:
        return InputError(
            f"{self.files[number]} was changed while it was read: with what it holds now it is another plan, which the"
            " next run begins, and pays for new rows only"
        )

    def check_where(self) -> "Where | None":
        """Parse the filter, if there is one; each scan needs its own. Raises InputError."""
        if self._where is None:
            return None
        from pipeline.sources._where import Where  # noqa: PLC0415 - loads Polars only where there is a filter

        return Where(self._where)

    def _check_columns(self, where: "Where | None") -> None:
        wanted = [("where", name) for name in (where.names if where else ())]
        if self._id_column is not None:
            wanted.append(("id", self._id_column))
        columns = self.first_columns() if wanted else ()
        for key, name in wanted if columns else ():  # no columns: nothing but broken rows so far
            if name not in columns:
                near = did_you_mean(name, columns) or f"; columns: {', '.join(columns[:20])}"
                raise InputError(
                    f"[input] {key}: the first {COLUMNS_FROM:,} rows have no column {name!r}{near} ({self.files[0]})"
                )

    def _chunks(
        self, where: "Where | None", passed: Passed | None = None
    ) -> Generator[tuple[list[Item], str, int], None, None]:
        """Yield the files' chunks, each with what its origins begin with and how many rows earlier files have."""
        rows_before = 0
        sizes = [_size(file) for file in self.files]
        total, read = sum(sizes) or 1, 0
        for number, (file, size) in enumerate(zip(self.files, sizes, strict=True)):
            self._starts[number:] = [rows_before]
            self._stamps[number:] = [_stamp(file)]
            self._check(number, self._stamps[number])
            prefix = f"{file}{self._reader.MARK}"
            left_out = None if passed is None else passed.of_file(rows_before)
            with closing(_Counted(self._reader.stream(file, where, left_out))) as chunks:
                for items, share in chunks:
                    self._check(number, _stamp(file))
                    self.share = None if share is None else (read + share * size) / total
                    yield items, prefix, rows_before
                rows_before += chunks.total
            read += size
        if not rows_before:
            one = len(self.files) == 1
            names = f"{self.files[0]} has no rows" if one else f"the {len(self.files)} files have no rows"
            raise InputError(f"[input] path: {names}")

    def _rows(self, items: list[Item], prefix: str, rows_before: int) -> Iterator[Row | BrokenRow]:
        column = self._id_column
        for position, number, values in items:
            index = rows_before + position
            if isinstance(values, Broken):
                yield self._broken(values, index, f"{prefix}{number}")
                continue
            value = None if column is None else values.get(column)
            row_id = str(index + 1) if value is None else value if isinstance(value, str) else _as_text(value)
            yield Row(index, row_id, values, f"{prefix}{number}")

    def _broken(self, line: Broken, index: int, origin: str) -> BrokenRow:
        if self._reject:
            return BrokenRow(index, str(index + 1), origin, line.problem, line.digest)
        raise InputError(
            f'{origin}: the line {line.problem}. Mend it, or set [input] bad_rows = "reject" to book such lines as '
            "rejected rows and go on"
        )


class _Hashed(NamedTuple):
    stamp: tuple[int, int]
    content: list[object] | None
    """None: there is too much of it to look at again."""


class _Counted:
    """A format's stream that keeps what the stream returns: the number of rows in the file."""

    def __init__(self, stream: Generator[Chunk, None, int]) -> None:
        self._stream = stream
        self.total = 0

    def __iter__(self) -> Iterator[Chunk]:
        self.total = yield from self._stream

    def close(self) -> None:
        self._stream.close()


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, _AS_JSON) else str(value)


def _size(file: Path) -> int:
    return _stamp(file)[0]


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _content(file: Path) -> list[object]:
    try:
        with file.open("rb") as stream:
            return [os.fsencode(file).hex(), hashlib.file_digest(stream, "sha256").hexdigest()]
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error


def _facts(file: Path) -> list[object]:
    try:
        status = file.stat()
        with file.open("rb") as stream:
            edges = hashlib.blake2b(stream.read(_EDGE_BYTES), digest_size=16)
            stream.seek(max(0, status.st_size - _EDGE_BYTES))
            edges.update(stream.read(_EDGE_BYTES))
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error
    return [os.fsencode(file).hex(), status.st_size, status.st_mtime_ns, edges.hexdigest()]
