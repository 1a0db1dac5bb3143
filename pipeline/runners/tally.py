"""How far a run is, counted where outcomes arrive."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pipeline.keysets import KeySet

ENDED_BADLY = ("truncated", "invalid", "refused", "rejected", "failed")


@dataclass(slots=True)
class Tally:
    """Rows of the plan that this command looked at, by status."""

    rows: int = 0
    total: int | None = None
    """All rows of the plan, once known."""
    scanned: bool = False
    """All rows that this command looks at are among `rows`: the end of the input, or of its limit, was reached."""
    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    """Attempts of this run, those that are still on the wire or were left there included."""
    reused: int = 0
    """Requests answered by another job's answers."""
    already: int = 0
    """Rows that had their outcome before this run."""
    repeated: int = 0
    """Rows that share an earlier row's request."""
    rate_limited: int = 0
    """Answers of this run that told everybody to slow down."""
    shut_seconds: float = 0.0
    """How long nothing went out because of them."""
    limited_alone: int = 0
    """Answers that told only their own rows to: others passed at the time."""
    _ended: defaultdict[str, KeySet] = field(default_factory=lambda: defaultdict(KeySet))
    """The keys that ended, by status: the statuses are few, so no key needs to say its own."""
    _waiting: dict[str, int] = field(default_factory=dict)

    def row(self, key: str, status: str | None, *, repeated: bool = True) -> None:
        """Count a planned row; `status` is its outcome if that is known already, else None.

        `repeated`: an earlier row may have the same key, and that may have ended meanwhile.
        """
        self.rows += 1
        if status is None and repeated:
            status = next((status for status, keys in self._ended.items() if key in keys), None)
        if status is None:
            self._waiting[key] = self._waiting.get(key, 0) + 1
        else:
            self.statuses[status] += 1

    def done_before(self, rows: int, repeated: int) -> None:
        """Count rows that ended well in earlier runs and are not looked at again."""
        self.rows += rows
        self.statuses["ok"] += rows
        self.already += rows
        self.repeated += repeated

    def ended(self, key: str, status: str) -> None:
        """Count an outcome for all rows that wait for it, and for those still to come."""
        self._ended[status].add(key)
        self.statuses[status] += self._waiting.pop(key, 0)

    @property
    def done(self) -> int:
        """Rows with an outcome."""
        return sum(self.statuses.values())

    @property
    def expected(self) -> int:
        """All rows that this command looks at, as far as anybody knows: more may follow if no scan saw the end."""
        return max(self.rows, self.total or 0)

    @property
    def bad(self) -> int:
        """Rows that ended, but not well."""
        return sum(self.statuses[status] for status in ENDED_BADLY)
