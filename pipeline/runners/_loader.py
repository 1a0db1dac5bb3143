"""The thread that carries a live run's journal into the ledger, a burst every two seconds, and syncs the journal.

A locked ledger never stops a run: what can't be loaded now stays in the journal, and the next burst takes it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import journal
from pipeline.errors import LedgerBusy, LedgerError, PromptmillError, RunPaused
from pipeline.journal import Journal, JournalFull
from pipeline.ledger import Burst, JournalState, Ledger, LooseEnds
from pipeline.runners._backlog import Backlog, PlanRow

BURST_SECONDS = 2.0
BURST_PATIENCE = 3.5
"""Seconds a burst waits for a locked ledger: long enough to shut the readers' gate once (rule 11)."""
DUE_BYTES = 24 * 2**20
"""A burst is due earlier when so much waits."""
ENOUGH_BYTES, MOST_BYTES = 2**20, 32 * 2**20
"""A burst goes on while it has the file and so much waits, up to so much in all: then others get the file, and DuckDB
brings what it holds in memory to it."""
FIRST_BYTES = 2**20
"""How much is read before the file is opened: it is kept in memory until the burst has ended, for a second try."""
TICK_SECONDS = 0.1
SYNC_SECONDS = 1.0
LAST_PATIENCE = 30.0
"""Seconds to wait for a locked ledger at the end of a run."""
HURRIED_PATIENCE = 2.0
"""Seconds to wait for a locked ledger when the user wants to leave now."""


class Loader:
    """Owns the ledger's side of one run. `add_rows`, `planned` and `estimated` may be called from any thread."""

    def __init__(self, ledger: Ledger, started: Journal) -> None:
        self._ledger = ledger
        self._journal = started
        self._path: Path = started.path
        self._state = JournalState(started.journal_id, started.uuid, started.size, closed=False)
        self._ends = LooseEnds(started.size)
        self._rows = Backlog(started.path.parent)
        self._plan_end: tuple[int, int] | None = None
        self._estimate: Mapping[str, Any] | None = None
        self._hurried = False
        self._stop = threading.Event()
        # Two threads: a burst that waits for a locked ledger must not keep the journal from the disk.
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"promptmill-{name}", daemon=True)
            for name, work in (("loader", self._load_bursts), ("sync", self._sync))
        ]
        self.problem: str | None = None
        """Why the last burst could not be loaded, for the progress line; None when all is well."""
        self.unlisted = False
        """The run has ended, and the ledger lacks rows of its plan."""
        self.broken: BaseException | None = None
        """What ended the thread, if anything did: the run must pause."""

    def start(self) -> None:
        """Begin loading."""
        for thread in self._threads:
            thread.start()

    def add_rows(self, rows: list[PlanRow]) -> None:
        """Queue planned rows. Raises RunPaused when they can't be kept."""
        self._rows.add(rows)

    def planned(self, plan_id: int, rows: int) -> None:
        """Tell that the end of the input was reached."""
        self._plan_end = (plan_id, rows)

    def estimated(self, record: Mapping[str, Any]) -> None:
        """Book the run's estimate, once."""
        self._estimate = record

    def hurry(self) -> None:
        """Wait for a locked ledger no longer than the user does who wants to leave now; also who waits already."""
        self._hurried = True

    def _at_most(self, seconds: float) -> Callable[[], float]:
        return lambda: min(seconds, HURRIED_PATIENCE) if self._hurried else seconds

    def stop(self) -> None:
        """Stop the regular bursts; the rest is loaded by `finish`."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def finish(self, patience: float = LAST_PATIENCE) -> str | None:
        """After `stop`: load everything, close the journal, book what was lost; return what could not be done."""
        try:
            return self._finished(patience)
        finally:
            self._rows.close()

    def _finished(self, patience: float) -> str | None:
        kept = self._kept()
        problem = self._drained(patience)
        late: int | None = None
        try:
            late = self._late_attempts()
        except LedgerError as error:
            problem = problem or error
        problem = self._closed() or problem
        if problem is None:
            problem = self._caught_up(patience)
        return None if problem is None else self._left_over(problem, late, kept=kept)

    def _kept(self) -> bool:
        """Tell whether the journal is there for whoever comes next; one that was deleted is written anew."""
        try:
            if self._journal.deleted:
                self._journal.restore()
        except OSError:
            return False
        return True

    def _drained(self, patience: float) -> PromptmillError | None:
        try:
            self._drain(patience)
        except (LedgerError, JournalFull) as error:
            return error
        return None

    def _late_attempts(self) -> int:
        """Count what the ledger does not have. Raises LedgerError if the journal can't be read."""
        late, offset = 0, self._state.offset
        with self._journal_errors():
            while offset < self._journal.size and (piece := self._journal.read(offset)).end > offset:
                late += sum(line.kind == "attempt" for line in piece.lines)
                offset = piece.end
        return late

    def _closed(self) -> PromptmillError | None:
        try:
            self._journal.close()
        except JournalFull as error:
            return error
        return None

    def _caught_up(self, patience: float) -> PromptmillError | None:
        """Load what dead journals hold, and ours is dead now."""
        try:
            with self._journal_errors():
                self._ledger.catch_up({self._journal.journal_id: self._ends}, patience=self._at_most(patience))
        except LedgerError as error:
            return error
        return None

    def _left_over(self, error: PromptmillError, attempts: int | None, *, kept: bool) -> str | None:
        """Say what the ledger does not have yet, None if that is nothing anybody looks for.

        Nobody knows how many `attempts` there are (None) if the journal could not be read.
        """
        self.unlisted = rows = bool(self._rows or self._plan_end)
        said = []
        if attempts is None:
            said.append(
                f"The ledger may lack this run's last attempts: {error}."
                + (" The next command loads them." if kept else " The journal was deleted and can't be written again.")
            )
        elif attempts and kept:
            said.append(
                f"{attempts:,} attempts are safe in the journal {self._path} and not in the ledger yet: {error}."
                " The next command loads them."
            )
        elif attempts:
            said.append(
                f"{attempts:,} attempts are lost: the journal {self._path} was deleted and can't be written again, and"
                f" they could not be loaded before: {error}."
            )
        if rows:
            why = f" ({error})" if attempts == 0 else ""
            said.append(f"The list of rows in the ledger is not complete{why}: run the same command again.")
        if self._estimate:
            why = "" if said else f": {error}"
            said.append(f"The estimate of this run is not in the ledger{why}.")
        return " ".join(said) or None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- the thread's edge: whatever it was, the run must hear of it
            self.broken = error

    def _sync(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            self._journal.sync()
            if self._journal.deleted:  # going on would bet every answer on this process
                raise RunPaused(f"the journal {self._path} was deleted while the run wrote to it")

    def _load_bursts(self) -> None:
        due = _next_burst()
        while not self._stop.wait(TICK_SECONDS):
            if self._journal.tight:
                continue  # the room that is left is for answers on their way; the ledger comes after them
            much = self._journal.size - self._state.offset >= DUE_BYTES or self._rows.long
            if much or time.monotonic() >= due:
                self._one_burst(patience=BURST_PATIENCE)
                due = _next_burst()

    def _drain(self, patience: float) -> None:
        while self._journal.size > self._state.offset or self._rows or self._plan_end or self._estimate:
            before = self._state.offset, len(self._rows), self._plan_end, self._estimate
            self._load(patience)
            if before == (self._state.offset, len(self._rows), self._plan_end, self._estimate):
                return

    def _one_burst(self, patience: float) -> None:
        try:
            self._load(patience)
            self.problem = None
        except LedgerBusy as busy:
            self.problem = str(busy)

    def _load(self, patience: float) -> None:
        """Load what waits, as much as one burst takes."""
        with self._journal_errors():
            self._load_first(patience)

    @contextmanager
    def _journal_errors(self) -> Iterator[None]:
        """Say of what the ledger's side can't do with files that it is the ledger's side."""
        try:
            yield
        except OSError as error:
            raise LedgerError(
                f"the journal {self._path} can't be loaded into the ledger: {error.strerror or error}"
            ) from error

    def _load_first(self, patience: float) -> None:
        """Read before opening; what was loaded is forgotten only after the commit."""
        piece = self._read(self._state.offset, FIRST_BYTES)
        plan_end = self._plan_end  # before the rows: the end of a plan must not be booked without all of them
        estimate = self._estimate
        rows, these_are_all = self._rows.first()
        if not these_are_all:
            plan_end = None
        if not (piece.lines or piece.damages or rows or plan_end or estimate):
            return
        burst = Burst(piece, rows, plan_end, estimate)
        self._state = self._burst_again_if_it_fails(burst, patience)
        self._rows.drop(len(rows))
        if plan_end is not None:
            self._plan_end = None
        if estimate is not None:
            self._estimate = None

    def _read(self, offset: int, limit: int = journal.PIECE_BYTES) -> journal.Piece:
        piece = self._journal.read(offset, limit)
        if piece.lines:
            self._journal.sync()  # rule 17: after a power cut the ledger must not know more than the journal
        self._ends.hear(offset, piece.lines, piece.end)
        return piece

    def _more(self, offset: int) -> journal.Piece | None:
        """Read on while the file is open, if there is enough to read."""
        if self._journal.size - offset < ENOUGH_BYTES or offset - self._state.offset > MOST_BYTES:
            return None
        return self._read(offset)

    def _burst_again_if_it_fails(self, burst: Burst, patience: float) -> JournalState:
        """DuckDB can fail behind the commit; a second try finds what is in the file and goes on from there."""
        try:
            return self._ledger.burst(self._path, self._state, burst, patience=self._at_most(patience), more=self._more)
        except LedgerBusy:
            raise
        except LedgerError:
            return self._ledger.burst(self._path, self._state, burst, patience=self._at_most(patience), more=self._more)


def _next_burst() -> float:
    return time.monotonic() + BURST_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads the load of many runs
