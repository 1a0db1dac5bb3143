"""A person's SQL: read-only, without files, network, extensions or settings, and in bounded memory.

Read-only alone isn't enough. DuckDB lets every query reach the files of its own database: `from 'promptmill.duckdb'`
would drop the lock of this process (docs/journal.md: 9), and `copy ... to` the same name would overwrite the ledger. So
a query runs without any file system first. One that needs more memory than there is runs again with room on the disk:
every file that a query names is looked for before it runs, so it is known by then that it names none.

What is asked is typed by the user, but what it finds was written by strangers: a query over a few huge answers, or one
that forgets its `limit`, must end with a sentence and not with the machine's memory.
"""

import contextlib
from concurrent.futures import wait
from datetime import date
from functools import partial

import duckdb
import polars as pl

from pipeline.errors import UsageError
from pipeline.ledger.queries import presentable, quoted
from pipeline.threads import in_thread, wait_for

MOST_ROWS = 1_000_000
MOST_BYTES = 512 * 2**20
"""Of an answer, as a frame holds it."""
LOCKED_DOWN = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else `from name` would find this program's own variables
    "memory_limit": "2GB",
}
"""What a query that may use the disk is run with."""
MOST_ON_DISK = "8GB"
"""A large sort goes to the disk, but doesn't fill it."""
_SIZE, _SUM = '"promptmill size"', '"promptmill sum"'
_A_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_FIRST_DAY, _LAST_DAY = (day.toordinal() - date(1970, 1, 1).toordinal() for day in (date.min, date.max))
"""That Python knows, as Polars counts them."""
_INFINITY = 2**63 - 1
"""Also of nanoseconds, which else end in the year 2262."""
_MOST_DIGITS = 10**38 - 1
"""Of a decimal: DuckDB hands larger numbers over all the same."""
_UNBOUNDED = ("VARCHAR", "BLOB", "JSON", "STRUCT", "MAP", "[")
"""In the names of types whose values may be long."""


class NeedsDisk(Exception):
    """A query that names no file, and only reads, needs more memory than it may have."""


def in_memory() -> dict[str, str]:
    """Return the settings of a query that may not use the disk."""
    return LOCKED_DOWN | {"temp_directory": ""}


def answer(connection: duckdb.DuckDBPyConnection, query: str, *, on_disk: bool = False) -> pl.DataFrame:
    """Run a query and return what it finds. Ctrl-C ends it.

    Only with `on_disk` may it spill to disk. Raises UsageError, and without `on_disk` NeedsDisk.
    """
    if on_disk:  # as a setting to connect with, DuckDB shows this limit but does not keep it
        connection.execute(f"set max_temp_directory_size = '{MOST_ON_DISK}'")
    else:
        connection.execute("set disabled_filesystems = 'LocalFileSystem'")
    connection.execute("set timezone = 'UTC'")  # as the ledger's times are: `now()` and `current_date` go with them
    connection.execute("set lock_configuration = true")
    # In a thread of its own: this one hears Ctrl-C, which a query under way may never look at.
    asked = in_thread(partial(_answer, connection, query), "promptmill-sql")
    try:
        return wait_for(asked)
    except duckdb.OutOfMemoryException:
        if not on_disk and _only_reads(connection, query):
            raise NeedsDisk from None
        raise UsageError(
            f"SQL: the query needs more than {LOCKED_DOWN['memory_limit']} of memory;"
            " name fewer columns, or add a `where` or a `limit`"
        ) from None
    except duckdb.PermissionException as error:
        raise UsageError(
            "SQL: no file can be read or written here, nor the ledger opened a second time; `show tables` lists"
            " what can be asked, and `promptmill results JOB -o FILE` writes a file"
        ) from error
    except duckdb.Error as error:
        raise UsageError(f"SQL: {error}") from error
    finally:
        if not asked.done():  # Ctrl-C
            connection.interrupt()
            wait([asked])


def unshown(connection: duckdb.DuckDBPyConnection, query: str) -> str | None:
    """Say so if answers are not shown: those of statements before the last. The query is one that was answered."""
    before = [statement.expected_result_type for statement in connection.extract_statements(query)][:-1]
    if not any(kinds == [duckdb.ExpectedResultType.QUERY_RESULT] for kinds in before):
        return None
    return f"SQL: of {len(before) + 1} statements only the last one's answer is shown; ask them one by one"


def _only_reads(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Tell whether it is one `select`. Of several statements, those behind the one that failed were not looked at."""
    return [statement.type for statement in connection.extract_statements(query)] == [duckdb.StatementType.SELECT]


def _answer(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    found = connection.sql(query)
    frame = pl.DataFrame() if found is None else _bounded(presentable(found).limit(MOST_ROWS + 1))
    for name in frame.columns:
        _require_dates(name, frame[name].alias(""))  # `^x$` is a pattern to Polars, which finds nothing then
    return _whole(frame)


def _require_dates(name: str, values: pl.Series) -> None:
    """Raise UsageError where a date is none that a program knows: infinity, or beyond the year 9999."""
    kind = values.dtype
    if isinstance(kind, pl.Map):
        _require_dates(name, values.cast(pl.List(pl.Struct({"key": kind.key, "value": kind.value}))))
    elif isinstance(kind, pl.List | pl.Array):
        _require_dates(name, values.explode())
    elif isinstance(kind, pl.Struct):
        for field in kind.fields:
            _require_dates(name, values.struct.field(field.name))
    elif isinstance(kind, pl.Date | pl.Datetime):
        numbers = values.to_physical().cast(pl.Int64)
        days = numbers // (_A_DAY[kind.time_unit] if isinstance(kind, pl.Datetime) else 1)
        if not (days.is_between(_FIRST_DAY, _LAST_DAY) & (numbers.abs() < _INFINITY)).all():
            raise UsageError(
                f'SQL: "{name}" has dates that are infinite or beyond the years 1 to 9999; ask for them as text, with'
                " ::varchar behind"
            )


def _whole(frame: pl.DataFrame) -> pl.DataFrame:
    """Make whole numbers of their sums, which DuckDB hands over as decimals, if they fit; text of the largest."""
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Decimal) and kind.scale == 0:
            with contextlib.suppress(pl.exceptions.InvalidOperationError):
                frame = frame.with_columns(frame[name].cast(pl.Int64))
                continue
            numbers = frame[name].alias("").to_physical()
            if not numbers.is_between(-_MOST_DIGITS, _MOST_DIGITS).all():
                frame = frame.with_columns(numbers.cast(pl.String).alias(name))
    return frame


def _bounded(limited: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    relation, measured = _cut_off(limited)
    frame = pl.DataFrame(relation)
    if frame.height > MOST_ROWS:
        raise UsageError(f"SQL: the answer has more than {MOST_ROWS:,} rows; add a `limit`, or ask for less")
    if not measured:
        return frame
    if frame.height and frame[-1, -1] > MOST_BYTES:
        raise UsageError(
            f"SQL: the answer is larger than {MOST_BYTES // 2**20} MiB; name fewer columns, or add a `limit`"
        )
    return frame[:, :-2]


def _cut_off(relation: duckdb.DuckDBPyRelation) -> tuple[duckdb.DuckDBPyRelation, bool]:
    """Let DuckDB add up the bytes row by row, in two more columns, and end with the row that crosses the limit."""
    texts = [
        f"coalesce(strlen({quoted(name)}::varchar), 0)"
        for name, kind in zip(relation.columns, map(str, relation.types), strict=True)
        if any(word in kind for word in _UNBOUNDED)
    ]
    if not texts:
        return relation, False
    sized = relation.project(f"*, {' + '.join(texts)} as {_SIZE}")
    summed = sized.project(f"*, sum({_SIZE}) over (rows between unbounded preceding and current row) as {_SUM}")
    return summed.filter(f"{_SUM} - {_SIZE} <= {MOST_BYTES}"), True
