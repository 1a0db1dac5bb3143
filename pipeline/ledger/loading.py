"""Journals into the ledger: each line exactly once, whoever loads it (rules 5 to 10 of docs/journal.md)."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline import journal
from pipeline.errors import LedgerError
from pipeline.ledger import schema
from pipeline.ledger._frames import (
    ATTEMPTS,
    JOURNAL_DAMAGE,
    OUTCOMES,
    Bundle,
    RunFacts,
    book_line,
    lost_attempt,
    microseconds,
    missing_outcome,
)

CHECKPOINT_THRESHOLD = "256MB"
"""DuckDB tidies the file when it is closed; in mid-session that would only cost time."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """How far the ledger has loaded a journal."""

    journal_id: str
    uuid: str
    offset: int
    closed: bool


class Contended(LedgerError):
    """Another loader was faster; what was read is out of date."""


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit on success; on any error roll back and pass the error on."""
    connection.begin()
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # a dead connection can't roll back, and has nothing to
            connection.rollback()
        raise
    connection.commit()


def set_up(connection: duckdb.DuckDBPyConnection) -> None:
    """Set what every session that writes wants."""
    connection.execute(f"set checkpoint_threshold = '{CHECKPOINT_THRESHOLD}'")


def migrate(connection: duckdb.DuckDBPyConnection, ledger_id: str) -> None:
    """Bring the file to this version's schema, step by step."""
    set_up(connection)
    done = schema_step(connection)
    connection.execute(
        "create table if not exists migrations (step integer primary key, name varchar, applied_at timestamp)"
    )
    for step in schema.MIGRATIONS:
        if step.step <= done:
            continue
        with transaction(connection):
            connection.execute(step.sql)
            connection.execute("insert into migrations values (?, ?, now() at time zone 'UTC')", [step.step, step.name])
            if step.step == 1:
                connection.execute("insert into ledger_identity values (?, now() at time zone 'UTC')", [ledger_id])


def schema_step(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the last migration applied, 0 for a new file. Raises LedgerError for a file of a newer version."""
    tables = connection.execute(
        "select count(*) filter (where table_name = 'migrations' and list_contains("
        " (select list(column_name) from duckdb_columns() c where c.table_oid = t.table_oid), 'step')),"
        " count(*) from duckdb_tables() t"
    ).fetchone()
    if tables is None or tables[0] == 0:
        if tables is not None and tables[1] > 0:
            raise LedgerError(
                "this DuckDB file holds other tables, not a promptmill ledger; name another with --ledger"
            )
        return 0
    row = connection.execute("select coalesce(max(step), 0) from migrations").fetchone()
    step = int(row[0]) if row else 0
    if step > schema.NEWEST:
        raise LedgerError(f"the ledger was made by a newer promptmill (schema step {step}); upgrade promptmill")
    return step


def ledger_id_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the identity that this ledger's journals carry in their headers."""
    row = connection.execute("select ledger_id from ledger_identity").fetchone()
    if row is None:
        raise LedgerError("the ledger has no identity; it is not a promptmill ledger")
    return str(row[0])


def states(connection: duckdb.DuckDBPyConnection) -> dict[str, JournalState]:
    """Return how far each journal is loaded, by journal id."""
    found = connection.execute("select journal_id, uuid, journal_offset, closed from journal_state").fetchall()
    return {row[0]: JournalState(*row) for row in found}


def behind(known: Mapping[str, JournalState], folder: Path) -> list[Path]:
    """Return the dead journals that hold more than the ledger does.

    Raises LedgerError when a journal is shorter than what was loaded from it, or is another file of the same name.
    """
    late: list[Path] = []
    for path in journal.files_in(folder):
        state = known.get(path.stem)
        size = path.stat().st_size
        if state is not None:
            _check_same(path, state, size)
        if (state is None or not state.closed) and not journal.is_alive(path):
            late.append(path)
    return late


def missing(known: Mapping[str, JournalState], folder: Path) -> list[str]:
    """Name the journals that were not loaded to their end and are gone."""
    return [
        s.journal_id
        for s in known.values()
        if not s.closed and not (folder / f"{s.journal_id}{journal.SUFFIX}").exists()
    ]


def _check_same(path: Path, state: JournalState, size: int) -> None:
    if size < state.offset:
        raise LedgerError(
            f"{path} is {size} bytes long, but {state.offset} were loaded from it; restore the whole file"
        )
    if journal.header_of(path)["uuid"] != state.uuid:
        raise LedgerError(f"{path} is another file than the one the ledger knows by this name; restore the old one")


def run_facts(path: Path) -> RunFacts | None:
    """Read the `run` line of a journal (its second line), or None if the run died before writing it."""
    for line in journal.read(path, 0, dead=False, limit=2**14).lines[:2]:
        if line.fields.get("type") == "run":
            return RunFacts.from_line(line.fields)
    return None


def _facts_in_ledger(connection: duckdb.DuckDBPyConnection, journal_id: str) -> RunFacts | None:
    """Find what a `run` line that was damaged later had said."""
    row = connection.execute(
        "select r.run_id, s.provider, s.model, 'realtime', max(p.price_id), r.max_tokens,"
        " coalesce((r.config->>'$.output.repair')::integer, 0) as repair from run_starts r"
        " join plan_starts s using (plan_id) left join prices p on p.run_id = r.run_id"
        " where r.journal_id = ? group by all",
        [journal_id],
    ).fetchone()
    return None if row is None else RunFacts(*row)


def catch_up(connection: duckdb.DuckDBPyConnection, paths: list[Path]) -> int:
    """Load these dead journals to their ends; return how many lines were new."""
    return sum(_load_whole(connection, path) for path in paths)


def _load_whole(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    header = journal.header_of(path)
    if header["ledger"] != ledger_id_of(connection):
        raise LedgerError(f"{path} belongs to another ledger; put the ledger and its .journal folder back together")
    loaded = 0
    failed: JournalState | None = None
    while True:
        state = states(connection).get(path.stem) or JournalState(path.stem, header["uuid"], 0, closed=False)
        if state.closed:
            return loaded
        piece = journal.read(path, state.offset, dead=True)
        last = piece.end >= path.stat().st_size
        try:
            load_piece(connection, path, state, piece, last=last)
        except (Contended, duckdb.TransactionException, duckdb.ConstraintException):
            if state == failed:
                raise  # nobody was faster: the disk is full, or the line can't be booked
            failed = state
            continue  # another process loads the same journal: look again where it is
        loaded += len(piece.lines)


def load_piece(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    state: JournalState,
    piece: journal.Piece,
    *,
    last: bool,
    extra: Bundle | None = None,
) -> None:
    """Insert a piece and move the journal's offset in one transaction; `last` also books what was lost."""
    bundle = Bundle() if extra is None else extra
    run = run_facts(path) or _facts_in_ledger(connection, state.journal_id)
    if run is None and any(line.fields.get("type") != "header" for line in piece.lines):
        raise LedgerError(
            f"{path}: the line that says which run wrote it is damaged, so its answers can't be booked; restore the"
            " file, or move it out of the folder (its answers are then lost)"
        )
    _book_piece(bundle, run, state.journal_id, piece)
    if last and run is not None:
        _book_loose_ends(bundle, path, run, state.journal_id)
    with transaction(connection):
        _advance(connection, path, state, piece, last=last, run_id=None if run is None else run.run_id)
        bundle.insert(connection)


def _book_piece(bundle: Bundle, run: RunFacts | None, journal_id: str, piece: journal.Piece) -> None:
    if run is not None:
        for line in piece.lines:
            book_line(bundle, run, journal_id, line.offset, line.fields)
    now = microseconds(time.time())
    for damage in piece.damages:
        bundle.add(JOURNAL_DAMAGE, (journal_id, damage.offset, damage.length, damage.torn, now))


def _advance(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    state: JournalState,
    piece: journal.Piece,
    *,
    last: bool,
    run_id: int | None,
) -> None:
    """Rule 5: the offset moves from exactly where this loader read, or everything is rolled back."""
    if state.offset == 0:
        connection.execute(
            "insert into journal_state values (?, ?, ?, ?, 0, 0, 0, null, false) on conflict do nothing",
            [state.journal_id, path.name, state.uuid, run_id],
        )
    checksum = journal.checksum_of(piece.lines[-1].fields) if piece.lines else None
    changed = connection.execute(
        "update journal_state set journal_offset = ?, lines = lines + ?, damaged = damaged + ?,"
        " last_checksum = coalesce(?, last_checksum), closed = ?"
        " where journal_id = ? and journal_offset = ? and not closed",
        [piece.end, len(piece.lines), len(piece.damages), checksum, last, state.journal_id, state.offset],
    ).fetchone()
    if changed is None or changed[0] != 1:
        raise Contended(f"{path} is being loaded by somebody else; run the command again")


def _book_loose_ends(bundle: Bundle, path: Path, run: RunFacts, journal_id: str) -> None:
    """Book what a dead journal left open: exchanges nobody heard of again, answers without their outcome line."""
    open_sends: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {}
    unended: dict[str, dict[str, Any]] = {}
    for line in journal.read_all(path, dead=True):
        kind, fields = line.fields.get("type"), line.fields
        if kind == "sent":
            open_sends[fields["key"], fields["attempt"]] = (line.offset, fields)
        elif kind == "attempt":
            open_sends.pop((fields["key"], fields["attempt"]), None)
            unended[fields["key"]] = fields
        elif kind == "outcome":
            unended.pop(fields["key"], None)
    bundle.extend(ATTEMPTS, [lost_attempt(run, journal_id, offset, sent) for offset, sent in open_sends.values()])
    outcomes = [missing_outcome(run, attempt) for attempt in unended.values()]
    bundle.extend(OUTCOMES, [row for row in outcomes if row is not None])
