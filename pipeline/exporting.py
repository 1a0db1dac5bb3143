"""Results as files: in input order, written beside the target and moved into place when whole."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from pipeline.errors import UserError
from pipeline.ledger import Ledger, frame_of
from pipeline.planning import Plan, PlannedRow
from pipeline.reports import results as results_report

PENDING: dict[str, Any] = {"status": "pending"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    guarded: int = 0
    """Cells of a .csv file, names of columns among them, that a spreadsheet would have run as a formula."""


def export(ledger: Ledger, job: str, output: Path) -> Exported:
    """Write the results of a job as they stand in the ledger."""
    write = _writer(output)
    with ledger.read() as connection:
        frame = frame_of(connection, results_report.SQL, [job])
    return Exported(frame.height, write(output, frame.iter_rows(named=True), frame.schema))


def export_with_input(ledger: Ledger, job: str, output: Path, plan: Plan) -> Exported:
    """Write input columns and results side by side, joined by key: an edited input can't shift answers.

    A result column wins over an input column of the same name, which is then called `input_NAME`.
    """
    write = _writer(output)
    with ledger.read() as connection:
        frame = frame_of(connection, results_report.BY_KEY, [job])
    by_key = {row["key"]: row for row in frame.iter_rows(named=True)}
    columns = tuple(frame.columns)
    joined = [_joined(row, by_key, columns) for batch in plan.batches() for row in batch]
    return Exported(len(joined), write(output, joined, frame.schema))


def _joined(row: PlannedRow, by_key: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> dict[str, Any]:
    result = dict.fromkeys(columns) | dict(by_key.get(row.key, PENDING | {"key": row.key}))
    if row.repeated:  # the first row of a key bears its cost
        result |= {"cost_usd": Decimal(0), "attempts": 0, "reused": True}
    taken = {"row_index", "row_id", *columns}
    values = row.values or {}
    own = {_free_name(name, taken | values.keys()) if name in taken else name: v for name, v in values.items()}
    return own | {"row_index": row.index, "row_id": row.id} | result


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"input_{name}"
    return name


Rows = Iterable[Mapping[str, Any]]
Writer = Callable[[Path, Rows, pl.Schema], int]
"""Returns how many cells it guarded. The schema gives the types of the result columns, so that files of different runs
have the same."""


def _writer(output: Path) -> Writer:
    writers: dict[str, Writer] = {".jsonl": _write_jsonl, ".parquet": _write_parquet, ".csv": _write_csv}
    writer = writers.get(output.suffix)
    if writer is None:
        raise UserError(f"-o {output}: name a file that ends in {', '.join(writers)}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"-o {output}: the folder {output.parent} doesn't exist")
    return writer


def _write_jsonl(output: Path, rows: Rows, _: pl.Schema) -> int:
    def write(part: Path) -> None:
        with part.open("wb") as file:
            for row in rows:
                file.write(orjson.dumps(_with_json(row), default=json_value, option=orjson.OPT_NON_STR_KEYS))
                file.write(b"\n")

    _whole(output, write)
    return 0


def _with_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `parsed`, JSON text in the ledger, into what it says."""
    parsed = row.get("parsed")
    return dict(row) | {"parsed": orjson.loads(parsed)} if isinstance(parsed, str) else dict(row)


def json_value(value: Any) -> Any:
    """Turn what JSON doesn't know into what it does: money to exact decimal strings, times to ISO form."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


def _write_parquet(output: Path, rows: Rows, schema: pl.Schema) -> int:
    _whole(output, _frame_of_rows(output, rows, schema).write_parquet)
    return 0


def _write_csv(output: Path, rows: Rows, schema: pl.Schema) -> int:
    flat = _frame_of_rows(output, rows, schema)
    odd = [
        name for name, kind in flat.schema.items() if kind.is_nested() or kind in {pl.Binary, pl.Duration, pl.Object}
    ]
    texts = [pl.Series(name, [None if v is None else _text(v) for v in flat[name]], pl.String) for name in odd]
    safe, guarded = guard(flat.with_columns(texts))
    _whole(output, safe.write_csv)
    return guarded


_FORMULA = r"""^[\s\x00"'\u{feff}\u{200b}]*[=+\-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}]|^[\t\r]"""
"""How a text begins that a spreadsheet would run, also behind blanks, quotes and in full width."""
_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"


def guard(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Put an apostrophe before every text that a spreadsheet would run as a formula; return how many there were."""
    names, guarded = _guarded(pl.Series(frame.columns, dtype=pl.String))
    columns = []
    for column, name in zip(frame.get_columns(), _told_apart(names.to_list()), strict=True):
        cells, more = _guarded(column) if column.dtype == pl.String else (column, 0)
        columns.append(cells.alias(name))
        guarded += more
    return pl.DataFrame(columns), guarded


def _guarded(texts: pl.Series) -> tuple[pl.Series, int]:
    runs = _runs(texts)
    return texts.zip_with(~runs, "'" + texts), int(runs.sum())


def _told_apart(names: list[str]) -> list[str]:
    """Give equal names a number: a guarded name may be that of another column."""
    kept: list[str] = []
    for name in names:
        kept.append(next(free for n in count(1) if (free := name if n == 1 else f"{name}_{n}") not in kept))
    return kept


def _runs(texts: pl.Series) -> pl.Series:
    return (texts.str.contains(_FORMULA) & ~texts.str.contains(_NUMBER)).fill_null(value=False)


def _text(value: Any) -> str:
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return orjson.dumps(plain, default=json_value).decode()


def _frame_of_rows(output: Path, rows: Rows, schema: pl.Schema) -> pl.DataFrame:
    try:
        return pl.DataFrame(list(rows), schema_overrides=schema, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"-o {output}: a column of the input mixes types ({str(error).splitlines()[0]}); write .jsonl instead"
        ) from error


def _whole(output: Path, write: Callable[[Path], Any]) -> None:
    """Write to a neighbour and move it into place, so that nobody ever sees half a file."""
    part = output.with_name(f".{output.name}.part")
    try:
        write(part)
        os.replace(part, output)  # noqa: PTH105 -- the same call, said plainly
    except (OSError, pl.exceptions.PolarsError) as error:  # Polars' Parquet writer words a full disk in its own way
        with suppress(OSError):
            part.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"-o {output} can't be written: {reason or error}") from error
