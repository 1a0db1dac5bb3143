"""What requests that are to be sent will use and cost."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.estimating._outlook import Bill, Outlook
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
    doubled_usd: Decimal | None
    """At most so much more with twice the max_tokens, for the share of answers that hit it; None if nobody knows."""

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


def forecast(to_send: ToSend, meter: Meter, outlook: Outlook, at: datetime) -> Forecast:
    """Put the counts and what is known from before together, at the price in force at a moment."""
    price, sizes = meter.price, to_send.sizes
    outputs = outlook.outputs(sizes, meter.max_tokens)
    return Forecast(
        requests=to_send.requests,
        input_tokens=to_send.input_tokens,
        count_method=to_send.method,
        outputs=outputs,
        input_usd=outlook.input_usd(price, sizes, at),
        bill=outlook.bill(price, sizes, outputs, at),
        ceiling_usd=to_send.ceiling_usd,
        doubled_usd=outlook.doubled_usd(price, sizes, outputs, meter.max_tokens, at),
    )


def _as_text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"
