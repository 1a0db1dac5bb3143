"""At which prices requests will be sent: now, or spread over the time that it takes to send them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from pipeline.planning import Meter
from pipeline.pricing import REALTIME, Price, cost_usd, mean_cost_usd
from pipeline.records import Usage

MOMENTS = 288
"""So many moments of the time that it takes are looked at: every five minutes of a day."""


class Share(NamedTuple):
    price: Price
    at: datetime
    """A moment at which these terms hold."""
    moments: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Prices in force while requests are sent evenly; each holds for a share of them."""

    shares: Sequence[Share] = ()

    @classmethod
    def of(cls, meter: Meter, begin: datetime, seconds: float | None) -> "Terms":
        """Look ahead from a moment on, for so long; None: all is sent at that moment.

        A price that calls free what the provider charges for says nothing.
        """
        if meter.price is None or meter.charged:
            return cls()
        changes = len(meter.prices) > 1 or any(price.windows for price in meter.prices)
        if not changes or not seconds:
            return cls([Share(meter.price_at(begin.timestamp()) or meter.price, begin, 1)])
        found: dict[tuple[object, ...], Share] = {}
        for number in range(MOMENTS):
            at = begin + timedelta(seconds=seconds * (number + 0.5) / MOMENTS)
            price = meter.price_at(at.timestamp()) or meter.price
            tariff, factor = price.terms_at(REALTIME, at)
            same = (price.price_id, id(tariff), factor)
            found[same] = Share(price, at, found[same].moments + 1 if same in found else 1)
        return cls(list(found.values()))

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
