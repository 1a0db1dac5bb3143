"""What the same work would cost on other models, providers and lanes, and if a price's source were wrong.

Token counts are taken as they are: another model's tokenizer counts the same text differently, and its answers are
longer or shorter. Whoever shows the figures says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from pipeline.pricebook import Prices, Target
from pipeline.pricing import COST_UNIT, Bulk, Claim, Mix, Price, look_ahead, total_usd, worst_total_usd

MOST_SELLERS = 12
"""So many lines does a model without a provider get."""
UNKNOWN = "the price is unknown"
CHARGED = "the provider charges for what is free by this price"


@dataclass(frozen=True, slots=True)
class Load:
    """Exchanges whose answers are forecast together."""

    exchanges: Sequence[tuple[int, int, float]]
    """Input tokens of an exchange, how many there are, and the output tokens expected of each (of which only the ratios
    count). Repairs are among them."""
    outputs: tuple[float, float, float] | None
    """Output tokens of all of them together: low, expected and high; None without a forecast."""


@dataclass(frozen=True, slots=True)
class Work:
    """The requests of a job, as the exchanges that they take, and what is known about their answers."""

    loads: Sequence[Load]
    max_tokens: int | None
    """The most output tokens of one answer; None: any number."""
    mix: Mix = Mix()  # noqa: RUF009 -- a frozen value
    """What the tokens are made of."""
    worst: Mapping[int, int] | None = None
    """The most input tokens that an exchange can be billed for -> how many there can be; None: those of the loads."""
    spread: tuple[Decimal, Decimal] | None = None
    """Low and high dollars for one that is expected, at the job's own price: no interval is narrower, as more than the
    output is uncertain."""
    price: Price | None = None
    """The job's own."""
    billed_factor: Decimal = Decimal(1)
    """What is charged for a dollar of that price."""
    charged: bool = False
    """Whether the provider charges although that price is free."""
    seconds: float | None = None
    """How long sending takes, in which a price may change; None: all is sent at one moment."""


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
    """Why there are no dollars at all: the price, or that of the lane, is unknown or known to be wrong; or how many
    sellers are left out."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What the work would cost if something else that the price's source says were true."""

    says: str
    usd: Decimal | None
    """None: it depends on the answers, and there is no forecast."""


def compare(prices: Prices, targets: Sequence[Target], work: Work, *, at: datetime) -> list[Compared]:
    """Price the work at each target, if sending it begins at this moment.

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
        self.work = work
        inputs = [(size, number) for load in work.loads for size, number, _ in load.exchanges]
        self.input_alone = Bulk(((size, 0, number) for size, number in inputs), work.mix)
        low, self.expected, self.high = (_forecast(work, which) for which in range(3))
        self.low = low or self.input_alone
        self.most = None
        if work.max_tokens is not None:
            worst = inputs if work.worst is None else work.worst.items()
            self.most = Bulk((size, work.max_tokens, number) for size, number in worst)


def _forecast(work: Work, which: int) -> Bulk | None:
    totals = [(load, load.outputs[which]) for load in work.loads if load.outputs is not None]
    if len(totals) < len(work.loads):
        return None
    return Bulk((each for load, total in totals for each in _spread(load, total, work.max_tokens)), work.mix)


def _spread(load: Load, total: float, most: int | None) -> Iterator[tuple[int, int, int]]:
    """Give each exchange its whole tokens; what rounding leaves goes to the next, so that the total stays.

    Rounding each by itself would not do: answers of 3.5 tokens would all become 4.
    """
    whole = sum(weight * number for _, number, weight in load.exchanges)
    alike = whole <= 0  # nothing says how the answers differ
    factor = total / ((sum(number for _, number, _ in load.exchanges) or 1) if alike else whole)
    left = 0.0
    for size, number, weight in load.exchanges:
        wanted = (1.0 if alike else weight) * factor * number + left
        tokens = round(wanted)
        left = wanted - tokens
        each, more = divmod(tokens, number)
        for output, count in ((each, number - more), (each + 1, more)):
            if count:
                yield size, output if most is None else min(output, most), count


def _lines(prices: Prices, target: Target, bulks: _Bulks, at: datetime) -> list[Compared]:
    if target.provider is not None:
        return [_line(target, _prices_of(prices, target, bulks.work, at), bulks, at)]
    own = bulks.work.price
    names = dict.fromkeys(prices.sellers(target.model, at))
    if own is not None and own.model == target.model:
        names[own.provider] = None
    sellers = [Target(target.model, seller, target.lane) for seller in names]
    found = [_line(each, _prices_of(prices, each, bulks.work, at), bulks, at) for each in sellers]
    if len(found) == 1:
        return found
    priced = sorted((line for line in found if line.note is None), key=_expected)
    charged = [line for line in found if line.note == CHARGED]
    if not priced and not charged:
        why = f"none of its {len(found)} sellers has a {target.lane} lane" if found else UNKNOWN
        return [_without_figures(target, None, why)]
    left_out = len(priced) - MOST_SELLERS
    if left_out > 0:
        sellers_too = "1 more seller, dearer" if left_out == 1 else f"{left_out} more sellers, dearer"
        return [*priced[:MOST_SELLERS], *charged, _without_figures(target, None, sellers_too)]
    return [*priced, *charged]


def _prices_of(prices: Prices, target: Target, work: Work, at: datetime) -> Sequence[Price]:
    """Look up a target's prices; for the job's own model the job's own price goes first."""
    found = prices.during_run(target.provider or "", target.model, at)
    own = work.price
    if own is None or (own.provider, own.model) != (target.provider, target.model) or own in found:
        return found
    return (own,)


def _line(target: Target, prices: Sequence[Price], bulks: _Bulks, at: datetime) -> Compared:
    """Price the work at the price in force, and at those that follow while it is sent."""
    if not prices:
        return _without_figures(target, None, UNKNOWN)
    price, work = prices[0], bulks.work
    if not price.sells(target.lane):
        return _without_figures(target, price, f"has no {target.lane} lane with a known price")
    if price.is_free and _is_charged(price, work):
        return _without_figures(target, price, CHARGED)
    factor = work.billed_factor if price == work.price else Decimal(1)
    sold = [each for each in prices if each.sells(target.lane)]
    shares = look_ahead(sold, at, work.seconds, lane=target.lane)

    def usd(bulk: Bulk | None) -> Decimal | None:
        if bulk is None:
            return None
        parts = [total_usd(each.price, bulk, lane=target.lane, at=each.at) * each.moments for each in shares]
        return (factor * sum(parts) / sum(each.moments for each in shares)).quantize(COST_UNIT)

    low, expected, high = usd(bulks.low), usd(bulks.expected), usd(bulks.high)
    if work.spread is not None and low is not None and expected is not None and high is not None:
        low = min(low, _times(work.spread[0], expected))
        high = max(high, _times(work.spread[1], expected))
    ceiling = None
    if bulks.most is not None:
        dearest = max(worst_total_usd(each, bulks.most, lane=target.lane) for each in sold)
        ceiling = max(_times(max(factor, Decimal(1)), dearest), high or Decimal(0))
    return Compared(target, price, low, expected, high, ceiling, None)


def _is_charged(price: Price, work: Work) -> bool:
    """Tell whether whoever has this price was seen to charge for the job's model."""
    own = work.price
    return work.charged and own is not None and (price.provider, price.model) == (own.provider, own.model)


def _times(factor: Decimal, usd: Decimal) -> Decimal:
    return usd if factor == 1 else (usd * factor).quantize(COST_UNIT)


def _without_figures(target: Target, price: Price | None, note: str) -> Compared:
    return Compared(target, price, None, None, None, None, note)


def _expected(line: Compared) -> Decimal:
    return next(usd for usd in (line.expected_usd, line.low_usd) if usd is not None)


def _claimed_usd(price: Price, claim: Claim, bulks: _Bulks) -> Decimal | None:
    claimed = Price(price.provider, price.model, claim.input, claim.output, per_request=claim.per_request)
    bulk = bulks.input_alone if claimed.output_is_free else bulks.expected
    return None if bulk is None else total_usd(claimed, bulk)
