"""A person's SQL: read-only, without files, network, extensions or settings, and in bounded memory.

What is asked is typed by the user, but what it finds was written by strangers: a query over a few huge answers, or one
that forgets its `limit`, must end with a sentence and not with the machine's memory.
"""

from concurrent.futures import ThreadPoolExecutor

import duckdb
import polars as pl

from pipeline.errors import UsageError
from pipeline.ledger.queries import presentable

MOST_ROWS = 1_000_000
MOST_BYTES = 512 * 2**20
"""Of an answer, as a frame holds it."""
LOCKED_DOWN = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else `from name` would find this program's own variables
    "memory_limit": "2GB",
    "max_temp_directory_size": "8GB",  # a large sort goes to disk, but doesn't fill it
    "lock_configuration": "true",
}
_SIZE, _SUM = '"promptmill size"', '"promptmill sum"'
_UNBOUNDED = ("VARCHAR", "BLOB", "JSON", "STRUCT", "MAP", "[")
"""In the names of types whose values may be long."""


def answer(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """Run a query and return what it finds. Raises UsageError; Ctrl-C ends the query."""
    # In a thread of its own: this one hears Ctrl-C, which a query under way may never look at.
    with ThreadPoolExecutor(1, thread_name_prefix="sql") as thread:
        asked = thread.submit(_answer, connection, query)
        try:
            return asked.result()
        except duckdb.OutOfMemoryException:
            raise UsageError(
                f"SQL: the query needs more than {LOCKED_DOWN['memory_limit']} of memory;"
                " name fewer columns, or add a `where` or a `limit`"
            ) from None
        except duckdb.Error as error:
            raise UsageError(f"SQL: {error}") from error
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _answer(connection: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    found = connection.sql(query)
    return pl.DataFrame() if found is None else _bounded(presentable(found).limit(MOST_ROWS + 1))


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
        f'coalesce(strlen("{name.replace(chr(34), chr(34) * 2)}"::varchar), 0)'
        for name, kind in zip(relation.columns, map(str, relation.types), strict=True)
        if any(word in kind for word in _UNBOUNDED)
    ]
    if not texts:
        return relation, False
    sized = relation.project(f"*, {' + '.join(texts)} as {_SIZE}")
    summed = sized.project(f"*, sum({_SIZE}) over (rows between unbounded preceding and current row) as {_SUM}")
    return summed.filter(f"{_SUM} - {_SIZE} <= {MOST_BYTES}"), True
