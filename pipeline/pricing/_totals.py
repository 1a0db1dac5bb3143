"""What many requests cost together: the sum of `cost_usd` or `worst_case_usd` over them, to the last digit.

Tokens are added up first and priced once per context tier. Where that would not be exact (a request's cost must be
rounded, has a minimum, or is dearest now under these terms and now under those), each size is priced by itself.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, localcontext
from itertools import accumulate, pairwise

from pipeline.pricing._cost import COST_UNIT, charged
from pipeline.pricing._price import REALTIME, Price
from pipeline.pricing._terms import MONEY, ONE, ONE_MILLION, ZERO, Rates

_Dollars = tuple[Decimal, Decimal]
"""Per input token and per output token."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Which parts of tokens are charged at rates of their own, from 0 to 1."""

    cached: Decimal = ZERO
    """Of the input: read from a cache."""
    written: Decimal = ZERO
    """Of the input: written to a cache."""
    reasoning: Decimal = ZERO
    """Of the output."""


class Bulk:
    """Many requests: how many there are of each input and output tokens."""

    def __init__(self, sizes: Iterable[tuple[int, int, int]], mix: Mix = Mix()) -> None:
        """Take (input tokens, output tokens, requests), and what all their tokens are made of."""
        self.mix = mix
        self._sizes = sorted(sizes)
        self._inputs = [size[0] for size in self._sizes]
        self._sums = [
            list(accumulate(column, initial=0))
            for column in (
                (requests for _, _, requests in self._sizes),
                (tokens * requests for tokens, _, requests in self._sizes),
                (output * requests for _, output, requests in self._sizes),
            )
        ]

    def split(self, limits: Iterable[int]) -> Iterator["Part"]:
        """Yield the requests of each context tier, the lowest first, given where the tiers end."""
        cuts = [0, *(bisect_right(self._inputs, limit) for limit in sorted(limits)), len(self._sizes)]
        for first, end in pairwise(cuts):
            if first < end:
                requests, input_tokens, output_tokens = (sums[end] - sums[first] for sums in self._sums)
                yield Part(self._sizes[first:end], requests, input_tokens, output_tokens)


@dataclass(frozen=True, slots=True)
class Part:
    """The requests of one context tier."""

    sizes: Sequence[tuple[int, int, int]]
    """(input tokens, output tokens, requests), by input tokens."""
    requests: int
    input_tokens: int
    output_tokens: int

    @property
    def longest(self) -> int:
        """Input tokens of the longest request."""
        return self.sizes[-1][0]


def total_usd(price: Price, bulk: Bulk, *, lane: str = REALTIME, at: datetime | None = None) -> Decimal:
    """Add up what the requests cost (`cost_usd`) if all are sent at one moment.

    With a mix each costs what its parts cost on average, whole tokens or not. Raises PriceError for a lane of unknown
    price.
    """
    tariff, factor = price.terms_at(lane, at)
    with localcontext(MONEY):
        return sum(
            (
                _part_usd(price, part, {_dollars(tariff.rates_for(part.longest), factor, bulk.mix)}, ROUND_HALF_EVEN)
                for part in bulk.split(tier.input_tokens_over for tier in tariff.above)
            ),
            ZERO,
        )


def worst_total_usd(price: Price, bulk: Bulk, *, lane: str = REALTIME) -> Decimal:
    """Add up what the requests can cost at most (`worst_case_usd`); their output tokens are the most they can bring.

    Raises PriceError for a lane of unknown price.
    """
    terms = list(price.every_term(lane))
    limits = {tier.input_tokens_over for tariff, _ in terms for tier in tariff.above}
    with localcontext(MONEY):
        return sum(
            (
                _part_usd(
                    price,
                    part,
                    {_dearest(rates, factor) for tariff, factor in terms for rates in tariff.reachable(part.longest)},
                    ROUND_CEILING,
                )
                for part in bulk.split(limits)
            ),
            ZERO,
        )


def _dollars(rates: Rates, factor: Decimal, mix: Mix) -> _Dollars:
    plain_input, plain_output = ONE - mix.cached - mix.written, ONE - mix.reasoning
    per_input = plain_input * rates.input + mix.cached * rates.cached_input + mix.written * rates.cache_write
    per_output = plain_output * rates.output + mix.reasoning * rates.reasoning
    return per_input * factor / ONE_MILLION, per_output * factor / ONE_MILLION


def _dearest(rates: Rates, factor: Decimal) -> _Dollars:
    return rates.dearest_input * factor / ONE_MILLION, rates.dearest_output * factor / ONE_MILLION


def _part_usd(price: Price, part: Part, terms: set[_Dollars], rounding: str) -> Decimal:
    """Price each request at the dearest of the terms."""
    dearest = [one for one in terms if not any(_is_dearer(other, one) for other in terms)]
    if len(dearest) == 1 and _adds_up(price, dearest[0]):
        (per_input, per_output), fees = dearest[0], price.per_request * part.requests
        return (part.input_tokens * per_input + part.output_tokens * per_output + fees) * (ONE + price.markup)
    return sum(
        (
            charged(price, max(tokens * per_input + output * per_output for per_input, per_output in dearest)).quantize(
                COST_UNIT, rounding=rounding
            )
            * requests
            for tokens, output, requests in part.sizes
        ),
        ZERO,
    )


def _is_dearer(one: _Dollars, other: _Dollars) -> bool:
    """Tell whether nothing costs less and something costs more."""
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def _adds_up(price: Price, dollars: _Dollars) -> bool:
    """Tell whether no request's cost has to be rounded or raised, so that the sum may be priced as one."""
    parts = [value * (ONE + price.markup) for value in (*dollars, price.per_request)]
    return not price.minimum_charge and all(value == value.quantize(COST_UNIT) for value in parts)
