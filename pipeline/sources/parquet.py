"""Parquet. Values come as JSON has them, exactly, apart from decimals, which stay `Decimal`.

Dates, times and durations are ISO 8601 text (`infinity` and `-infinity` where a database wrote that), binary is base64
text, categories are text, a 32-bit float is the shortest number that means it (0.1, not 0.10000000149), lists and
structs are lists and dicts.
"""

import base64
import datetime as dt
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars import selectors

from pipeline.errors import InputError
from pipeline.sources._formats import CHUNK_ROWS, Chunk, Item, Passed
from pipeline.sources._frames import FAILURES, reason

if TYPE_CHECKING:
    from pipeline.sources._where import Where

ENDINGS = (".parquet",)
MARK = "#"
MOST_ROWS = 8 * CHUNK_ROWS
PART_BYTES = 16 * 2**20
"""About how much of a file is read at a time, as Polars holds it; CHUNK_ROWS rows at least."""


def stream(file: Path, where: "Where | None", passed: Passed | None = None) -> Generator[Chunk, None, int]:
    """See `Format.stream`. The filter runs inside the scan, so that row groups it rules out are not read."""
    try:
        return (yield from _stream(file, where, passed))
    except FAILURES as error:
        if where is not None and not isinstance(error, OSError) and not str(error).startswith("parquet"):
            raise where.error(f"{reason(error)} ({file})") from error
        raise InputError(f"{file} can't be read as Parquet: {reason(error)}") from error


def _stream(file: Path, where: "Where | None", passed: Passed | None) -> Generator[Chunk, None, int]:
    schema = pl.scan_parquet(file, glob=False, hive_partitioning=False).collect_schema()
    position = _unused_name(schema)
    scan = pl.scan_parquet(file, glob=False, hive_partitioning=False, row_index_name=position)
    total: int = scan.select(pl.len()).collect().item()
    if where is not None:
        _check(where, scan, schema)
    first = 0 if passed is None else passed.first_other()
    for frame in _frames(_query(scan, where, schema), first, total):
        if passed is not None:
            frame = frame.filter([not passed.has(at) for at in frame.get_column(position)])  # noqa: PLW2901 -- what is left
        items = list(_items(frame, position, schema))
        if items:
            yield Chunk(items, items[-1][1] / total)
    return total


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


def _query(
    scan: pl.LazyFrame, where: "Where | None", schema: Mapping[str, pl.DataType]
) -> Callable[[int, int], pl.LazyFrame]:
    """Return what reads some rows of the file from a position on: filtered, and with values as JSON has them."""
    columns = list(_as_json(schema))

    def read(at: int, rows: int) -> pl.LazyFrame:
        part = scan.slice(at, rows)
        return (part if where is None else _filtered(part, where, schema)).with_columns(*columns)

    return read


def _unused_name(schema: Mapping[str, pl.DataType]) -> str:
    return "_" + "".join(schema)


def _check(where: "Where", scan: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> None:
    """Raise InputError if the filter is no condition."""
    answer = _with_missing(scan, where, schema).select(where.expr.alias("answer")).collect_schema()["answer"]
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


def _items(frame: pl.DataFrame, position: str, schema: Mapping[str, pl.DataType]) -> Iterator[Item]:
    nested = [name for name, dtype in schema.items() if dtype.is_nested()]
    for values in frame.iter_rows(named=True):
        at = values.pop(position)
        for name in nested:
            values[name] = _plain(values[name])
        yield at, at + 1, values


def _plain(value: Any) -> Any:
    """Nested values by hand, to the microsecond; whole columns are turned by Polars, to the last digit."""
    if isinstance(value, dict):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, list):
        return [_plain(content) for content in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"PT{value.total_seconds()}S"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
