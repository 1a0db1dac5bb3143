"""Parquet: `_parquet_values.py` says what values become, `_footer.py` reads what Polars doesn't tell."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipeline.errors import InputError
from pipeline.sources import _parquet_values as values
from pipeline.sources._footer import Meaning, leaves
from pipeline.sources._formats import CHUNK_ROWS, Chunk, Item, Passed
from pipeline.sources._frames import FAILURES, reason
from pipeline.sources._parquet_values import Schema, column_of
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.sources._where import Where

ENDINGS = (".parquet",)
MARK = "#"
MOST_ROWS = 8 * CHUNK_ROWS
PART_BYTES = 16 * 2**20
"""About how much of a file is read at a time, as Polars holds it; CHUNK_ROWS rows at least."""
_UNREAD: dict[Meaning | None, str] = {"interval": "an INTERVAL", "variant": "a VARIANT"}
"""Types that keep Polars from reading any column of a file."""


def stream(file: Path, where: "Where | None", passed: Passed | None = None) -> Generator[Chunk, None, int]:
    """See `Format.stream`. The filter runs inside the scan, so that row groups it rules out are not read."""
    with _failures_named(file, where):
        table = _Table(file)
        if where is not None:
            _check(where, table)
        first = 0 if passed is None else passed.first_other()
        for frame in _frames(_query(table, where), first, table.rows):
            if passed is not None:
                frame = frame.filter([not passed.has(at) for at in frame.get_column(table.position)])  # noqa: PLW2901 -- what is left
            items = list(_items(frame, table))
            if items:
                yield Chunk(items, items[-1][1] / table.rows)
        return table.rows


def schema(file: Path) -> Schema:
    """See `Format.schema`."""
    with _failures_named(file):
        return _Table(file).schema


def stored(file: Path, positions: Sequence[int]) -> pl.DataFrame:
    """See `Format.stored`."""
    wanted = pl.Series(positions, dtype=pl.UInt32)

    def read(at: int, rows: int) -> pl.LazyFrame:
        some = wanted.filter(wanted.is_between(at, at + rows - 1))
        return table.part(at, rows).filter(column_of(table.position).is_in(some.implode()))

    with _failures_named(file):
        table = _Table(file)
        found = list(_frames(read, positions[0], positions[-1] + 1))
        return pl.concat(found).drop(table.position) if found else pl.DataFrame(schema=table.schema)


def opaque(file: Path) -> list[str]:
    """See `Format.opaque`."""
    with _failures_named(file):
        table = _Table(file)
    return values.opaque(table.schema, table.meant)


@contextmanager
def _failures_named(file: Path, where: "Where | None" = None) -> Iterator[None]:
    """Raise InputError where Polars fails."""
    try:
        yield
    except FAILURES as error:
        if where is not None and not isinstance(error, OSError) and not str(error).startswith("parquet"):
            raise where.error(f"{reason(error)} ({file})") from error
        raise InputError(f"{file} can't be read as Parquet: {reason(error)}") from error


class _Table:
    """A file's columns: those of JSON and UUIDs are text, all others as Polars has them."""

    def __init__(self, file: Path) -> None:
        """Read its footer. Raises InputError, and what Polars raises."""
        found = leaves(file) or []
        for column, meaning in found:
            if meaning in _UNREAD:
                quoted = column.replace('"', '""')
                raise InputError(
                    f"{file} can't be read: its column {column!r} holds {_UNREAD[meaning]}, a type that Polars does not"
                    f' know; write the file without it, or as text (in DuckDB: "{printable(quoted)}"::varchar)'
                )
        self.meant = values.Meant(found)
        self.position = "_" + "".join(dict.fromkeys(leaf.column for leaf in found))
        """The name of the column that says where in the file a row stands: none of the others has it."""
        self._scan = pl.scan_parquet(file, glob=False, hive_partitioning=False, row_index_name=self.position)
        written = dict(self._scan.collect_schema())
        del written[self.position]
        self._texts = values.texts(written, self.meant)
        self.schema: Schema = {**written, **dict.fromkeys(self._texts, pl.String())}
        odd = values.with_odd_keys(self.schema)
        if odd is not None:
            raise InputError(
                f"{file} can't be read: its column {odd!r} holds maps whose keys are lists or objects; write the file"
                " without it, or as text"
            )

    @cached_property
    def rows(self) -> int:
        """How many rows the file has."""
        return int(self._scan.select(pl.len()).collect().item())

    @cached_property
    def turns(self) -> list[tuple[str, values.Turn]]:
        """What turns the values that Polars can't."""
        return values.turns(self.schema, self.meant)

    def part(self, at: int, rows: int) -> pl.LazyFrame:
        """Return some rows from a position on."""
        return self._scan.slice(at, rows).with_columns(self._texts.values())


def _frames(query: Callable[[int, int], pl.LazyFrame], first: int, total: int) -> Iterator[pl.DataFrame]:
    """Yield the rows from `first` on, at most CHUNK_ROWS at a time.

    The file is read in parts of a bounded size: a scan of all of it reads row groups ahead, more than 1 GB of them.
    """
    at, rows = first, CHUNK_ROWS
    while at < total:
        part = query(at, rows).collect()
        yield from part.iter_slices(CHUNK_ROWS)
        at += rows
        fitting = PART_BYTES * part.height // (int(part.estimated_size()) or 1) if part.height else MOST_ROWS
        rows = max(CHUNK_ROWS, min(2 * rows, fitting, MOST_ROWS))


def _query(table: _Table, where: "Where | None") -> Callable[[int, int], pl.LazyFrame]:
    """Return what reads some rows of the file from a position on: filtered, and with values as JSON has them."""
    columns = list(values.as_json(table.schema))

    def read(at: int, rows: int) -> pl.LazyFrame:
        part = table.part(at, rows)
        return (part if where is None else _filtered(part, where, table.schema)).with_columns(*columns)

    return read


def _check(where: "Where", table: _Table) -> None:
    """Raise InputError if the filter is no condition."""
    part = _with_missing(table.part(0, 1), where, table.schema)
    answer = part.select(where.expr.alias("answer")).collect_schema()["answer"]
    if answer not in (pl.Boolean, pl.Null):
        raise where.not_a_condition(answer)


def _filtered(scan: pl.LazyFrame, where: "Where", schema: Schema) -> pl.LazyFrame:
    return _with_missing(scan, where, schema).filter(where.expr).drop(_missing(where, schema))


def _with_missing(scan: pl.LazyFrame, where: "Where", schema: Schema) -> pl.LazyFrame:
    missing = _missing(where, schema)
    return scan.with_columns(pl.lit(None).alias(name) for name in missing) if missing else scan


def _missing(where: "Where", schema: Schema) -> list[str]:
    """Name the columns that the filter wants and this file lacks; another has them: null here."""
    return [name for name in where.names if name not in schema]


def _items(frame: pl.DataFrame, table: _Table) -> Iterator[Item]:
    turns = table.turns
    for row in frame.iter_rows(named=True):
        at = row.pop(table.position)
        for name, turn in turns:
            row[name] = turn(row[name])
        yield at, at + 1, row
