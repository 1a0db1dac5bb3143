"""What requests that are to be sent will use and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.doorman import Limits
from pipeline.estimating._finish import Finish, finish
from pipeline.estimating._groups import Group, together
from pipeline.estimating._outlook import Bill, Outlook
from pipeline.estimating._terms import Terms
from pipeline.estimating._to_send import ToSend
from pipeline.estimating._worst import ceiling_usd, worst_inputs
from pipeline.forecasting import Outputs
from pipeline.planning import Meter


@dataclass(frozen=True, slots=True)
class Forecast:
    """Tokens and dollars before they are spent. Dollars are None where nobody knows them, never zero."""

    requests: int
    input_tokens: int
    """As counted; what is billed may differ by `Outlook.input_ratio`."""
    count_method: str
    outputs: Outputs | None
    """Of all groups together; None without max_tokens and without any answer."""
    groups: Sequence[Group]
    """Requests whose answers are alike, with the forecast of each."""
    input_usd: Decimal | None
    """The input alone."""
    bill: Bill | None
    """90 % interval, retries after errors apart; None if price or output is unknown."""
    ceiling_usd: Decimal | None
    """Every request and every repair at its worst case, retries apart; None if price or max_tokens is unknown."""
    worst: Counter[int]
    """Input tokens of those exchanges -> how many have that many."""
    longer_usd: Decimal | None
    """About so much more at most with twice the max_tokens, for the share of answers that hit it. None: unknown."""
    again_usd: Decimal | None
    """About what it costs at most to ask again, with twice the max_tokens, what was cut off below that."""
    known_usd: Decimal | None
    """What an answered request did cost on average, at today's price; None if nobody knows."""
    finish: Finish | None
    """Time under the stated limits; None if nothing says how long anything takes."""

    @property
    def low_usd(self) -> Decimal | None:
        """Lower end of the interval; the input alone where there is none."""
        return self.input_usd if self.bill is None else self.bill.low

    def record(self, run_id: int, plan_id: int, rows: int) -> dict[str, Any]:
        """Return the row for `estimates`."""
        bill = self.bill
        return {
            "run_id": run_id,
            "plan_id": plan_id,
            "rows": rows,
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "count_method": self.count_method,
            "low_usd": _as_text(self.low_usd),
            "expected_usd": _as_text(None if bill is None else bill.expected),
            "high_usd": _as_text(None if bill is None else bill.high),
            "ceiling_usd": _as_text(self.ceiling_usd),
        }


def forecast(
    to_send: ToSend, meter: Meter, outlook: Outlook, limits: Limits, begin: datetime, *, cut_off: int = 0
) -> Forecast:
    """Put the counts and what is known from before together, at the prices in force from a moment on.

    `cut_off`: requests that were cut off, and that a run with twice the max_tokens asks again.
    """
    groups = outlook.groups(to_send)
    outputs = together(groups) if groups else None
    takes = finish(to_send, limits, outlook, outputs)
    terms = Terms.of(meter, begin, None if takes is None else takes.seconds)
    bill, worst = outlook.bill(terms, groups), worst_inputs(to_send, outlook)
    return Forecast(
        requests=to_send.requests,
        input_tokens=to_send.input_tokens,
        count_method=to_send.method,
        outputs=outputs,
        groups=groups,
        input_usd=outlook.input_usd(terms, to_send.sizes),
        bill=bill,
        ceiling_usd=ceiling_usd(worst, meter, outlook, bill),
        worst=worst,
        longer_usd=outlook.longer_usd(terms, groups),
        again_usd=outlook.again_usd(terms, cut_off),
        known_usd=outlook.known_usd(terms),
        finish=takes,
    )


def quick_bill(to_send: ToSend, meter: Meter, outlook: Outlook, limits: Limits, begin: datetime) -> Bill | None:
    """Return what `forecast` says of the dollars, its interval a little less sure, in a small part of the time."""
    quick = outlook.quick
    groups = quick.groups(to_send)
    takes = finish(to_send, limits, quick, together(groups) if groups else None)
    return quick.bill(Terms.of(meter, begin, None if takes is None else takes.seconds), groups)


def _as_text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"
