"""One ledger: its file, its folder of journals, and who may do what with them.

Every reading command first loads what dead journals hold beyond the file; a live run loads its own journal.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import polars as pl

from pipeline import journal
from pipeline.errors import LedgerBusy, LedgerError, UsageError
from pipeline.journal import Journal, JournalFull
from pipeline.ledger import _asking, _connect, _history, _journals, loading, queries, schema
from pipeline.ledger._connect import Patience, Unwritable
from pipeline.ledger._exchanges import Intake
from pipeline.ledger._frames import ESTIMATES, PLAN_ENDS, ROWS, Bundle, microseconds
from pipeline.ledger._history import Used
from pipeline.ledger._journals import JournalState
from pipeline.ledger._known import FRESH, Known, Retry, interrupted_retries, known_keys
from pipeline.notices import Notify, log_notice
from pipeline.reserve import reserve_bytes

ENDINGS = (".duckdb", ".db", ".ddb")
"""Of a ledger's name: DuckDB takes others for data files, or for memory."""
Loaded = list[tuple[str, int, bool]]
"""Of the journals of a job: which, how far they are loaded, and whether to their ends."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run tells the ledger before it starts."""

    job: str
    job_file: str
    command: str
    fingerprint: str
    prompt_id: str
    """Equal for runs whose answers are alike: those with the same prompt, model, parameters and repairs."""
    input: str
    provider: str
    model: str
    lane: str
    max_tokens: int | None
    price: Mapping[str, str | None] | None
    """The record (`Price.as_record`) of the price in force, None if unknown."""
    config: Mapping[str, Any]
    code_version: str
    reuse: str
    later_prices: Sequence[Mapping[str, str | None]] = ()
    """Those that may come into force during the run."""
    budgeted: bool = False
    """There is a budget, so every earlier cost of the plan must have a bound."""
    concurrency: int = 1
    """Most requests in flight, for whose answers room is kept."""
    fresh: bool = False
    """Ask again where an answer is known."""
    retry: Retry | None = None
    """Go on with a retry like this."""
    passes_over: bool = False
    """Rows of the plan that ended well need not be read again."""
    free: bool = False
    """Nothing that the run does can cost anything, and nobody else says what was charged."""
    repairs: bool = False
    """Answers that wait for their repair are wanted."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """What the ledger tells a run that starts."""

    run_id: int
    plan: queries.PlanFacts
    known: Known
    journal: Journal


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Whose earlier requests an estimate asks for."""

    job: str
    provider: str
    model: str
    prompt_id: str
    fingerprint: str
    keys: Sequence[str] | None = None
    """Only these, a pilot's; None: any."""
    wanted: bool = True
    """False: the next requests are not like the earlier ones."""


@dataclass(frozen=True, slots=True)
class History:
    """What an estimate can learn from the ledger."""

    used: Sequence[Used] = ()
    answered: bool = False
    """Whether the job has answers under this prompt, of which the usage may be unknown."""
    calibration: queries.Calibration | None = None
    """What a counted token turned out to be in the whole ledger."""
    spent_usd: Decimal = Decimal(0)
    """What the plan has spent, as the budget counts."""
    unbounded: int = 0
    """Attempts of the plan that have neither a known cost nor an upper bound: what they cost is not in `spent_usd`."""
    charged: bool = False
    """The provider charged for this model, in any job, when it last said what it charged."""
    added_tokens: int = 0
    """By so many tokens at most an input under this prompt was billed above its count."""
    elsewhere: queries.Elsewhere = queries.Elsewhere()  # noqa: RUF009 -- a frozen value
    """What other plans of the job have, where a run would begin one that never spent anything."""


@dataclass(slots=True)
class Burst:
    """What a live run has for the ledger, read before the file is opened."""

    piece: journal.Piece
    rows: Sequence[tuple[int, int, str, str, bool]]
    """(plan_id, row_index, row_id, key, repeated)."""
    plan_end: tuple[int, int] | None = None
    """(plan_id, rows) when the end of the input was reached."""
    estimate: Mapping[str, Any] | None = None
    """What the run was going to send, as a row of `estimates`."""


class Ledger:
    """A DuckDB file and the journals beside it. Holds no connection between calls, and goes to other processes."""

    def __init__(self, path: str | os.PathLike[str], notify: Notify | None = None) -> None:
        """Name the file, which need not be there. `notify` hears of waiting, and of what is not shown.

        Without one whoever runs a job with it hears that, and else the logger `promptmill`. Raises UsageError for a
        name that is no ledger's.
        """
        path = Path(path)
        if path.suffix not in ENDINGS:
            raise UsageError(f"ledger {str(path)!r}: a ledger's name ends in {', '.join(ENDINGS)}")
        # By whatever link it is reached: its journals, its gate and DuckDB's own files stand beside the file itself.
        if path.is_symlink():
            with suppress(OSError, RuntimeError):  # a loop of links, which whoever opens it is told of
                path = path.resolve()
        self._path = path
        self._seen_from = None if path.is_absolute() else _folder()
        self._own_notify = notify
        self._notify = notify or log_notice
        self._stopped: Callable[[], bool] | None = None
        self._engine = _connect.Engine()
        self._reader = _connect.Engine()
        self._told: set[str] = set()

    def for_a_run(self, notify: Notify, stopped: Callable[[], bool]) -> "Ledger":
        """Return the same ledger for one run: what it says goes to `notify`, unless it has its own.

        It waits for nobody once the run is `stopped`, but raises LedgerBusy.
        """
        other = object.__new__(Ledger)
        other.__dict__.update(self.__dict__)
        other._notify = self._own_notify or notify
        other._stopped = stopped
        return other

    def _patience(self) -> Patience | None:
        stopped = self._stopped
        return None if stopped is None else lambda: 0.0 if stopped() else _connect.READER_PATIENCE

    @property
    def path(self) -> Path:
        """The file, as it was named; with its whole path where that would mean another one by now."""
        if self._seen_from is None or self._seen_from == _folder():
            return self._path
        return self._seen_from / self._path

    @property
    def folder(self) -> Path:
        """The folder of its journals, beside it."""
        path = self.path
        return path.with_name(path.name.removesuffix(".duckdb") + ".journal")

    @contextmanager
    def read(
        self, config: dict[str, str] | None = None, *, strict: bool = False, much: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open read-only after catching up. Fetch everything, then leave: an open reader keeps runs waiting.

        On a read-only or full disk, where catching up is impossible, `notify` hears what is not shown; if `strict`,
        that is an error, and so is a journal that can't be booked. With `much`, memory is given back at the end.
        """
        with self._session(config, strict=strict) as connection:
            yield connection
        if much:
            self._reader.give_back(self.path)

    @contextmanager
    def _session(self, config: dict[str, str] | None, *, strict: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        late: list[Path] = []
        if self.path.exists():
            with self._reading(config) as connection:
                if loading.schema_step(connection) == schema.NEWEST:
                    late = self._late(connection)
                    if not late:
                        yield connection
                        return
        elif not journal.files_in(self.folder):
            raise LedgerError(f"there is no ledger {self.path}; `promptmill run JOB` makes one, --ledger names another")
        ends = {path.stem: loading.LooseEnds.of(path) for path in late}  # now, while nobody is kept waiting
        if strict:
            self.catch_up(ends)
        else:
            self._catch_up_if_possible(ends)
        with self._reading(config) as connection:
            yield connection

    def _reading(self, config: dict[str, str] | None = None) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return _connect.reading(
            self.path, patience=self._patience(), waiting=self._notify, engine=self._reader, config=config
        )

    def _writing(self, patience: Patience | None = None) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        patience = self._patience() if patience is None else patience
        return _connect.writing(self.path, patience=patience, waiting=self._notify, engine=self._engine)

    def _catch_up_if_possible(self, ends: loading.Ends) -> None:
        try:
            refused = self._catch_up(ends)
        except Unwritable as error:
            self._explain(error)
        else:
            self._tell(map(str, refused))

    def catch_up(self, ends: loading.Ends = MappingProxyType({}), *, patience: Patience | None = None) -> None:
        """Load every dead journal to its end; `ends` is what is known of their loose ends already.

        Raises LedgerError if that can't be done, LedgerBusy if not now.
        """
        for refused in self._catch_up(ends, patience):
            raise refused

    def _catch_up(
        self, ends: loading.Ends = MappingProxyType({}), patience: Patience | None = None
    ) -> list[_journals.Unattributable]:
        self._check_writable()
        with self._writing(patience) as connection:
            return self._prepare(connection, ends)

    def _explain(self, error: Unwritable) -> None:
        """Say what a reader will not see. Raises the error again if there is nothing that can be shown."""
        if not self.path.exists():
            raise Unwritable(f"the ledger is gone and can't be made again from its journals here: {error}") from error
        with self._reading() as connection:
            if loading.schema_step(connection) != schema.NEWEST:
                raise Unwritable(f"an older promptmill made this ledger, and it can't be updated: {error}") from error
            late = _journals.behind(_journals.states(connection), self.folder)
        self._tell(
            f"what the journal {path} holds beyond the ledger is NOT shown: {error}; the next command that can write"
            " loads it"
            for path in late
        )

    def _tell(self, texts: Iterable[str]) -> None:
        """Notify of what has not been said before: one command may open the ledger several times."""
        for text in texts:
            if text not in self._told:
                self._told.add(text)
                self._notify(text)

    def ask(self, query: str) -> pl.DataFrame:
        """Answer a person's SQL: read-only, without access to other files or the network. Raises UsageError."""
        try:
            with self.read(_asking.in_memory()) as connection:
                found = _asking.answer(connection, query)
                unshown = _asking.unshown(connection, query)
                if unshown is not None and self._notify is not None:
                    self._notify(unshown)
                return found
        except _asking.NeedsDisk:
            with self.read(_asking.LOCKED_DOWN) as connection:
                return _asking.answer(connection, query, on_disk=True)

    def exists(self) -> bool:
        """Tell whether there is anything to read: the file, or journals to rebuild it from."""
        return self.path.exists() or bool(journal.files_in(self.folder))

    def _late(self, connection: duckdb.DuckDBPyConnection) -> list[Path]:
        """Return the dead journals that hold more than the ledger. Raises LedgerError."""
        known = _journals.states(connection)
        self._warn_of_missing(known)
        return _journals.behind(known, self.folder)

    def _warn_of_missing(self, known: Mapping[str, JournalState]) -> None:
        self._tell(
            f"the journal {name} is missing from {self.folder} and was not loaded to its end: what follows may be"
            " incomplete; restore the file"
            for name in _journals.missing(known, self.folder)[:1]
        )

    def _prepare(
        self, connection: duckdb.DuckDBPyConnection, ends: loading.Ends = MappingProxyType({})
    ) -> list[_journals.Unattributable]:
        """Migrate, then load every dead journal to its end; return what could not be booked."""
        before = loading.migrate(connection, _journals.identity_in(self.folder) or secrets.token_hex(16))
        if 0 < before < schema.NEWEST and queries.next_run_id(connection) > 1:  # else it was left half made
            said = f"the ledger {self.path} was made by an older promptmill and is brought up to this one (schema step"
            self._tell([f"{said} {before} to {schema.NEWEST}): the older one can't open it any more"])
        journal.sweep(self.folder)
        known = _journals.states(connection)
        late = _journals.behind(known, self.folder)
        self._tell(
            f"the journal {name} in {self.folder} is shorter than what was loaded from it: the ledger keeps what it"
            " has, but can't be made again from its journals; restore the file if you can"
            for name in _journals.cut_short(known, self.folder)
        )
        return loading.catch_up(connection, late, ends)

    def known(self, job: str, reuse: str, *, fresh: bool = False, retry: Retry | None = None) -> Known:
        """Read what is answered already; nothing when there is no ledger yet."""
        if not self.exists():
            return Known()
        with self.read(much=True) as connection:
            return known_keys(connection, job, reuse=reuse, fresh=fresh, retry=retry)

    def history(self, ask: HistoryRequest) -> History:
        """Return what is known of a job's earlier requests; nothing without a ledger."""
        if not self.exists():
            return History()
        with self.read() as connection:
            plan = queries.plan_facts(connection, ask.job, ask.fingerprint)
            begins = plan.new and not plan.new_job and not plan.spent_usd
            return History(
                used=_history.used_by(connection, ask.job, ask.prompt_id, keys=ask.keys) if ask.wanted else [],
                answered=ask.wanted and _history.has_answers(connection, ask.job, ask.prompt_id),
                calibration=queries.calibration(connection, ask.provider, ask.model),
                spent_usd=plan.spent_usd,
                unbounded=plan.unknown,
                charged=queries.charged(connection, ask.provider, ask.model),
                added_tokens=queries.added_tokens(connection, ask.job, ask.prompt_id, ask.fingerprint),
                elsewhere=(
                    queries.spent_elsewhere(connection, ask.job, ask.prompt_id) if begins else queries.Elsewhere()
                ),
            )

    def cut_off(self, job: str, retry: Retry | None, limit: int | None = None) -> list[tuple[int | None, int]]:
        """Return at which max_tokens the truncated rows of a job's newest plan were cut off, and how many at each.

        Without those that an interrupted retry like this has asked again. `limit`: only among the plan's first rows.
        """
        with self.read() as connection:
            runs = [] if retry is None else interrupted_retries(connection, job, retry)
            return queries.cut_off(connection, job, runs, limit)

    def begin(self, request: RunRequest) -> RunStart:
        """Register a run: read what is already answered, catch up, number the run, and start its journal.

        Only while the job's lock is held, so that nobody else runs the job. Raises LedgerError, LedgerBusy.
        """
        self._check_writable()
        while True:
            known, loaded = self._known_to(request)
            with self._writing() as connection:
                for refused in self._prepare(connection):
                    raise refused
                if queries.loaded(connection, request.job) == loaded:
                    # Still in this session with the file, so that run and plan numbers are unique.
                    return self._register(connection, request, known)
            # A run of this job that was about to be gone when it was looked: its last answers are in the ledger now.

    def _known_to(self, request: RunRequest) -> tuple[Known, Loaded]:
        """Read what is answered, and of which journals, in a session that keeps no reader out: it may take a while.

        Everything that a dead journal holds is in it, or that is an error: what is not known would be paid for again.
        What other jobs are answered meanwhile is not known to the run, as little as what they are answered later.
        """
        if not self.exists():
            return Known(), []
        with self.read(strict=True, much=True) as connection:
            plan = queries.plan_facts(connection, request.job, request.fingerprint)
            passed = plan.plan_id if request.passes_over and not plan.new else None
            known = known_keys(
                connection,
                request.job,
                reuse=request.reuse,
                fresh=request.fresh,
                retry=request.retry,
                plan_id=passed,
                repairs=request.repairs,
            )
            return known, queries.loaded(connection, request.job)

    def _register(self, connection: duckdb.DuckDBPyConnection, request: RunRequest, known: Known) -> RunStart:
        """Give a run its number and its journal."""
        self._refuse_beside_a_live_run(connection, request.job)
        journals = _journals.states(connection)
        lost = _journals.missing(journals, self.folder)
        if lost:
            raise LedgerError(
                f"the journal {lost[0]} is missing from {self.folder} and was not loaded to its end: answers may be"
                " lost and would be paid for again; restore it, or use another ledger (--ledger)"
            )
        plan = queries.plan_facts(connection, request.job, request.fingerprint)
        if request.budgeted and plan.unknown:
            raise LedgerError(
                f"{plan.unknown} earlier attempts of this plan have neither a known cost nor an upper bound, so the"
                " budget can't be held; run without a budget, or under another name"
            )
        # Also after those of live runs that this file has not heard of: it is new, or an older copy.
        runs, plans = _journals.numbers_given(journals, self.folder)
        run_id = max(queries.next_run_id(connection), runs + 1)
        if plan.new:
            plan = replace(plan, plan_id=max(plan.plan_id, plans + 1))
        started = self._start_journal(loading.ledger_id_of(connection), request)
        try:
            _open_journal(started, request, run_id, plan)
            state = JournalState(started.journal_id, started.uuid, 0, closed=False)
            piece = journal.read(started.path, 0, dead=False, limit=started.size)
            loading.load_piece(connection, started.path, state, piece, last=False)
        except JournalFull as full:
            _abandon(connection, started)
            raise LedgerError(str(full)) from full  # nothing was sent: a mistake to put right, not a pause
        except BaseException:
            _abandon(connection, started)
            raise
        return RunStart(run_id, plan, known, started)

    def _refuse_beside_a_live_run(self, connection: duckdb.DuckDBPyConnection, job: str) -> None:
        """Raise LedgerBusy if a run of the job lives, whose lock was deleted: its journal is locked all the same."""
        for journal_id, pid in queries.unended_runs(connection, job):
            path = self.folder / f"{journal_id}{journal.SUFFIX}"
            if path.exists() and journal.is_alive(path):
                raise LedgerBusy(
                    f"the job {job} is already running (process {pid}), though its lock in {self.folder} is gone",
                    f"wait for it, or end it with `kill {pid}`: what it has received is kept",
                )

    def _start_journal(self, ledger_id: str, request: RunRequest) -> Journal:
        size = reserve_bytes(request.concurrency)
        try:
            return Journal(self.folder, ledger_id, reserve_bytes=size)
        except (OSError, JournalFull) as error:
            reason = error.strerror if isinstance(error, OSError) else error.reason
            raise LedgerError(
                f"no journal can be started in {self.folder}: {reason}; it takes {size // 2**20} MiB of room, kept for"
                " answers that are on their way when a disk fills up: make room, or name another place with --ledger"
            ) from error

    def _check_writable(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise LedgerError(
                f"the folder {folder} of the ledger doesn't exist; make it, or name another with --ledger"
            )
        target = self.path if self.path.exists() else folder
        if not (_writable(target) and _writable(folder)):
            raise Unwritable(
                f"the ledger {self.path} can't be written; name another with --ledger or $PROMPTMILL_LEDGER"
            )

    def burst(
        self,
        path: Path,
        state: JournalState,
        burst: Burst,
        *,
        patience: Patience,
        more: Callable[[int], journal.Piece | None] = lambda _: None,
    ) -> JournalState:
        """Load what a live run has gathered; return how far its journal is loaded now.

        `more` is asked for what follows from an offset on, as long as the file is open: each piece is one transaction.
        What the ledger holds already is left out, so a burst may be repeated: on a full disk DuckDB can fail after the
        commit. Raises LedgerBusy after `patience` seconds, LedgerError when the file can't be used.
        """
        if not self.path.exists():  # DuckDB would make an empty one
            raise LedgerError(f"the ledger {self.path} is gone; the next command makes it again from {self.folder}")
        with _connect.writing(
            self.path, patience=patience, report=self._notify, engine=self._engine, forgiving=False
        ) as connection:
            loading.set_up(connection)
            connection.execute("set threads = 1")  # more would compress more at once: memory and no less processor time
            state, burst = _what_is_new(connection, self.path, state, burst)
            intake = Intake(connection)
            loading.load_piece(connection, path, state, burst.piece, last=False, extra=_bundle(burst), intake=intake)
            state = replace(state, offset=burst.piece.end)
            while (piece := more(state.offset)) is not None:
                loading.load_piece(connection, path, state, piece, last=False, intake=intake)
                state = replace(state, offset=piece.end)
                del piece  # its lines need not lie beside the next ones
        return state


def _folder() -> Path | None:
    """Return the folder that this process is in; None if it has been deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _bundle(burst: Burst) -> Bundle:
    bundle = Bundle()
    bundle.extend(ROWS, burst.rows)
    now = microseconds(time.time())
    if burst.plan_end is not None:
        bundle.add(PLAN_ENDS, (*burst.plan_end, now))
    if burst.estimate is not None:
        bundle.add(ESTIMATES, (*(burst.estimate.get(name) for name in list(ESTIMATES.columns)[:-1]), now))
    return bundle


def _what_is_new(
    connection: duckdb.DuckDBPyConnection, path: Path, state: JournalState, burst: Burst
) -> tuple[JournalState, Burst]:
    """Cut off a burst's front what an earlier one, thought to have failed, did bring into the ledger.

    Raises LedgerError if the ledger holds less than this run has loaded (a restored copy, a lost write-ahead log): the
    list of rows would get a gap.
    """
    found = _journals.states(connection).get(state.journal_id) if loading.schema_step(connection) else None
    if found is None or found.offset < state.offset:
        raise LedgerError(f"the ledger {path} lost what this run had loaded; the next command loads it again")
    offset, piece, rows, estimate = found.offset, burst.piece, burst.rows, burst.estimate
    if offset > state.offset:
        lines = [line for line in piece.lines if line.offset >= offset]
        damages = [damage for damage in piece.damages if damage.offset >= offset]
        piece = journal.Piece(lines, damages, max(piece.end, offset))
    if rows:
        stored = queries.rows_stored(connection, rows[-1][0])
        rows = [row for row in rows if row[1] >= stored] if rows[0][1] < stored else rows
    if estimate is not None and queries.has_estimate(connection, estimate["run_id"]):
        estimate = None
    return found, Burst(piece, rows, burst.plan_end, estimate)


def _abandon(connection: duckdb.DuckDBPyConnection, started: Journal) -> None:
    """Close the journal of a run that could not begin, and delete it; what went wrong is told already.

    Nothing was sent, so it holds nothing, and could keep every later run out. Nobody else can have loaded it: this
    process has the ledger open, and the journal locked. But DuckDB may have failed behind the commit: what the ledger
    knows must stay, and so does everything if the ledger can't be asked any more.
    """
    with suppress(duckdb.Error, OSError):
        if started.journal_id not in _journals.states(connection):
            started.path.unlink()
    with suppress(JournalFull):
        started.close()


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _open_journal(started: Journal, request: RunRequest, run_id: int, plan: queries.PlanFacts) -> None:
    price_id = None if request.price is None else request.price["price_id"]
    started.append(
        "run",
        {
            "run_id": run_id,
            "plan_id": plan.plan_id,
            "plan": {"new": plan.new, "fingerprint": request.fingerprint, "input": request.input},
            "job": request.job,
            "job_file": request.job_file,
            "new_job": plan.new_job,
            "command": FRESH if request.fresh else request.command,
            "provider": request.provider,
            "model": request.model,
            "lane": request.lane,
            "price_id": price_id,
            "max_tokens": request.max_tokens,
            "free": request.free,
            "prompt_id": request.prompt_id,
            "config": request.config,
            "code_version": request.code_version,
            "pid": os.getpid(),
            "started_at": time.time(),
        },
    )
    prices = () if request.price is None else (request.price, *request.later_prices)
    for price in prices:
        started.append("price", price)
    started.sync()  # rule 17
