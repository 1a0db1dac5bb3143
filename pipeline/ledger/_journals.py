"""The journals of a ledger: how far each is loaded, which hold more, whose they are, and what is wrong with them.

Rule 10 of docs/journal.md. A journal whose header is damaged is known by its name, or by the run that its second line
names, so that no answer in it is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline import journal
from pipeline.errors import LedgerError
from pipeline.ledger._frames import RunFacts

UNKNOWN_UUID = "unknown"
"""In `journal_state` of a journal whose header was damaged before anything of it was loaded."""
_FIRST_LINES = 2
"""The header and the `run` line."""
_FIRST_LINES_BYTES = 2**14
"""Enough for both, if the job file is short."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """How far the ledger has loaded a journal."""

    journal_id: str
    uuid: str
    offset: int
    closed: bool


class Unattributable(LedgerError):
    """A journal holds answers, and nobody can tell which run they belong to."""


def states(connection: duckdb.DuckDBPyConnection) -> dict[str, JournalState]:
    """Return how far each journal is loaded, by journal id."""
    found = connection.execute("select journal_id, uuid, journal_offset, closed from journal_state").fetchall()
    return {row[0]: JournalState(*row) for row in found}


def behind(known: Mapping[str, JournalState], folder: Path) -> list[Path]:
    """Return the dead journals that hold more than the ledger does, or were not loaded to their end.

    Raises LedgerError when a journal is another file than the one that was loaded under its name.
    """
    late: list[Path] = []
    for path in journal.files_in(folder):
        state = known.get(path.stem)
        if state is not None:
            _check_same(path, state)
            if state.closed and path.stat().st_size <= state.offset:
                continue
        if not journal.is_alive(path):
            late.append(path)
    return late


def cut_short(known: Mapping[str, JournalState], folder: Path) -> list[str]:
    """Name the journals that were not loaded to their end and have become shorter than what was loaded."""
    return [
        state.journal_id for state in known.values() if not state.closed and 0 <= _size_of(folder, state) < state.offset
    ]


def missing(known: Mapping[str, JournalState], folder: Path) -> list[str]:
    """Name the journals that were not loaded to their end and are gone."""
    return [state.journal_id for state in known.values() if not state.closed and _size_of(folder, state) < 0]


def _size_of(folder: Path, state: JournalState) -> int:
    """Return the bytes of a journal, -1 if it is gone."""
    path = folder / f"{state.journal_id}{journal.SUFFIX}"
    return path.stat().st_size if path.exists() else -1


def _check_same(path: Path, state: JournalState) -> None:
    header = journal.header_of(path)
    if header is not None and state.uuid not in (header["uuid"], UNKNOWN_UUID):
        raise LedgerError(f"{path} is another file than the one the ledger knows by this name; restore the old one")


def uuid_for_loading(connection: duckdb.DuckDBPyConnection, path: Path, ledger_id: str) -> str:
    """Return the uuid to file a journal under, once it is clear that it belongs to this ledger. Raises LedgerError."""
    header = journal.header_of(path)
    if header is not None and header["ledger"] != ledger_id:
        raise LedgerError(f"{path} belongs to another ledger; put the ledger and its .journal folder back together")
    known = states(connection)
    if path.stem not in known:
        if header is not None:
            _check_no_copy(known, path, str(header["uuid"]))
        run = run_facts(path)
        if run is not None:
            _check_free(connection, path, run)
    return UNKNOWN_UUID if header is None else str(header["uuid"])


def _check_no_copy(known: Mapping[str, JournalState], path: Path, uuid: str) -> None:
    """Refuse a journal that is in the ledger under another name: its answers would count twice."""
    for state in known.values():
        if state.uuid == uuid:
            raise Unattributable(
                f"{path} is a copy of the journal {state.journal_id}, which is in the ledger: move it out of the folder"
            )


def _check_free(connection: duckdb.DuckDBPyConnection, path: Path, run: RunFacts) -> None:
    """Refuse a journal whose run another journal wrote: it is a copy, or of a copy of this ledger.

    Two runs with one number would be taken for one, and what they cost for each other's.
    """
    owner = connection.execute("select journal_id from run_starts where run_id = ?", [run.run_id]).fetchone()
    if owner is not None and owner[0] != path.stem:
        raise Unattributable(
            f"{path}: its run {run.run_id} is in the ledger from the journal {owner[0]}; it is a copy, or of a run with"
            " another copy of this ledger: what it holds is not booked. Move it out of the folder"
        )


def one_journal(piece: journal.Piece) -> tuple[journal.Piece, int | None]:
    """Cut a piece where another journal begins in the same file, and return where that is; None: nowhere."""
    second = next((line.offset for line in piece.lines if line.kind == "header" and line.offset > 0), None)
    if second is None:
        return piece, None
    lines = [line for line in piece.lines if line.offset < second]
    damages = [damage for damage in piece.damages if damage.offset < second]
    return journal.Piece(lines, damages, second), second


def two_in_one(path: Path, second: int) -> Unattributable:
    """Say of a file that somebody has put a journal behind the first one: it would be taken for the first one's run."""
    return Unattributable(
        f"{path}: at byte {second} another journal begins, which somebody has put behind it: what follows is not"
        " booked. Cut it off there, or restore the file"
    )


def identity_in(folder: Path) -> str | None:
    """Return the ledger's id that its journals carry, None if no header can be read."""
    headers = map(journal.header_of, journal.files_in(folder))
    return next((str(header["ledger"]) for header in headers if header is not None), None)


def numbers_given(known: Mapping[str, JournalState], folder: Path) -> tuple[int, int]:
    """Return the highest numbers of a run and of a plan in journals of which the ledger knows nothing; 0: none.

    A live run's journal is one where the ledger was deleted, or an older copy put in its place: what it has brought is
    booked when it ends, and no other run may have its number then.
    """
    lines = [_run_line(path) for path in journal.files_in(folder) if path.stem not in known]
    found = [(int(line["run_id"]), int(line["plan_id"])) for line in lines if line is not None]
    return max((run for run, _ in found), default=0), max((plan for _, plan in found), default=0)


def run_facts(path: Path) -> RunFacts | None:
    """Read the `run` line of a journal (its second line), or None if it is damaged, was never written or is gone.

    It holds the whole job file, so it may be of any length.
    """
    line = _run_line(path)
    return None if line is None else RunFacts.from_line(line)


def _run_line(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():  # a live run reads its own without its name
        return None
    lines: list[journal.Line] = []
    offset = 0
    for _ in range(_FIRST_LINES):  # each time at least one whole line is read, if there is one
        piece = journal.read(path, offset, dead=False, limit=_FIRST_LINES_BYTES)
        lines += piece.lines
        offset = piece.end
        if len(lines) >= _FIRST_LINES:
            break
    return next((line.fields for line in lines[:_FIRST_LINES] if line.kind == "run"), None)


def facts_in_ledger(connection: duckdb.DuckDBPyConnection, journal_id: str) -> RunFacts | None:
    """Find what a `run` line that was damaged later had said."""
    row = connection.execute(
        "select r.run_id, s.provider, s.model, 'realtime', max(p.price_id), r.max_tokens,"
        " coalesce((r.config->>'$.output.repair')::integer, 0) as repair from run_starts r"
        " join plan_starts s using (plan_id) left join prices p on p.run_id = r.run_id"
        " where r.journal_id = ? group by all",
        [journal_id],
    ).fetchone()
    return None if row is None else RunFacts(*row)
