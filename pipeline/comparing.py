"""What the same work would cost on other models, providers and lanes, and if a price's source were wrong.

Token counts are taken as they are: another model's tokenizer counts the same text differently, and its answers are
longer or shorter. Whoever shows the figures says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pipeline.pricebook import Prices, Target
from pipeline.pricing import COST_UNIT, Bulk, Claim, Mix, Price, total_usd, worst_total_usd

MOST_SELLERS = 12
"""So many lines does a model without a provider get."""
UNKNOWN = "the price is unknown"


@dataclass(frozen=True, slots=True)
class Work:
    """The requests of a job, by size, and what is known about their answers."""

    sizes: Mapping[int, int]
    """Input tokens of a request -> how many requests have that many."""
    outputs: tuple[float, float, float] | None
    """Output tokens of all requests together: low, expected and high; None without a forecast."""
    per_request: Callable[[int], float]
    """Expected output tokens of a request of that many input tokens; only their ratios count."""
    max_tokens: int | None
    """The most output tokens of one answer; None: any number."""
    repairs: int = 0
    """How often an answer may be repaired: forecasts have it, ceilings don't."""
    mix: Mix = Mix()  # noqa: RUF009 -- a frozen value
    """What the tokens are made of."""
    bounds: Mapping[int, int] | None = None
    """As `sizes`, with the most input tokens that a request can be billed for; None: as counted."""
    spread: tuple[Decimal, Decimal] | None = None
    """Low and high dollars for one that is expected, at the job's own price: no interval is narrower, as more than the
    output is uncertain."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What the work would cost at one target. Dollars are None where they can't be known, never zero."""

    target: Target
    """With its provider, if only one was meant."""
    price: Price | None
    """None if it is unknown; it may be known without that of the lane."""
    low_usd: Decimal | None
    """Without a forecast: the input alone."""
    expected_usd: Decimal | None
    high_usd: Decimal | None
    ceiling_usd: Decimal | None
    """Every answer as long as it may be, at the dearest hour; None without max_tokens."""
    note: str | None
    """Why there are no dollars at all: the price, or that of the lane, is unknown; or how many sellers are left out."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the work would cost if something else that the price's source says were true."""

    says: str
    usd: Decimal | None
    """None: it depends on the answers, and there is no forecast."""


def compare(prices: Prices, targets: Sequence[Target], work: Work, *, at: datetime) -> list[Compared]:
    """Price the work at each target, all of it sent at one moment.

    A target without a provider gets a line for each seller that has its lane, the cheapest first, at most MOST_SELLERS
    of them. One that nobody sells gets a line that says so.
    """
    bulks = _Bulks(work)
    return [line for target in targets for line in _lines(prices, target, bulks, at)]


def contradictions(price: Price, work: Work) -> list[Contradiction]:
    """Price the work by everything else that the price's source says."""
    bulks = _Bulks(work)
    return [Contradiction(claim.says, _claimed_usd(price, claim, bulks)) for claim in price.contradictions]


class _Bulks:
    """The requests under each forecast of their answers."""

    def __init__(self, work: Work) -> None:
        self.spread = work.spread
        self.input_alone = Bulk(((size, 0, requests) for size, requests in work.sizes.items()), work.mix)
        low, self.expected, self.high = _forecast(work)
        self.low = low or self.input_alone
        self.most = None
        if work.max_tokens is not None:
            bounds = work.sizes if work.bounds is None else work.bounds
            self.most = Bulk((size, work.max_tokens, requests) for size, requests in bounds.items())


def _forecast(work: Work) -> tuple[Bulk | None, Bulk | None, Bulk | None]:
    if work.outputs is None:
        return None, None, None
    weights = {size: work.per_request(size) for size in work.sizes}
    whole = sum(weights[size] * requests for size, requests in work.sizes.items())
    if whole <= 0:  # nothing says how the answers differ
        weights, whole = dict.fromkeys(work.sizes, 1.0), sum(work.sizes.values()) or 1
    low, expected, high = (Bulk(_spread(work, weights, total / whole), work.mix) for total in work.outputs)
    return low, expected, high


def _spread(work: Work, weights: Mapping[int, float], factor: float) -> Iterator[tuple[int, int, int]]:
    """Give each request its whole tokens; what rounding leaves goes to the next, so that the total stays.

    Rounding each by itself would not do: answers of 3.5 tokens would all become 4.
    """
    left, most = 0.0, None if work.max_tokens is None else work.max_tokens * (1 + work.repairs)
    for size, requests in work.sizes.items():
        wanted = weights[size] * factor * requests + left
        tokens = round(wanted)
        left = wanted - tokens
        each, more = divmod(tokens, requests)
        for output, count in ((each, requests - more), (each + 1, more)):
            if count:
                yield size, output if most is None else min(output, most), count


def _lines(prices: Prices, target: Target, bulks: _Bulks, at: datetime) -> list[Compared]:
    if target.provider is not None:
        return [_line(target, prices.find(target.provider, target.model, at), bulks, at)]
    sellers = [(seller, prices.find(seller, target.model, at)) for seller in prices.sellers(target.model, at)]
    found = [_line(Target(target.model, seller, target.lane), price, bulks, at) for seller, price in sellers]
    if len(found) == 1:
        return found
    priced = sorted((line for line in found if line.note is None), key=_expected)
    if not priced:
        why = f"none of its {len(found)} sellers has a {target.lane} lane" if found else UNKNOWN
        return [_without_figures(target, None, why)]
    left_out = len(priced) - MOST_SELLERS
    if left_out > 0:
        sellers_too = "1 more seller, dearer" if left_out == 1 else f"{left_out} more sellers, dearer"
        return [*priced[:MOST_SELLERS], _without_figures(target, None, sellers_too)]
    return priced


def _line(target: Target, price: Price | None, bulks: _Bulks, at: datetime) -> Compared:
    if price is None:
        return _without_figures(target, None, UNKNOWN)
    if not price.sells(target.lane):
        return _without_figures(target, price, f"has no {target.lane} lane with a known price")

    def usd(bulk: Bulk | None) -> Decimal | None:
        return None if bulk is None else total_usd(price, bulk, lane=target.lane, at=at)

    ceiling = None if bulks.most is None else worst_total_usd(price, bulks.most, lane=target.lane)
    low, expected, high = usd(bulks.low), usd(bulks.expected), usd(bulks.high)
    if bulks.spread is not None and low is not None and expected is not None and high is not None:
        low = min(low, (expected * bulks.spread[0]).quantize(COST_UNIT))
        high = max(high, (expected * bulks.spread[1]).quantize(COST_UNIT))
    return Compared(target, price, low, expected, high, ceiling, None)


def _without_figures(target: Target, price: Price | None, note: str) -> Compared:
    return Compared(target, price, None, None, None, None, note)


def _expected(line: Compared) -> Decimal:
    return next(usd for usd in (line.expected_usd, line.low_usd) if usd is not None)


def _claimed_usd(price: Price, claim: Claim, bulks: _Bulks) -> Decimal | None:
    claimed = Price(price.provider, price.model, claim.input, claim.output, per_request=claim.per_request)
    bulk = bulks.input_alone if claimed.output_is_free else bulks.expected
    return None if bulk is None else total_usd(claimed, bulk)
