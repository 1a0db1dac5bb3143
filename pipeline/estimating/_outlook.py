"""What is known from before about how the next requests of a job will turn out, and what that makes them cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from typing import Literal

from pipeline.estimating._to_send import EXACT, total_usd
from pipeline.forecasting import Observed, Outputs, forecast_from_limit, forecast_outputs
from pipeline.ledger import Calibration, Used
from pipeline.pricing import Price, mean_cost_usd
from pipeline.records import Usage

LEAST_USED = 30
"""Fewer requests than this say nothing about how counts and bills differ."""
_SEED = 20_261_124
"""Any number: the same facts make the same figures."""
_COST_UNIT = Decimal("0.000000000001")


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars of all requests that are to be sent, with a 90 % interval; retries after errors apart."""

    low: Decimal
    expected: Decimal
    high: Decimal


@dataclass(frozen=True)
class Outlook:
    """Requests of the same job that have been answered: of its pilot, or of its earlier runs."""

    used: Sequence[Used] = ()
    basis: Literal["pilot", "history"] = "history"
    calibration: Calibration | None = None
    """What a counted token turned out to be in the whole ledger; taken where `used` is too little."""

    @cached_property
    def input_ratio(self) -> Fraction:
        """Input tokens that are billed for one that was counted; 1 as long as nobody knows better.

        Requests with repairs are billed more than once, so this is more than the drift of the counts.
        """
        counted = sum(one.counted_tokens for one in self.used)
        if len(self.used) >= LEAST_USED and counted:
            return Fraction(sum(one.input_tokens for one in self.used), counted)
        return Fraction(1) if self.calibration is None else Fraction(self.calibration.ratio)

    @cached_property
    def cached_share(self) -> Fraction:
        """The part of the input that was billed as cached; 0 as long as nobody knows better."""
        billed = sum(one.input_tokens for one in self.used)
        if len(self.used) < LEAST_USED or not billed:
            return Fraction(0)
        return Fraction(sum(one.cached_input_tokens for one in self.used), billed)

    @cached_property
    def seconds_each(self) -> float | None:
        """Mean time that a request is on the wire; None if nobody knows."""
        return sum(one.seconds for one in self.used) / len(self.used) if self.used else None

    def outputs(self, sizes: Counter[int], max_tokens: int | None) -> Outputs | None:
        """Forecast the output of requests by size; None if neither an answer nor max_tokens says anything."""
        if not self.used:
            return forecast_from_limit(sizes, max_tokens)
        observed = [Observed(one.counted_tokens, one.output_tokens, one.truncated) for one in self.used]
        return forecast_outputs(observed, sizes, basis=self.basis, max_tokens=max_tokens, seed=_SEED)

    def bill(self, price: Price | None, sizes: Counter[int], outputs: Outputs | None, at: datetime) -> Bill | None:
        """Price requests by size at the price in force at a moment; None if price or output is unknown."""
        if price is None or outputs is None:
            return None
        expected = self._dollars(price, sizes, outputs, at, outputs.expected)
        low = self._dollars(price, sizes, outputs, at, outputs.low)
        high = self._dollars(price, sizes, outputs, at, outputs.high)
        return Bill(low, expected, high)

    def input_usd(self, price: Price | None, sizes: Counter[int], at: datetime) -> Decimal | None:
        """Price the input alone; None if the price is unknown."""
        if price is None:
            return None
        return total_usd(sizes, lambda size: mean_cost_usd(price, self._input(size), 0, at=at))

    def doubled_usd(
        self, price: Price | None, sizes: Counter[int], outputs: Outputs | None, max_tokens: int | None, at: datetime
    ) -> Decimal | None:
        """Return how much more it costs at most with twice the max_tokens: only answers that hit it get longer.

        None where no answer was seen, or the price is unknown.
        """
        if price is None or outputs is None or outputs.truncated_share is None or max_tokens is None:
            return None
        cut_off = Decimal(outputs.truncated_share)

        def longer(size: int) -> Decimal:
            usage = self._input(size)
            return mean_cost_usd(price, usage, 2 * max_tokens, at=at) - mean_cost_usd(price, usage, max_tokens, at=at)

        return _rounded(total_usd(sizes, lambda size: longer(size) * cut_off))

    def _dollars(self, price: Price, sizes: Counter[int], outputs: Outputs, at: datetime, tokens: float) -> Decimal:
        requests = sizes.total()

        def output(size: int) -> float:
            if not outputs.expected:  # nothing was ever answered; all the more may come
                return tokens / requests
            return outputs.per_request(size) * tokens / outputs.expected

        total = total_usd(sizes, lambda size: mean_cost_usd(price, self._input(size), output(size), at=at))
        return _rounded(total)

    def _input(self, size: int) -> Usage:
        billed = round(size * self.input_ratio)
        return Usage(billed, 0, cached_input_tokens=round(billed * self.cached_share))


def _rounded(usd: Decimal | None) -> Decimal:
    with localcontext(EXACT):
        return (usd or Decimal(0)).quantize(_COST_UNIT)
