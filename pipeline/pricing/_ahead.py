"""At which prices requests will be sent: now, or spread over the time that it takes to send them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pipeline.pricing._files import in_force
from pipeline.pricing._price import REALTIME, Price

MOMENTS = 288
"""So many moments of the time that it takes are looked at: every five minutes of a day."""


class Share(NamedTuple):
    """Terms that hold for a part of the time."""

    price: Price
    at: datetime
    """A moment at which these terms hold."""
    moments: int
    """Of MOMENTS; 1 where nothing changes."""


def look_ahead(prices: Sequence[Price], begin: datetime, seconds: float | None, *, lane: str = REALTIME) -> list[Share]:
    """Look ahead from a moment on, for so long; None: all is sent at that moment. Empty without a price.

    In other lanes than realtime all is sent at that moment: a batch is priced when it is handed in. `prices`: the one
    in force then, and those that follow. Raises PriceError for a lane of unknown price.
    """
    if not prices:
        return []
    changes = len(prices) > 1 or any(price.windows for price in prices)
    if not changes or not seconds or lane != REALTIME:
        return [Share(in_force(prices, begin) or prices[0], begin, 1)]
    found: dict[tuple[object, ...], Share] = {}
    for number in range(MOMENTS):
        at = begin + timedelta(seconds=seconds * (number + 0.5) / MOMENTS)
        price = in_force(prices, at) or prices[0]
        tariff, factor = price.terms_at(lane, at)
        same = (price.price_id, id(tariff), factor)
        found[same] = Share(price, at, found[same].moments + 1 if same in found else 1)
    return list(found.values())
