"""Rows and frames as .jsonl, .parquet and .csv files."""

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from polars import selectors

from pipeline.errors import UserError
from pipeline.exporting._formulas import guard
from pipeline.exporting._pieces import pieces_beside
from pipeline.exporting._shapes import Misfit, Shapes
from pipeline.files import open_own
from pipeline.text import decimal_text

Rows = Iterable[Mapping[str, Any]]
Frames = Iterable[pl.DataFrame]
ENDINGS = (".jsonl", ".parquet", ".csv")
_AS_JSON = orjson.OPT_NON_STR_KEYS | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_WIDE = selectors.by_dtype(pl.Int128, pl.UInt128)
"""Parquet has no such integers: other readers than Polars take them for bytes."""


def require_writable(output: Path) -> None:
    """Raise UserError for a file of unknown kind, or in a folder that isn't there."""
    if output.suffix not in ENDINGS:
        raise UserError(f"-o {output}: name a file that ends in {', '.join(ENDINGS)}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"-o {output}: the folder {output.parent} doesn't exist")


def write_frames(output: Path, frames: Frames) -> int:
    """Write pieces with the same columns, at least one; return how many cells were guarded. Raises UserError.

    Who reads them from a ledger keeps a run out of it meanwhile: so nothing is written before all of them are there. A
    .csv is written about as fast as its pieces are put aside.
    """
    if output.suffix == ".csv":
        return _whole(output, lambda part: _write_csv(part, frames))
    return _whole(output, lambda part: _write_uneven(output, part, frames))


def write_rows(output: Path, pieces: Iterable[Rows], schema: pl.Schema) -> int:
    """Write rows whose columns may have any type, piece by piece; return how many cells were guarded. Raises UserError.

    `schema` has the types of the result columns, so that files of different runs have the same.
    """
    if output.suffix == ".jsonl":
        return _whole(output, lambda part: _write_jsonl(part, (row for rows in pieces for row in rows)))
    if output.suffix == ".csv":
        pieces = ([_with_cells(row, schema) for row in rows] for rows in pieces)
    shapes = Shapes(schema)
    frames = (_frame_of_rows(output, list(rows), schema, shapes) for rows in pieces)
    return _whole(output, lambda part: _write_uneven(output, part, frames))


def _write_jsonl(part: Path, rows: Rows) -> int:
    with part.open("wb") as file:
        for row in rows:
            file.write(_json(_with_json(row)) + b"\n")
    return 0


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=json_value, option=_AS_JSON)
    except TypeError:  # an integer of more than 64 bits, half a surrogate pair: the input may have them
        return json.dumps(_finite(value), default=json_value, separators=(",", ":"), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    """Write null for what JSON has no number for, as `orjson` does; the standard library knows no fragments either."""
    if isinstance(value, orjson.Fragment):
        return json.loads(orjson.dumps(value))
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _with_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Let `parsed`, JSON text in the ledger, stand as it is: with all digits of its numbers."""
    parsed = row.get("parsed")
    return dict(row) | {"parsed": orjson.Fragment(parsed)} if isinstance(parsed, str) else dict(row)


def _with_cells(row: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Write each value of the input as it is: a column of numbers, or of objects, would make them all alike."""
    return {name: value if name in known else _cell(value) for name, value in row.items()}


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and not isfinite(value):  # as numbers, not as JSON's null, which would read as a text
        return "NaN" if isnan(value) else str(value)
    return decimal_text(value) if isinstance(value, Decimal) else _json(value).decode()


def json_value(value: Any) -> Any:
    """Turn what JSON doesn't know into what it does: money to exact decimal strings, the ledger's times to ISO form."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return f"{utc.isoformat()}Z"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _write_uneven(output: Path, part: Path, frames: Frames) -> int:
    """Write frames once all of them are known: what columns a file has depends on all rows."""
    with pieces_beside(output) as pieces:
        for frame in frames:
            try:
                pieces.add(frame)
            except pl.exceptions.SchemaError as error:  # a time with a zone, and one without
                raise _no_type(output, error) from error
        if output.suffix == ".jsonl":
            return _write_jsonl(part, (row for frame in pieces.frames() for row in frame.iter_rows(named=True)))
        if output.suffix == ".csv":
            return _write_csv(part, pieces.frames())
        try:
            pieces.whole().with_columns(_WIDE.cast(pl.Decimal(38, 0))).sink_parquet(part, maintain_order=True)
        except pl.exceptions.InvalidOperationError:  # one has 39 digits
            pieces.whole().with_columns(_WIDE.cast(pl.String)).sink_parquet(part, maintain_order=True)
    return 0


def _write_csv(part: Path, frames: Frames) -> int:
    guarded = 0
    with part.open("wb") as file:
        for number, frame in enumerate(frames):
            safe, cells = guard(frame)
            guarded += cells
            safe.write_csv(file, include_header=number == 0)
    return guarded


def _frame_of_rows(output: Path, rows: Sequence[Mapping[str, Any]], schema: pl.Schema, shapes: Shapes) -> pl.DataFrame:
    try:
        shapes.take(rows)
    except Misfit as misfit:
        raise _no_type(output, misfit) from misfit
    try:
        frame = _frame(rows, schema)
    except _NO_TYPE as error:
        raise _no_type(output, _first_problem(rows, schema) or error) from error
    for name, dtype in frame.schema.items():  # Polars makes null of a decimal that the type of the others can't hold
        if isinstance(dtype, pl.Decimal) and name not in schema:
            nulls = sum(row.get(name) is None for row in rows)
            if frame.get_column(name).null_count() > nulls:
                raise _no_type(output, f"{name!r}: decimals of 38 digits in all, before and behind the point")
    return frame


_NO_TYPE = (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError)
"""What Polars raises when no type holds all values of a column."""


def _frame(rows: Sequence[Mapping[str, Any]], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _first_problem(rows: Sequence[Mapping[str, Any]], schema: pl.Schema) -> str | None:
    """Name the first column that has no type, and say why."""
    for name in dict.fromkeys(name for row in rows for name in row if name not in schema):
        try:
            _frame([{name: row.get(name)} for row in rows], pl.Schema())
        except _NO_TYPE as error:
            return f"{name!r}: {str(error).splitlines()[0]}"
    return None


def _no_type(output: Path, error: Exception | str) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"-o {output}: no type fits a column of the input ({reason}); write .jsonl or .csv instead")


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep another process from writing the same file meanwhile. Raises UserError if one is at it, or OSError.

    Where nothing can be locked nobody is kept out. What is locked is a file of its own: on some network drives whoever
    locks a file can't write it by another name.
    """
    lock = output.with_name(f".{output.name}.lock")
    while True:
        with os.fdopen(open_own(lock, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"-o {output}: another command is writing this file; wait for its end") from None
            except OSError:
                pass
            if not (lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.lstat())):
                continue  # somebody has just taken it away
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _whole(output: Path, write: Callable[[Path], int]) -> int:
    """Write to a neighbour and move it into place, so that nobody ever sees half a file; return what `write` does."""
    part = output.with_name(f".{output.name}.part")
    try:
        with _alone(output):
            try:
                part.unlink(missing_ok=True)  # of a command that was killed; or a link, which would be written through
                os.close(open_own(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                written = write(part)
                os.replace(part, output)  # noqa: PTH105 -- the same call, said plainly
            except BaseException:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
    except BaseException as error:
        if not isinstance(error, OSError | pl.exceptions.PolarsError):  # Polars words a full disk in its own way
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(f"-o {output} can't be written: {reason or error}") from error
    return written
