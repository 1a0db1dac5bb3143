"""How long it takes: each limit's own time; the longest one binds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from pipeline.doorman import Limits
from pipeline.estimating._outlook import Outlook
from pipeline.estimating._to_send import ToSend
from pipeline.forecasting import Outputs
from pipeline.minute import KEPT_SECONDS

_LARGE_PER_MINUTE = 10
"""Where more than so many requests fit into a minute, how they fill it makes no difference."""


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
        amounts = _amounts(to_send, outlook, outputs)
        times["tokens_per_minute"] = _under(limits.tokens_per_minute, amounts)
    if outlook.seconds_each is not None:
        times["concurrency"] = to_send.requests * outlook.seconds_each / limits.concurrency
    if not times:
        return None
    binds = max(times, key=times.__getitem__)
    others = [seconds for limit, seconds in times.items() if limit != binds]
    doubled = times[binds] / 2
    if binds == "tokens_per_minute" and limits.tokens_per_minute is not None:
        doubled = _under(2 * limits.tokens_per_minute, amounts)
    return Finish(times[binds], binds, max([doubled, *others]))


_Amount = tuple[float, float]
"""Tokens that a request sets aside when it goes out, and those of them that it uses."""


def _under(per_minute: float, amounts: Mapping[_Amount, float]) -> float:
    """Return the seconds that requests take which need these amounts: no minute holds more, and none holds a part."""
    seconds = sum(used * requests for (_, used), requests in amounts.items()) / per_minute * 60
    fitting = defaultdict[int, float](float)
    for amount, requests in amounts.items():
        fitting[_fit(per_minute, *amount)] += requests
    large = 0.0
    for most in range(1, _LARGE_PER_MINUTE):
        large += fitting[most]  # those of which no more fit into a minute
        seconds = max(seconds, (ceil(large / most) - 1) * KEPT_SECONDS)
    return seconds


def _fit(per_minute: float, reserved: float, used: float) -> int:
    """Return how many such requests go out in a minute: what the others didn't use is there for the last one."""
    return int((per_minute - reserved) // max(used, 1)) + 1


def _amounts(to_send: ToSend, outlook: Outlook, outputs: Outputs | None) -> Mapping[_Amount, float]:
    """Return how many requests take how many tokens of a limit."""
    reserved = {size: to_send.limit_tokens(size) for size in to_send.sizes}
    if outputs is None or not outlook.used:
        return {(reserved[size], reserved[size]): requests for size, requests in to_send.sizes.items()}
    exchanges = float(outlook.exchanges_each)
    answer = outputs.expected / max(to_send.requests * exchanges, 1)
    amounts = defaultdict[_Amount, float](float)
    for size, requests in to_send.sizes.items():
        amounts[reserved[size], float(outlook.exchange_input(size)) + answer] += requests * exchanges
    return amounts
