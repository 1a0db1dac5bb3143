"""Results as files, in input order: written in pieces beside the target, and moved into place when whole."""

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.budget import ZERO, as_booked
from pipeline.exporting._formulas import guard
from pipeline.exporting._spared import require_spare
from pipeline.exporting._write import json_value, require_writable, write_frames, write_rows
from pipeline.job import Job
from pipeline.ledger import Known, Ledger, frame_of, known_keys, prepare, rows_of
from pipeline.planning import Plan, PlannedRow, Selection, decide
from pipeline.reports import results as results_report
from pipeline.sources import Source

__all__ = ["Exported", "export", "export_with_input", "guard", "json_value", "require_spare"]

PENDING: dict[str, Any] = {"status": "pending", "cost_usd": as_booked(ZERO), "reused": False, "attempts": 0}
PIECE_ROWS, FIRST_ROWS = 50_000, 2_000
"""Rows that are held in memory at once, and so many before anybody knows how long answers are."""
PIECE_CHARACTERS = 2**25
"""And about how much text of prompts, where they are long."""
PIECE_BYTES = 2**26
"""And about how many bytes of answers."""


class _Sizes:
    """How many rows to fetch at a time: so many that their answers fit, if they are as long as the last ones."""

    def __init__(self) -> None:
        self.rows = min(FIRST_ROWS, PIECE_ROWS)

    def fetched(self, rows: int, size: int) -> None:
        """Hear how many bytes so many rows had."""
        fits = PIECE_ROWS if not size else rows * PIECE_BYTES // size
        self.rows = max(1, min(PIECE_ROWS, 4 * self.rows, fits))


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    statuses: Mapping[str, int]
    """How many rows have each status."""
    complete: bool
    """No row of the input is missing: it was read to its end."""
    counted: int = 0
    """At least so many rows there are by an estimate of the plan, listed or not; none if there is no estimate."""
    guarded: int = 0
    """Cells of a .csv file, names of columns among them, that a spreadsheet would have run as a formula."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.statuses.values())


def export(ledger: Ledger, job: str, output: Path) -> Exported:
    """Write the results of a job as they stand in the ledger."""
    require_writable(output)
    statuses: dict[str, int] = {}
    complete, counted = False, 0

    def fetched() -> Generator[pl.DataFrame]:
        nonlocal complete, counted
        with ledger.read(much=True) as connection:
            prepare(connection, results_report.PLACES, job=job)
            found = rows_of(connection, results_report.STATUSES)
            statuses.update({row["status"]: row["rows"] for row in found})
            (plan,) = rows_of(connection, results_report.WHOLE)
            complete, counted = plan["complete"], plan["counted"]
            last = max((row["last"] for row in found), default=0)
            first, sizes = 0, _Sizes()
            while first <= last:
                end = first + sizes.rows
                frame = frame_of(connection, results_report.PIECE, [first, end - 1])
                sizes.fetched(end - first, round(frame.estimated_size()))
                first = end
                yield frame

    with closing(fetched()) as frames:
        written = write_frames(output, frames)
    return Exported(statuses, complete, counted, written)


def export_with_input(ledger: Ledger, job: Job, output: Path) -> Exported:
    """Write input columns and results side by side, joined by key: an edited input can't shift answers.

    A row has the outcome that a run would find: whatever plan of the job it is of, or lent by another job. A result
    column wins over an input column of the same name, which is then called `input_NAME`: in whatever case, as most
    readers of such files tell no `Status` from a `status`. The columns of a .parquet or .csv file, and their types,
    depend on all rows: its pieces wait on the disk for the last one. From Parquet to Parquet columns keep their types,
    if these are the same in all files.
    """
    require_writable(output)
    plan = Plan(job)
    with ledger.read(much=True) as connection:
        known = known_keys(connection, job.name, reuse=job.reuse)
        prepare(connection, results_report.ALL_KEYS, job=job.name)
        schema = frame_of(connection, results_report.OF_KEYS, [[]]).schema
        statuses = Counter[str]()

        def found() -> Iterator[tuple[Sequence[PlannedRow], Iterator[dict[str, Any]]]]:
            """Yield rows, a piece at a time, with what is beside them."""
            sizes = _Sizes()
            for rows in _batched((row for batch in plan.batches() for row in batch), sizes):
                keys = list({row.key for row in rows})
                own = frame_of(connection, results_report.OF_KEYS, [keys])
                others = frame_of(connection, results_report.OF_OTHERS, _lent(known, keys, job.model.max_tokens))
                sizes.fetched(len(rows), round(own.estimated_size() + others.estimated_size()))
                by_key = {line["key"]: line for frame in (own, others) for line in frame.iter_rows(named=True)}
                statuses.update(by_key.get(row.key, PENDING)["status"] for row in rows)
                yield rows, (_result(row, by_key, tuple(schema)) for row in rows)

        beside = pl.Schema([("row_index", pl.Int64()), ("row_id", pl.String()), *schema.items()])
        types = plan.source.types() if output.suffix == ".parquet" else None
        if types is not None:
            written = write_frames(output, _with_types(plan.source, types, found(), beside))
        else:
            written = write_rows(output, (map(_joined, *piece) for piece in found()), beside)
    return Exported(statuses, plan.complete, guarded=written)


def _lent(known: Known, keys: Iterable[str], max_tokens: int | None) -> list[list[Any]]:
    """Return which keys a run would answer with other jobs' answers, and of each its status, run and attempt."""
    lent: list[list[Any]] = [[], [], [], []]
    for key in keys:
        if decide(known, key, Selection(), max_tokens).what == "reuse":
            status, _, run_id, attempt = known.others[key]
            for column, value in zip(lent, (key, status, run_id, attempt), strict=True):
                column.append(value)
    return lent


def _batched(rows: Iterator[PlannedRow], sizes: _Sizes) -> Iterator[Sequence[PlannedRow]]:
    """Cut rows into pieces, at least one; their requests are left out."""
    piece: list[PlannedRow] = []
    characters = cut = 0
    for row in rows:
        if row.request is not None:
            characters += len(str(row.request.messages))
        piece.append(row._replace(request=None))
        if len(piece) >= sizes.rows or characters > PIECE_CHARACTERS:
            yield piece
            piece, characters, cut = [], 0, cut + 1
    if piece or not cut:
        yield piece


def _result(row: PlannedRow, by_key: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> dict[str, Any]:
    result = dict.fromkeys(columns) | dict(by_key.get(row.key, PENDING | {"key": row.key}))
    if row.repeated:  # the first row of a key bears its cost
        result |= {"cost_usd": as_booked(ZERO), "attempts": 0, "reused": True}
    return {"row_index": row.index, "row_id": row.id} | result


def _with_types(
    source: Source,
    types: Mapping[str, pl.DataType],
    found: Iterable[tuple[Sequence[PlannedRow], Iterator[dict[str, Any]]]],
    beside: pl.Schema,
) -> Iterator[pl.DataFrame]:
    names, none = _own_names(types, beside), pl.DataFrame(schema=types)
    for rows, results in found:
        own = pl.concat([none, *source.stored([row.index for row in rows])], how="diagonal").rename(names)
        yield pl.concat([own, pl.DataFrame(list(results), schema=beside)], how="horizontal")


def _joined(row: PlannedRow, result: dict[str, Any]) -> dict[str, Any]:
    values = row.values or {}
    return {name: values[old] for old, name in _own_names(values, result).items()} | result


def _own_names(columns: Collection[str], beside: Collection[str]) -> dict[str, str]:
    """Return what each of the input's columns is called beside the others."""
    names: dict[str, str] = {}
    for name in columns:
        clashes = name.casefold() in beside
        names[name] = (
            _free_name(name, {*beside, *map(str.casefold, chain(columns, names.values()))}) if clashes else name
        )
    return names


def _free_name(name: str, taken: Collection[str]) -> str:
    while name.casefold() in taken:
        name = f"input_{name}"
    return name
