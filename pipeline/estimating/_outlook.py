"""What is known from before about how the next requests of a job will turn out, and what that makes them cost."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from math import sqrt
from typing import Literal

from pipeline.estimating._terms import Terms
from pipeline.estimating._to_send import EXACT, total_usd
from pipeline.forecasting import (
    FEW,
    RESAMPLES,
    Observed,
    Outputs,
    forecast_from_limit,
    forecast_outputs,
    interval_of_total,
)
from pipeline.ledger import Calibration, Exchange, Used
from pipeline.planning import is_raised
from pipeline.pricing import COST_UNIT, Mix
from pipeline.records import Usage

LEAST_USED = 30
"""Fewer requests than this say nothing about how counts and bills differ."""
QUICK_RESAMPLES = 199
"""With these an estimate from 1,000 answers takes 0.09 s of processor time instead of 0.26 s."""
_SEED = 20_261_124
"""Any number: the same facts make the same figures."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars of all requests that are to be sent, with a 90 % interval; retries after errors apart."""

    low: Decimal
    expected: Decimal
    high: Decimal


@dataclass(frozen=True)
class Outlook:
    """Requests of the same job and prompt that have been answered: of its pilot, or of its earlier runs."""

    used: Sequence[Used] = ()
    basis: Literal["pilot", "history"] = "history"
    calibration: Calibration | None = None
    """What a counted token turned out to be in the whole ledger; taken where `used` is too little."""
    max_tokens: int | None = None
    """The limit of the next requests."""
    repair: int = 0
    """How often an answer may be repaired: each time it may take max_tokens more."""
    resamples: int = RESAMPLES
    """Fewer make the ends of an interval less sure, in as much less time."""

    @cached_property
    def quick(self) -> "Outlook":
        """The same, for an estimate that is made in passing."""
        return replace(self, resamples=QUICK_RESAMPLES)

    @cached_property
    def observed(self) -> list[Used]:
        """What was used, as it would have been under the limit of the next requests."""
        return [one._replace(exchanges=tuple(self._limited(one, each) for each in one.exchanges)) for one in self.used]

    def _limited(self, one: Used, exchange: Exchange) -> Exchange:
        usage, limit = exchange.usage, self.max_tokens
        if limit is not None and usage.output_tokens > limit:
            usage = usage._replace(output_tokens=limit, reasoning_tokens=min(usage.reasoning_tokens, limit))
            return Exchange(usage, truncated=True)
        if exchange.truncated and is_raised(one.max_tokens, limit):
            # Somewhere between where it was cut and the new limit: the middle of the two on a scale of ratios.
            longest = usage.output_tokens if limit is None else round(sqrt(usage.output_tokens * limit))
            return Exchange(usage._replace(output_tokens=max(longest, usage.output_tokens)), truncated=False)
        return exchange

    @cached_property
    def guessed(self) -> bool:
        """Whether some answers were cut off at a lower limit, so that their length is a guess."""
        return any(one.truncated and is_raised(one.max_tokens, self.max_tokens) for one in self.used)

    @property
    def most_tokens(self) -> int | None:
        """Output tokens that one request can bring, its repairs included; None: any number."""
        return None if self.max_tokens is None else self.max_tokens * (1 + self.repair)

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
        return self._share(lambda usage: usage.cached_input_tokens, lambda usage: usage.input_tokens)

    @cached_property
    def written_share(self) -> Fraction:
        """The part of the input that was billed as written to a cache; 0 as long as nobody knows better."""
        return self._share(lambda usage: usage.cache_write_tokens, lambda usage: usage.input_tokens)

    @cached_property
    def reasoning_share(self) -> Fraction:
        """The part of the output that was reasoning; 0 as long as nobody knows better."""
        return self._share(lambda usage: usage.reasoning_tokens, lambda usage: usage.output_tokens)

    def _share(self, part: Callable[[Usage], int], whole: Callable[[Usage], int]) -> Fraction:
        usages = [exchange.usage for one in self.observed for exchange in one.exchanges]
        total = sum(map(whole, usages))
        if len(self.used) < LEAST_USED or not total:
            return Fraction(0)
        return Fraction(sum(map(part, usages)), total)

    @property
    def mix(self) -> Mix:
        """What tokens are made of, as far as it is known."""
        with localcontext(EXACT):
            return Mix(
                *(
                    Decimal(share.numerator) / share.denominator
                    for share in (self.cached_share, self.written_share, self.reasoning_share)
                )
            )

    @cached_property
    def billed_factor(self) -> Decimal:
        """What a provider that says what it charges charged for a dollar that the price made of it; else 1."""
        billed = [
            (each.billed_usd, each.computed_usd)
            for one in self.used
            for each in one.exchanges
            if each.billed_usd is not None and each.computed_usd is not None
        ]
        computed = _sum(dollars for _, dollars in billed)
        if not computed:
            return Decimal(1)
        with localcontext(EXACT):
            return _sum(dollars for dollars, _ in billed) / computed

    @cached_property
    def seconds_each(self) -> float | None:
        """Mean time that a request is on the wire; None if nobody knows."""
        return sum(one.seconds for one in self.used) / len(self.used) if self.used else None

    # -- tokens -------------------------------------------------------------------------------------

    def outputs(self, sizes: Counter[int]) -> Outputs | None:
        """Forecast the output of requests by size; None if neither an answer nor max_tokens says anything."""
        if not self.used:
            return forecast_from_limit(sizes, self.max_tokens)
        observed = [Observed(one.counted_tokens, one.output_tokens, one.truncated) for one in self.observed]
        found = forecast_outputs(
            observed,
            sizes,
            basis=self.basis,
            max_tokens=self.most_tokens,
            seed=_SEED,
            resamples=self.resamples,
        )
        return replace(found, rough=True) if self.guessed else found

    def usage(self, input_tokens: int, output_tokens: float) -> Usage:
        """Say what a request of so many counted tokens will be billed for, if its output is so long."""
        billed = round(input_tokens * self.input_ratio)
        return Usage(
            billed,
            int(output_tokens),
            cached_input_tokens=round(billed * self.cached_share),
            cache_write_tokens=int(billed * self.written_share),
            reasoning_tokens=int(output_tokens * self.reasoning_share),
        )

    # -- dollars ------------------------------------------------------------------------------------

    def bill(self, terms: Terms, sizes: Counter[int], outputs: Outputs | None) -> Bill | None:
        """Price requests by size; None if price or output is unknown."""
        if outputs is None:
            return None
        if not terms.known:
            return self._as_billed(sizes)
        if not self.used:
            low, expected, high = (
                _rounded(self._total(terms, sizes, outputs, tokens))
                for tokens in (outputs.low, outputs.expected, outputs.high)
            )
            return Bill(low, expected, high)
        return self._observed_bill(terms, sizes, outputs)

    def _observed_bill(self, terms: Terms, sizes: Counter[int], outputs: Outputs) -> Bill:
        """Price what the observed requests did use, beside what is expected of them in the same way.

        So whatever makes requests dear has its part in the figure and in the interval: input that is billed otherwise
        than counted, repairs, fees, reasoning, caches.
        """
        brought = [self._used_usd(terms, one) for one in self.observed]
        fitted = [self._dollars(terms, one.counted_tokens, outputs) for one in self.observed]
        with localcontext(EXACT):
            scale = _sum(brought) / _sum(fitted) if any(fitted) else Decimal(1)
            expected = self._total(terms, sizes, outputs, outputs.expected) * scale
            if len(brought) < FEW:
                low = self._total(terms, sizes, outputs, outputs.low) * scale
                high = self._total(terms, sizes, outputs, outputs.high) * scale
            else:
                bounds = interval_of_total(
                    [float(one * scale) for one in fitted],
                    [float(one) for one in brought],
                    float(expected),
                    sizes.total(),
                    seed=_SEED,
                    resamples=self.resamples,
                )
                low, high = map(Decimal, bounds)
            if self.most_tokens is not None:  # no interval reaches beyond all that max_tokens allows
                most = self._total(terms, sizes, outputs, self.most_tokens * sizes.total())
                high = min(high, most * max(scale, Decimal(1)))
        return Bill(_rounded(min(low, expected)), _rounded(expected), _rounded(max(high, expected)))

    def _as_billed(self, sizes: Counter[int]) -> Bill | None:
        """Forecast from what the provider said it charged, where there is no price."""
        billed = [_billed_usd(one) for one in self.used]
        known = [dollars for dollars in billed if dollars is not None]
        other_limits = self.observed != list(self.used)  # then answers get longer or shorter, and nobody has a price
        if other_limits or len(known) < max(len(billed), FEW):
            return None
        mean = _sum(known) / len(known)
        low, high = interval_of_total(
            [float(mean)] * len(known),
            [float(one) for one in known],
            float(mean) * sizes.total(),
            sizes.total(),
            seed=_SEED,
            resamples=self.resamples,
        )
        return Bill(_rounded(Decimal(low)), _rounded(mean * sizes.total()), _rounded(Decimal(high)))

    def input_usd(self, terms: Terms, sizes: Counter[int]) -> Decimal | None:
        """Price the input alone; None if the price is unknown."""
        return total_usd(sizes, lambda size: terms.mean_usd(self.usage(size, 0), 0)) if terms.known else None

    def longer_usd(self, terms: Terms, sizes: Counter[int], outputs: Outputs | None) -> Decimal | None:
        """Return how much more it costs, about and at most, with twice the max_tokens: only cut-off answers get longer.

        None where no answer was seen, or the price is unknown.
        """
        limit = self.max_tokens
        if not terms.known or outputs is None or outputs.truncated_share is None or limit is None:
            return None
        cut_off = Decimal(outputs.truncated_share)

        def longer(size: int) -> Decimal:
            twice, once = self.usage(size, 2 * limit), self.usage(size, limit)
            return max(terms.mean_usd(twice, 2 * limit) - terms.mean_usd(once, limit), Decimal(0))

        total = total_usd(sizes, lambda size: longer(size) * cut_off)
        return _rounded(None if total is None else total * self.billed_factor)

    def again_usd(self, terms: Terms, requests: int) -> Decimal | None:
        """Return what it costs, about and at most, to ask so many cut-off requests again with twice the max_tokens.

        None where none of them was seen, or the price is unknown.
        """
        cut_off = [one for one in self.observed if one.truncated]
        if not terms.known or self.max_tokens is None or (requests and not cut_off):
            return None
        twice = 2 * self.max_tokens
        with localcontext(EXACT):
            dollars = [terms.mean_usd(self.usage(one.counted_tokens, twice), twice) for one in cut_off]
            each = _sum(dollars) / len(dollars) if dollars else Decimal(0)
            return _rounded(each * requests * self.billed_factor)

    def _total(self, terms: Terms, sizes: Counter[int], outputs: Outputs, tokens: float) -> Decimal:
        """Price all requests if they bring so many output tokens together."""
        requests = sizes.total()

        def output(size: int) -> float:
            if not outputs.expected:  # nothing was ever answered; all the more may come
                return tokens / requests
            return outputs.per_request(size) * tokens / outputs.expected

        def dollars(size: int) -> Decimal:
            brings = output(size)
            return terms.mean_usd(self.usage(size, brings), brings)

        return total_usd(sizes, dollars) or Decimal(0)

    def _dollars(self, terms: Terms, size: int, outputs: Outputs) -> Decimal:
        """Price a request of this size as it is expected."""
        brings = outputs.per_request(size)
        return terms.mean_usd(self.usage(size, brings), brings)

    def _used_usd(self, terms: Terms, one: Used) -> Decimal:
        return _sum(terms.usd(each.usage) for each in one.exchanges) * self.billed_factor


def _billed_usd(one: Used) -> Decimal | None:
    billed = [each.billed_usd for each in one.exchanges if each.billed_usd is not None]
    return _sum(billed) if len(billed) == len(one.exchanges) else None


def _sum(dollars: Iterable[Decimal]) -> Decimal:
    return sum(dollars, Decimal(0))


def _rounded(usd: Decimal | None) -> Decimal:
    with localcontext(EXACT):
        return (usd or Decimal(0)).quantize(COST_UNIT)
