"""A run beside its estimate: what it will cost in all, and one notice when that leaves the interval.

As long as the last row is not planned, a run may have no estimate of all; then it is held against that of its first
requests.
"""

from decimal import Decimal
from typing import NamedTuple

from pipeline.budget import about
from pipeline.estimating import Bill
from pipeline.forecasting import Beginning, Course, Projection, Side

LOOK_EVERY = 16
"""Requests between two looks: a look takes as long as half an exchange."""
PER = 1000
"""Requests whose cost is told where nobody knows how many there are."""


class Begun(NamedTuple):
    """The estimate of the first requests of a run."""

    bill: Bill
    requests: int


class Ahead:
    """Looks ahead now and then; says nothing as long as there is no interval to compare with. Of the loop's thread."""

    def __init__(self) -> None:
        self._course = Course()
        self._beginning: Beginning | None = None
        self._projection: Projection | None = None
        self._requests = 0
        self._settled = 0

    def expect_first(self, begun: Begun) -> None:
        """Take the estimate of the first requests: it counts until there is one of more, or of all."""
        bill, requests = begun
        if bill.high:
            self._beginning = Beginning(bill.low, bill.high, requests, self._course)

    def expect(self, bill: Bill | None, requests: int, *, complete: bool) -> None:
        """Take the estimate of so many requests, unless there is one already; `complete`: they are all of the input."""
        if bill is None or not bill.high or self._projection is not None:
            return
        self._requests = requests
        self._projection = Projection(
            bill.low, bill.expected, bill.high, requests, complete=complete, course=self._course
        )

    def settled(self, spent: Decimal) -> str | None:
        """Count a request whose cost is known, given what all of them cost so far; return the notice when it is due."""
        self._settled += 1
        if self._settled % LOOK_EVERY:
            return None
        self._course.look(self._settled, spent)
        if not spent:  # nothing was answered, and that is told as what it is
            return None
        if self._projection is not None:
            side = self._projection.outside(self._requests)
            return None if side is None else self._notice(self._projection, side)
        if self._beginning is not None:
            side = self._beginning.outside()
            return None if side is None else self._first_notice(self._beginning, side)
        return None

    @property
    def projected(self) -> Decimal | None:
        """Dollars of the whole run, going by what is answered; None as long as that says too little."""
        return None if self._projection is None else self._course.projected_usd(self._requests)

    def _notice(self, projection: Projection, side: Side) -> str:
        projected = self._course.spent / self._settled * self._requests
        return (
            f"after {self._settled:,} of {self._requests:,} requests it looks like {about(projected)} in all,"
            f" {side} the estimate of {about(projection.low_usd)} to {about(projection.high_usd)}{_advice(side)}"
        )

    def _first_notice(self, first: Beginning, side: Side) -> str:
        each = self._course.spent / self._settled
        low, high = (about(usd * PER / first.requests) for usd in (first.low_usd, first.high_usd))
        return (
            f"after {self._settled:,} requests it looks like {about(each * PER)} per {PER:,}, {side} the estimate of"
            f" {low} to {high} per {PER:,} (made from the first {first.requests:,}, before the rest was"
            f" planned){_advice(side)}"
        )


def _advice(side: Side) -> str:
    return "; Ctrl-C pauses, and --budget caps what the plan may cost" if side == "above" else ""
