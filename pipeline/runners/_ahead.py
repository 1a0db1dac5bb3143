"""A run beside its estimate: what it will cost in all, and one notice when that leaves the interval."""

from decimal import Decimal

from pipeline.budget import ZERO, about
from pipeline.estimating import Bill
from pipeline.forecasting import Projection

LOOK_EVERY = 16
"""Requests between two looks: a look takes as long as half an exchange."""


class Ahead:
    """Looks ahead now and then; says nothing as long as there is no interval to compare with."""

    def __init__(self) -> None:
        self._projection: Projection | None = None
        self._requests = 0
        self._settled = 0
        self._spent = ZERO

    def expect(self, bill: Bill | None, requests: int, *, complete: bool) -> None:
        """Take the estimate of so many requests, unless there is one already; `complete`: they are all of the input."""
        if bill is None or not bill.high or self._projection is not None:
            return
        self._requests = requests
        self._projection = Projection(bill.low, bill.expected, bill.high, requests, complete=complete)

    def settled(self, spent: Decimal) -> str | None:
        """Count a request whose cost is known, given what all of them cost so far; return the notice when it is due."""
        self._settled += 1
        if self._settled % LOOK_EVERY or self._projection is None:
            return None
        self._spent = spent
        side = self._projection.outside(self._settled, spent, self._requests)
        return None if side is None else self._notice(side)

    @property
    def projected(self) -> Decimal | None:
        """Dollars of the whole run, going by what is answered; None as long as that says too little."""
        if self._projection is None:
            return None
        looked = self._settled - self._settled % LOOK_EVERY
        return self._projection.projected_usd(looked, self._spent, self._requests) if looked else None

    def _notice(self, side: str) -> str:
        projection, projected = self._projection, self.projected
        if projection is None or projected is None:
            raise AssertionError("nothing leaves an interval that is not there")
        advice = "; Ctrl-C pauses, and --budget caps what the plan may cost" if side == "above" else ""
        return (
            f"after {self._settled:,} of {self._requests:,} requests it looks like {about(projected)} in all,"
            f" {side} the estimate of {about(projection.low_usd)} to {about(projection.high_usd)}{advice}"
        )
