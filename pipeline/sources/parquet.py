"""Parquet. Values come as JSON has them, exactly, apart from decimals, which stay `Decimal`.

Dates, times and durations are ISO 8601 text (`infinity` and `-infinity` where a database wrote that), JSON is its text,
UUIDs are text, other bytes are base64 text, categories are text, a 32-bit float is the shortest number that means it
(0.1, not 0.10000000149), lists, structs and maps are lists and dicts.
"""

import base64
import datetime as dt
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars import selectors
from polars.datatypes import DataTypeClass

from pipeline.errors import InputError
from pipeline.sources._footer import Meaning, leaves
from pipeline.sources._formats import CHUNK_ROWS, Chunk, Item, Passed
from pipeline.sources._frames import FAILURES, reason

if TYPE_CHECKING:
    from pipeline.sources._where import Where

ENDINGS = (".parquet",)
MARK = "#"
Dtype = pl.DataType | DataTypeClass
MOST_ROWS = 8 * CHUNK_ROWS
PART_BYTES = 16 * 2**20
"""About how much of a file is read at a time, as Polars holds it; CHUNK_ROWS rows at least."""
_UNREAD: Mapping[Meaning | None, str] = {"interval": "an INTERVAL", "variant": "a VARIANT"}
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


def stored(file: Path, positions: Sequence[int]) -> pl.DataFrame:
    """See `Format.stored`."""
    wanted = pl.Series(positions, dtype=pl.UInt32)

    def read(at: int, rows: int) -> pl.LazyFrame:
        some = wanted.filter(wanted.is_between(at, at + rows - 1))
        return table.part(at, rows).filter(_column(table.position).is_in(some.implode()))

    with _failures_named(file):
        table = _Table(file)
        frames = list(_frames(read, positions[0], positions[-1] + 1))
        return pl.concat(frames).drop(table.position)


def opaque(file: Path) -> list[str]:
    """See `Format.opaque`."""
    with _failures_named(file):
        table = _Table(file)
    return [name for name, dtype in table.schema.items() if _has_bytes(dtype, table.meanings(name))]


@contextmanager
def _failures_named(file: Path, where: "Where | None" = None) -> Iterator[None]:
    """Raise InputError where Polars fails."""
    try:
        yield
    except (*FAILURES, UnicodeDecodeError) as error:
        if where is not None and not isinstance(error, OSError) and not str(error).startswith("parquet"):
            raise where.error(f"{reason(error)} ({file})") from error
        raise InputError(f"{file} can't be read as Parquet: {reason(error)}") from error


class _Table:
    """A file's columns: JSON and UUIDs are text, all others as Polars has them."""

    def __init__(self, file: Path) -> None:
        """Read its footer. Raises InputError, and what Polars raises."""
        self._leaves = leaves(file) or []
        for column, meaning in self._leaves:
            if meaning in _UNREAD:
                raise InputError(
                    f"{file} can't be read: its column {column!r} holds {_UNREAD[meaning]}, a type that Polars does not"
                    f" know; write the file without it, or as text (in DuckDB: {column}::varchar)"
                )
        written = pl.scan_parquet(file, glob=False, hive_partitioning=False).collect_schema()
        self.position = _unused_name(written)
        """The name of the column that says where in the file a row stands."""
        self._scan = pl.scan_parquet(file, glob=False, hive_partitioning=False, row_index_name=self.position)
        self._texts = dict(self._as_text(written))
        self.schema: Mapping[str, pl.DataType] = {**written, **dict.fromkeys(self._texts, pl.String())}
        self.rows: int = self._scan.select(pl.len()).collect().item()

    def part(self, at: int, rows: int) -> pl.LazyFrame:
        """Return some rows from a position on."""
        return self._scan.slice(at, rows).with_columns(self._texts.values())

    def meanings(self, name: str) -> Iterator[Meaning | None]:
        """Yield what the plain values inside of a column mean, in order; None for what needs no word."""
        return chain((leaf.meaning for leaf in self._leaves if leaf.column == name), repeat(None))

    def _as_text(self, written: Mapping[str, pl.DataType]) -> Iterator[tuple[str, pl.Expr]]:
        for name, dtype in written.items():
            meaning = next(self.meanings(name))
            if dtype == pl.Binary and meaning is not None:
                yield name, _column(name).cast(pl.String) if meaning == "text" else _uuid(_column(name))


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
    columns = list(_as_json(table.schema))

    def read(at: int, rows: int) -> pl.LazyFrame:
        part = table.part(at, rows)
        return (part if where is None else _filtered(part, where, table.schema)).with_columns(*columns)

    return read


def _unused_name(schema: Mapping[str, pl.DataType]) -> str:
    return "_" + "".join(schema)


def _check(where: "Where", table: _Table) -> None:
    """Raise InputError if the filter is no condition."""
    part = _with_missing(table.part(0, 1), where, table.schema)
    answer = part.select(where.expr.alias("answer")).collect_schema()["answer"]
    if answer not in (pl.Boolean, pl.Null):
        raise where.not_a_condition(answer)


def _filtered(scan: pl.LazyFrame, where: "Where", schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    return _with_missing(scan, where, schema).filter(where.expr).drop(_missing(where, schema))


def _with_missing(scan: pl.LazyFrame, where: "Where", schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    missing = _missing(where, schema)
    return scan.with_columns(pl.lit(None).alias(name) for name in missing) if missing else scan


def _missing(where: "Where", schema: Mapping[str, pl.DataType]) -> list[str]:
    """Name the columns that the filter wants and this file lacks; another has them: null here."""
    return [name for name in where.names if name not in schema]


def _as_json(schema: Mapping[str, pl.DataType]) -> Iterator[pl.Expr]:
    for name, dtype in schema.items():
        column = _column(name)
        if dtype == pl.Datetime:
            yield _or_infinity(name, 2**63 - 1, "iso:strict")
        elif dtype == pl.Date:
            yield _or_infinity(name, 2**31 - 1, "iso")
        elif dtype in (pl.Time, pl.Duration):
            yield column.dt.to_string("iso")
        elif dtype in (pl.Categorical, pl.Enum):
            yield column.cast(pl.String)
        elif dtype == pl.Binary:
            yield column.bin.encode("base64")
        elif dtype == pl.Float32:
            yield column.cast(pl.String).cast(pl.Float64)


def _column(name: str) -> pl.Expr:
    """Return the column of this very name: `pl.col` takes `*` and `^...$` for patterns."""
    return selectors.by_name(name).as_expr()


def _or_infinity(name: str, infinity: int, form: str) -> pl.Expr:
    """Write dates as text. The largest number that fits means infinity to databases, and is no date to Polars."""
    column = _column(name)
    number = column.to_physical()
    return (
        pl.when(number == infinity)
        .then(pl.lit("infinity"))
        .when(number <= -infinity)
        .then(pl.lit("-infinity"))
        .otherwise(pl.when(number.abs() < infinity).then(column).dt.to_string(form))
        .alias(name)
    )


def _uuid(column: pl.Expr) -> pl.Expr:
    digits = column.bin.encode("hex")
    parts = [digits.str.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return pl.concat_str(parts, separator="-")


def _items(frame: pl.DataFrame, table: _Table) -> Iterator[Item]:
    nested = [(name, _turn(dtype, table.meanings(name))) for name, dtype in table.schema.items() if dtype.is_nested()]
    for values in frame.iter_rows(named=True):
        at = values.pop(table.position)
        for name, turn in nested:
            values[name] = turn(values[name])
        yield at, at + 1, values


def _has_bytes(dtype: Dtype, meanings: Iterator[Meaning | None]) -> bool:
    """Tell whether any plain value is bytes that mean no text."""
    return any(
        leaf == pl.Binary and meaning is None for leaf, meaning in zip(_leaf_types(dtype), meanings, strict=False)
    )


def _leaf_types(dtype: Dtype) -> Iterator[Dtype]:
    """Yield the types of plain values, in the order in which a footer has them."""
    if isinstance(dtype, pl.Struct):
        within: tuple[Dtype, ...] = tuple(field.dtype for field in dtype.fields)
    elif isinstance(dtype, pl.List | pl.Array):
        within = (dtype.inner,)
    elif isinstance(dtype, pl.Map):
        within = (dtype.key, dtype.value)
    else:
        yield dtype
        return
    for each in within:
        yield from _leaf_types(each)


def _turn(dtype: Dtype, meanings: Iterator[Meaning | None]) -> Callable[[Any], Any]:
    """Return what turns nested values by hand, to the microsecond; Polars turns whole columns, to the last digit."""
    if isinstance(dtype, pl.Struct):
        fields = [(field.name, _turn(field.dtype, meanings)) for field in dtype.fields]
        return _unless_none(lambda value: {name: turn(value[name]) for name, turn in fields})
    if isinstance(dtype, pl.List | pl.Array):
        element = _turn(dtype.inner, meanings)
        return _unless_none(lambda value: [element(each) for each in value])
    if isinstance(dtype, pl.Map):
        key, content = _turn(dtype.key, meanings), _turn(dtype.value, meanings)
        return _unless_none(lambda value: {key(name): content(each) for name, each in value.items()})
    meaning = next(meanings)
    return _plain if meaning is None else _unless_none(_text if meaning == "text" else _uuid_text)


def _unless_none(turn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else turn(value)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _uuid_text(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"PT{value.total_seconds()}S"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
