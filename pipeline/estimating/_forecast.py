"""What requests that are to be sent will use and cost."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.doorman import Limits
from pipeline.estimating._finish import Finish, finish
from pipeline.estimating._outlook import Bill, Outlook
from pipeline.estimating._terms import Terms
from pipeline.estimating._to_send import ToSend
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
    """None without max_tokens and without any answer."""
    input_usd: Decimal | None
    """The input alone."""
    bill: Bill | None
    """90 % interval, retries after errors apart; None if price or output is unknown."""
    ceiling_usd: Decimal | None
    """Every request at its worst case, retries apart; None if price or max_tokens is unknown."""
    longer_usd: Decimal | None
    """About so much more at most with twice the max_tokens, for the share of answers that hit it. None: unknown."""
    again_usd: Decimal | None
    """About what it costs at most to ask what was cut off before again with twice the max_tokens."""
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

    `cut_off`: requests that have a cut-off answer.
    """
    sizes = to_send.sizes
    outputs = outlook.outputs(sizes)
    takes = finish(to_send, limits, outlook, outputs)
    terms = Terms.of(meter, begin, None if takes is None else takes.seconds)
    return Forecast(
        requests=to_send.requests,
        input_tokens=to_send.input_tokens,
        count_method=to_send.method,
        outputs=outputs,
        input_usd=outlook.input_usd(terms, sizes),
        bill=outlook.bill(terms, sizes, outputs),
        ceiling_usd=to_send.ceiling_usd,
        longer_usd=outlook.longer_usd(terms, sizes, outputs),
        again_usd=outlook.again_usd(terms, cut_off),
        finish=takes,
    )


def quick_bill(to_send: ToSend, meter: Meter, outlook: Outlook, limits: Limits, begin: datetime) -> Bill | None:
    """Return what `forecast` says of the dollars, its interval a little less sure, in a small part of the time."""
    sizes, quick = to_send.sizes, outlook.quick
    outputs = quick.outputs(sizes)
    takes = finish(to_send, limits, quick, outputs)
    return quick.bill(Terms.of(meter, begin, None if takes is None else takes.seconds), sizes, outputs)


def _as_text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"
