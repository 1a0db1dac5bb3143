"""Requests that the model's context may not hold: counted, and the first of them named before they are paid for."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.records import ModelSpec
from pipeline.text import printable
from pipeline.windows import ContextWindow

NAMED = 5
"""Rows that are named where many have the same trouble."""
AGAIN = 10
"""A run speaks again when there are so many times as many."""


@dataclass(slots=True)
class TooLong:
    """Requests of one scan that leave less than max_tokens of the model's context for the answer."""

    model: ModelSpec
    window: ContextWindow | None
    """None: nobody knows it, and no request is too long."""
    requests: int = 0
    keeps: int = NAMED
    """How many to remember: more where a pilot may take some away."""
    _found: list[tuple[str, int]] = field(default_factory=list, init=False)
    _told: int = field(default=0, init=False)

    @property
    def rows(self) -> list[tuple[str, int]]:
        """The first of them: row id and input tokens."""
        return self._found[:NAMED]

    def holds(self, tokens: int) -> bool:
        """Tell whether a request of this size is one of them. Of a batch ask for the longest first."""
        return self.window is not None and tokens + (self.model.max_tokens or 0) > self.window.tokens

    def add(self, counted: Iterable[tuple[str, int]]) -> None:
        """Take in requests, those that fit as well: row id and input tokens."""
        found = [(row_id, tokens) for row_id, tokens in counted if self.holds(tokens)]
        self.requests += len(found)
        self._found += found[: self.keeps - len(self._found)]

    def remove(self, row_id: str, tokens: int) -> None:
        """Take back a request that was sent meanwhile, if it was one of them."""
        if self.holds(tokens):
            self.requests -= 1
            self._found = [each for each in self._found if each != (row_id, tokens)]

    def said(self) -> str | None:
        """Return the warning; None if all fit."""
        if not self.requests or self.window is None:
            return None
        rows = ", ".join(f"{printable(row_id)} ({tokens:,} tokens)" for row_id, tokens in self.rows)
        more = ", ..." if self.requests > len(self.rows) else ""
        limit = "" if self.model.max_tokens is None else f" with max_tokens = {self.model.max_tokens:,}"
        return (
            f"{self.requests:,} row{'' if self.requests == 1 else 's'} may not fit {self.model.name}'s context of"
            f" {self.window.tokens:,} tokens{limit}: {rows}{more}; shorten them, or leave them out with [input] where"
            f" (source: {self.window.source})"
        )

    def news(self, *, ended: bool = False) -> str | None:
        """Return the warning when it is due in a run: for a row that is named, for ten times as many, for the sum."""
        due = ended or self._told < NAMED or self.requests >= AGAIN * self._told
        if not due or self.requests == self._told:
            return None
        self._told = self.requests
        return self.said()
