"""Journals into the ledger: each line exactly once, whoever loads it (rules 5 to 10 of docs/journal.md)."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import duckdb
import orjson

from pipeline import journal
from pipeline.errors import LedgerError
from pipeline.ledger import queries, schema
from pipeline.ledger._exchanges import Exchanges, Intake
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
from pipeline.ledger._journals import (
    JournalState,
    Unattributable,
    facts_in_ledger,
    one_journal,
    run_facts,
    states,
    two_in_one,
    uuid_for_loading,
)

CHECKPOINT_THRESHOLD = "256MB"
"""DuckDB tidies the file when it is closed; in mid-session that would only cost time."""


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


def migrate(connection: duckdb.DuckDBPyConnection, ledger_id: str) -> int:
    """Bring the file to this version's schema, step by step; return the step that it had reached before."""
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
    return done


def schema_step(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the last migration applied, 0 for a new file. Raises LedgerError for a file of a newer version."""
    try:  # first: each burst asks, and looking through the catalogue costs a long run 10 KB each time
        row = connection.execute("select coalesce(max(step), 0) from migrations").fetchone()
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        tables = connection.execute("select count(*) from duckdb_tables()").fetchone()
        if tables is not None and tables[0] > 0:
            raise LedgerError(
                "this DuckDB file holds other tables, not a promptmill ledger; name another with --ledger"
            ) from error
        return 0
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


class LooseEnds:
    """What a journal's lines so far leave open: exchanges nobody heard of again, answers without their outcome line.

    A run that loads its own journal hears it piece by piece; else the whole journal is read for it.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        """Lines before this were heard, or leave nothing open."""
        self._sent: dict[bytes, journal.Line] = {}
        """By what `_exchange_of` says."""
        self._unended: dict[bytes, journal.Line] = {}
        """By what `_key_of` says."""

    @property
    def sent(self) -> list[tuple[int, dict[str, Any]]]:
        """Return offsets and fields of the `sent` lines without an `attempt` line."""
        return [(line.offset, line.fields) for line in self._sent.values()]

    @property
    def unended(self) -> list[dict[str, Any]]:
        """Return the fields of the last attempts without an `outcome` line behind them."""
        return [line.fields for line in self._unended.values()]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the whole of a dead journal."""
        ends = cls()
        ends.hear_rest(path)
        return ends

    def hear(self, offset: int, lines: Iterable[journal.Line], end: int) -> None:
        """Take in the lines between two offsets, if they are the next ones; of those heard before only what is new.

        A burst that failed is read again, and then goes farther.
        """
        if offset > self.offset:
            return
        self._hear(lines if offset == self.offset else [line for line in lines if line.offset >= self.offset])
        self.offset = max(self.offset, end)

    def hear_rest(self, path: Path) -> None:
        """Read a dead journal from where the lines heard so far end."""
        while (piece := journal.read(path, self.offset, dead=True)).end > self.offset:
            self.hear(self.offset, piece.lines, piece.end)

    def _hear(self, lines: Iterable[journal.Line]) -> None:
        for line in lines:
            _, kind, body = line
            if kind == "attempt":
                exchange = _exchange_of(body, _LATE)
                self._sent.pop(exchange, None)
                self._unended[_key_of(exchange)] = line
            elif kind == "outcome":
                self._unended.pop(_ended_key_of(body), None)
            elif kind == "sent":
                self._sent[_exchange_of(body, _EARLY)] = line


def _exchange_of(body: bytes, start: int) -> bytes:
    """Return key and number of an exchange as they stand in its lines: all of their JSON takes ten times longer.

    A line whose fields stand in another order than ours is read after all.
    """
    end = body.find(b',"kind":')
    if body.startswith(_KEY, start) and end > start:
        return body[start:end]
    fields = orjson.loads(body)
    return b"%b%b%b%d" % (_KEY, orjson.dumps(fields["key"]), _ATTEMPT, fields["attempt"])


def _key_of(exchange: bytes) -> bytes:
    return exchange[: exchange.rindex(_ATTEMPT)]


def _ended_key_of(body: bytes) -> bytes:
    """Return the key of an `outcome` line in the same way."""
    end = body.find(b',"status":')
    if body.startswith(_KEY, _LATE) and end > _LATE:
        return body[_LATE:end]
    return b"%b%b" % (_KEY, orjson.dumps(orjson.loads(body)["key"]))


_KEY, _ATTEMPT = b'"key":', b',"attempt":'
_EARLY, _LATE = len('{"type":"sent",'), len('{"type":"attempt",')
"""Where the key stands in a line of ours; `outcome` is as long as `attempt`."""


Ends = Mapping[str, LooseEnds]
"""By journal id."""


def catch_up(connection: duckdb.DuckDBPyConnection, paths: list[Path], ends: Ends) -> list[Unattributable]:
    """Load these dead journals to their ends; return what could not be booked, with everything else loaded.

    `ends`: what is known of their loose ends already. Raises LedgerError for a journal that can't be this ledger's, or
    when the ledger can't be written.
    """
    refused: list[Unattributable] = []
    for path in paths:
        try:
            _load_whole(connection, path, ends.get(path.stem))
        except Unattributable as error:
            refused.append(error)
    return refused


def _load_whole(connection: duckdb.DuckDBPyConnection, path: Path, ends: LooseEnds | None) -> None:
    _put_on_disk(path)
    uuid = uuid_for_loading(connection, path, ledger_id_of(connection))
    intake = Intake(connection)
    failed: JournalState | None = None
    while True:
        state = states(connection).get(path.stem) or JournalState(path.stem, uuid, 0, closed=False)
        size = path.stat().st_size
        if state.closed and size <= state.offset:
            return
        # A file that is shorter than what was loaded holds nothing new (rule 10).
        piece = journal.read(path, state.offset, dead=True) if size > state.offset else _nothing_at(state.offset)
        piece, second = one_journal(piece)
        try:
            load_piece(
                connection, path, state, piece, last=piece.end >= size and second is None, ends=ends, intake=intake
            )
        except (Contended, duckdb.TransactionException, duckdb.ConstraintException):
            if state == failed:
                raise  # nobody was faster: the disk is full, or the line can't be booked
            failed = state  # another process loads the same journal: look again where it is
            continue
        if second is not None:
            raise two_in_one(path, second)


def _put_on_disk(path: Path) -> None:
    """Rule 17: what a killed run wrote may still be on its way to the disk, and the ledger must not be ahead of it."""
    with suppress(OSError):  # a file system that is read-only now: nothing is on its way
        journal.sync_file(path)


def _nothing_at(offset: int) -> journal.Piece:
    return journal.Piece([], [], offset)


def load_piece(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    state: JournalState,
    piece: journal.Piece,
    *,
    last: bool,
    extra: Bundle | None = None,
    ends: LooseEnds | None = None,
    intake: Intake | None = None,
) -> None:
    """Insert a piece and move the journal's offset in one transaction; `last` also books what was lost.

    Several pieces in a row share an `intake`.
    """
    bundle = Bundle() if extra is None else extra
    run = run_facts(path) or facts_in_ledger(connection, state.journal_id)
    if run is None and any(line.kind != "header" for line in piece.lines):
        raise Unattributable(
            f"{path}: the line that says which run wrote it is damaged, so its answers can't be booked; restore the"
            " file, or move it out of the folder (its answers are then lost)"
        )
    burst = _booked_piece(bundle, run, state.journal_id, piece)
    if last and run is not None:
        ends = ends or LooseEnds()
        ends.hear_rest(path)
        _book_loose_ends(connection, bundle, run, state.journal_id, ends)
    intake = intake or Intake(connection)
    with transaction(connection):
        damages = _advance(connection, path, state, piece, last=last, run_id=None if run is None else run.run_id)
        if run is not None:
            burst.insert(intake, run, state.journal_id, damaged=damages > 0)
        bundle.insert(connection)


def _booked_piece(bundle: Bundle, run: RunFacts | None, journal_id: str, piece: journal.Piece) -> Exchanges:
    """Queue what a piece says: attempts and outcomes apart, for there are millions of them."""
    exchanges = Exchanges.among(piece.lines)
    if run is not None:
        for line in exchanges.others:
            book_line(bundle, run, journal_id, line.fields)
    now = microseconds(time.time())
    for damage in piece.damages:
        bundle.add(JOURNAL_DAMAGE, (journal_id, damage.offset, damage.length, damage.torn, now))
    return exchanges


def _advance(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    state: JournalState,
    piece: journal.Piece,
    *,
    last: bool,
    run_id: int | None,
) -> int:
    """Rule 5: the offset moves from exactly where this loader read, or everything is rolled back.

    Return how many damages the journal has so far.
    """
    if state.offset == 0:
        connection.execute(
            "insert into journal_state values (?, ?, ?, ?, 0, 0, 0, null, false) on conflict do nothing",
            [state.journal_id, path.name, state.uuid, run_id],
        )
    checksum = journal.checksum_of(piece.lines[-1].body) if piece.lines else None
    changed = connection.execute(
        "update journal_state set journal_offset = ?, lines = lines + ?, damaged = damaged + ?,"
        " last_checksum = coalesce(?, last_checksum), closed = ?"
        " where journal_id = ? and journal_offset = ? and closed = ?",
        [piece.end, len(piece.lines), len(piece.damages), checksum, last, state.journal_id, state.offset, state.closed],
    ).fetchone()
    if changed is None or changed[0] != 1:
        raise Contended(f"{path} is being loaded by somebody else; run the command again")
    if state.offset == 0:
        return len(piece.damages)
    found = connection.execute("select damaged from journal_state where journal_id = ?", [state.journal_id]).fetchall()
    return int(found[0][0])


def _book_loose_ends(
    connection: duckdb.DuckDBPyConnection, bundle: Bundle, run: RunFacts, journal_id: str, ends: LooseEnds
) -> None:
    """Book what a dead journal left open: exchanges nobody heard of again, answers without their outcome line.

    What the ledger knows more of than a journal whose loaded part was damaged since stays as it is.
    """
    open_sends = {(fields["key"], fields["attempt"]): (offset, fields) for offset, fields in ends.sent}
    booked = queries.attempts_booked(connection, run.run_id, [key for key, _ in open_sends])
    bundle.extend(
        ATTEMPTS,
        [lost_attempt(run, journal_id, *sent) for attempt, sent in open_sends.items() if attempt not in booked],
    )
    unended = {fields["key"]: fields for fields in ends.unended}
    ended = queries.keys_ended(connection, run.run_id, list(unended))
    outcomes = [missing_outcome(run, attempt) for key, attempt in unended.items() if key not in ended]
    bundle.extend(OUTCOMES, [row for row in outcomes if row is not None])
