"""How long it takes: each limit's own time; the longest one binds."""

from dataclasses import dataclass

from pipeline.doorman import Limits
from pipeline.estimating._outlook import Outlook
from pipeline.estimating._to_send import ToSend
from pipeline.forecasting import Outputs


@dataclass(frozen=True, slots=True)
class Finish:
    """Time to send what is to be sent, and what decides it."""

    seconds: float
    limit: str
    """The limit that binds: requests_per_minute, tokens_per_minute or concurrency."""
    doubled_seconds: float
    """How long it took if that limit were twice as high: then another one may bind."""


def finish(to_send: ToSend, limits: Limits, outlook: Outlook, outputs: Outputs | None) -> Finish | None:
    """Return the time under the stated limits; None if nothing says how long anything takes.

    Repairs pass the door as well. Slots count where earlier requests say how long one is on the wire. Tokens are those
    that will be used; without an earlier answer those that are set aside.
    """
    times = {}
    if limits.requests_per_minute is not None:
        times["requests_per_minute"] = (
            to_send.requests * float(outlook.exchanges_each) / limits.requests_per_minute * 60
        )
    if limits.tokens_per_minute is not None:
        times["tokens_per_minute"] = _tokens(to_send, outlook, outputs) / limits.tokens_per_minute * 60
    if outlook.seconds_each is not None:
        times["concurrency"] = to_send.requests * outlook.seconds_each / limits.concurrency
    if not times:
        return None
    binds = max(times, key=times.__getitem__)
    others = [seconds for limit, seconds in times.items() if limit != binds]
    return Finish(times[binds], binds, max([times[binds] / 2, *others]))


def _tokens(to_send: ToSend, outlook: Outlook, outputs: Outputs | None) -> float:
    if outputs is None or not outlook.used:
        return to_send.limit_tokens
    billed = sum(requests * float(outlook.exchange_input(size)) for size, requests in to_send.sizes.items())
    return billed * float(outlook.exchanges_each) + outputs.expected
