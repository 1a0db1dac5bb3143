"""Rows and frames as .jsonl, .parquet and .csv files."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from pipeline.errors import UserError
from pipeline.exporting._formulas import guard
from pipeline.exporting._pieces import MixedTypes, pieces_beside

Rows = Iterable[Mapping[str, Any]]
Frames = Iterable[pl.DataFrame]
ENDINGS = (".jsonl", ".parquet", ".csv")


def require_writable(output: Path) -> None:
    """Raise UserError for a file of unknown kind, or in a folder that isn't there."""
    if output.suffix not in ENDINGS:
        raise UserError(f"-o {output}: name a file that ends in {', '.join(ENDINGS)}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"-o {output}: the folder {output.parent} doesn't exist")


def write_frames(output: Path, frames: Frames) -> int:
    """Write pieces with the same columns, at least one; return how many cells were guarded. Raises UserError."""
    if output.suffix == ".jsonl":
        return _write_jsonl(output, (row for frame in frames for row in frame.iter_rows(named=True)))
    if output.suffix == ".csv":
        return _whole(output, lambda part: _write_csv(part, frames))
    return _whole(output, lambda part: _write_uneven(output, part, frames))


def write_rows(output: Path, pieces: Iterable[Rows], schema: pl.Schema) -> int:
    """Write rows whose columns may have any type, piece by piece; return how many cells were guarded. Raises UserError.

    `schema` has the types of the result columns, so that files of different runs have the same.
    """
    if output.suffix == ".jsonl":
        return _write_jsonl(output, (row for rows in pieces for row in rows))
    frames = (_frame_of_rows(output, rows, schema) for rows in pieces)
    return _whole(output, lambda part: _write_uneven(output, part, frames))


def _write_jsonl(output: Path, rows: Rows) -> int:
    def write(part: Path) -> int:
        with part.open("wb") as file:
            for row in rows:
                file.write(orjson.dumps(_with_json(row), default=json_value, option=orjson.OPT_NON_STR_KEYS))
                file.write(b"\n")
        return 0

    return _whole(output, write)


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


def _write_uneven(output: Path, part: Path, frames: Frames) -> int:
    """Write frames as .parquet or .csv once all of them are known: what columns a file has depends on all rows."""
    with pieces_beside(output) as pieces:
        for frame in frames:
            try:
                pieces.add(frame)
            except (MixedTypes, pl.exceptions.SchemaError) as error:
                raise _mixed_types(output, error) from error
        if output.suffix == ".csv":
            return _write_csv(part, pieces.frames())
        pieces.whole().sink_parquet(part, maintain_order=True)
    return 0


def _write_csv(part: Path, frames: Frames) -> int:
    guarded = 0
    with part.open("wb") as file:
        for number, frame in enumerate(frames):
            safe, cells = guard(_flat(frame))
            guarded += cells
            safe.write_csv(file, include_header=number == 0)
    return guarded


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    odd = [
        name for name, kind in frame.schema.items() if kind.is_nested() or kind in {pl.Binary, pl.Duration, pl.Object}
    ]
    return frame.with_columns(
        pl.Series(name, [None if v is None else _text(v) for v in frame[name]], pl.String) for name in odd
    )


def _text(value: Any) -> str:
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return orjson.dumps(plain, default=json_value).decode()


def _frame_of_rows(output: Path, rows: Rows, schema: pl.Schema) -> pl.DataFrame:
    try:
        return pl.DataFrame(list(rows), schema_overrides=schema, infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise _mixed_types(output, error) from error


def _mixed_types(output: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"-o {output}: a column of the input mixes types ({reason}); write .jsonl instead")


def _whole(output: Path, write: Callable[[Path], int]) -> int:
    """Write to a neighbour and move it into place, so that nobody ever sees half a file; return what `write` does."""
    part = output.with_name(f".{output.name}.part")
    try:
        written = write(part)
        os.replace(part, output)  # noqa: PTH105 -- the same call, said plainly
    except (OSError, pl.exceptions.PolarsError) as error:  # Polars' Parquet writer words a full disk in its own way
        with suppress(OSError):
            part.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"-o {output} can't be written: {reason or error}") from error
    return written
