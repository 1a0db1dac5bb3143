"""What requests cost at the prices that are in force while they are sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pipeline.planning import Meter
from pipeline.pricing import Share, cost_usd, look_ahead, mean_cost_usd
from pipeline.records import Usage


@dataclass(frozen=True, slots=True)
class Terms:
    """Prices in force while requests are sent evenly; each holds for a share of them."""

    shares: Sequence[Share] = ()

    @classmethod
    def of(cls, meter: Meter, begin: datetime, seconds: float | None) -> "Terms":
        """Look ahead from a moment on, for so long; None: all is sent at that moment.

        A price that calls free what the provider charges for says nothing.
        """
        return cls() if meter.charged else cls(look_ahead(meter.prices, begin, seconds))

    @property
    def known(self) -> bool:
        """Tell whether there is a price."""
        return bool(self.shares)

    def usd(self, usage: Usage) -> Decimal:
        """Price a usage: the mean over the time."""
        if len(self.shares) == 1:
            return cost_usd(self.shares[0].price, usage, at=self.shares[0].at)
        return self._mean([cost_usd(share.price, usage, at=share.at) for share in self.shares])

    def mean_usd(self, usage: Usage, output_tokens: float) -> Decimal:
        """Price a usage whose output is an average, as `mean_cost_usd` does: the mean over the time."""
        if len(self.shares) == 1:
            return mean_cost_usd(self.shares[0].price, usage, output_tokens, at=self.shares[0].at)
        return self._mean([mean_cost_usd(share.price, usage, output_tokens, at=share.at) for share in self.shares])

    def _mean(self, dollars: Sequence[Decimal]) -> Decimal:
        parts = [usd * share.moments for usd, share in zip(dollars, self.shares, strict=True)]
        return sum(parts, Decimal(0)) / sum(share.moments for share in self.shares)
