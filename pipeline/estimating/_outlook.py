"""What is known from before about how the next requests of a job will turn out, and what that makes them cost."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from math import sqrt
from typing import Literal

from pipeline.estimating._groups import Group, cut_off_group
from pipeline.estimating._terms import Terms
from pipeline.estimating._to_send import EXACT, ToSend, total_usd
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
from pipeline.pricing import COST_UNIT, Mix, Price, cost_usd
from pipeline.records import Usage

LEAST_USED = 30
"""Fewer requests than this say nothing about how counts and bills differ."""
CLEARLY_LESS = 0.2
"""What is left unexplained, in squares, must be so much less to prefer one explanation to the other."""
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
    price: Price | None = None
    """The one in force now."""
    answered: bool = False
    """Whether requests of the job were answered at all, with their usage or without."""
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

    @property
    def guessed(self) -> bool:
        """Whether some answers were cut off at a lower limit, so that their length is a guess."""
        return bool(self._guessed)

    @cached_property
    def _guessed(self) -> set[str]:
        return {one.key for one in self.used if one.truncated and is_raised(one.max_tokens, self.max_tokens)}

    @property
    def most_tokens(self) -> int | None:
        """Output tokens that one request can bring, its repairs included; None: any number."""
        return None if self.max_tokens is None else self.max_tokens * (1 + self.repair)

    @cached_property
    def exchanges_each(self) -> Decimal:
        """Answers that a request takes, its repairs included; 1 as long as nobody knows better."""
        if not self.used:
            return Decimal(1)
        with localcontext(EXACT):
            return Decimal(sum(len(one.exchanges) for one in self.used)) / len(self.used)

    @cached_property
    def input_ratio(self) -> Fraction:
        """Input tokens that are billed for a request, repairs included, for one that was counted.

        1 for each exchange as long as nobody knows better.
        """
        counted = sum(one.counted_tokens for one in self.used)
        if len(self.used) >= LEAST_USED and counted:
            return Fraction(sum(one.input_tokens for one in self.used), counted)
        return self.exchange_ratio * Fraction(self.exchanges_each)

    @cached_property
    def exchange_ratio(self) -> Fraction:
        """The same for one exchange, on average: context tiers go by it, as each exchange is priced by itself."""
        counted = sum(one.counted_tokens for one in self.used)
        if len(self.used) >= LEAST_USED and counted:
            return self.input_ratio / Fraction(self.exchanges_each)
        return Fraction(1) if self.calibration is None else Fraction(self.calibration.ratio)

    @cached_property
    def billed_beyond(self) -> Fraction:
        """Input tokens that are billed for an exchange beyond those counted, however long it is; 0: a ratio fits too.

        A ratio would be far off for requests longer than those seen where a server adds its own words to each, or does
        not bill a schema that was counted.
        """
        pairs = self._first_bills
        if len(pairs) < LEAST_USED:
            return Fraction(0)
        ratio = float(self.exchange_ratio)
        beyond = Fraction(sum(billed - counted for counted, billed in pairs), len(pairs))
        rounding = len(pairs) / 4  # half a token each: what is left may be no more than that
        by_ratio = sum((billed - counted * ratio) ** 2 for counted, billed in pairs) + rounding
        by_offset = sum((billed - counted - float(beyond)) ** 2 for counted, billed in pairs) + rounding
        return beyond if by_offset < by_ratio * CLEARLY_LESS else Fraction(0)

    def billed_input(self, counted: int) -> Fraction:
        """Return the input tokens that are billed for an exchange of so many counted ones, on average."""
        if not self.billed_beyond:
            return counted * self.exchange_ratio
        return max(counted + self.billed_beyond, counted * min(self._least_ratio, Fraction(1)))

    def exchange_input(self, counted: int) -> Fraction:
        """Return the same on average over all exchanges of such requests: a repair's are longer."""
        return self.billed_input(counted) * self._repairs_factor

    @cached_property
    def _repairs_factor(self) -> Fraction:
        """What was billed for a token that `billed_input` makes of the requests seen."""
        each = Fraction(self.exchanges_each)
        modelled = sum((self.billed_input(one.counted_tokens) * each for one in self.used), Fraction(0))
        if len(self.used) < LEAST_USED or not modelled:
            return Fraction(1)
        return sum(one.input_tokens for one in self.used) / modelled

    @cached_property
    def _first_bills(self) -> list[tuple[int, int]]:
        """Counted and billed tokens of requests that were not repaired: a repair is longer than what was counted."""
        return [
            (one.counted_tokens, one.input_tokens)
            for one in self.used
            if len(one.exchanges) == 1 and one.counted_tokens
        ]

    @cached_property
    def _least_ratio(self) -> Fraction:
        """What was billed at least for a counted token: requests shorter than those seen are not free."""
        return min(Fraction(billed, counted) for counted, billed in self._first_bills)

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
        """What a provider that says what it charges charged for a dollar that today's price makes of it; else 1.

        The dollars that were computed then don't count: their price may have been corrected since.
        """
        said = [each for one in self.used for each in one.exchanges if each.billed_usd is not None]
        priced = [(each.billed_usd, self._today_usd(each)) for each in said]
        known = [(billed, usd) for billed, usd in priced if billed is not None and usd is not None]
        computed = _sum(usd for _, usd in known)
        if not computed:
            return Decimal(1)
        with localcontext(EXACT):
            return _sum(billed for billed, _ in known) / computed

    def _today_usd(self, exchange: Exchange) -> Decimal | None:
        """Price an exchange as it would be booked today: at the hour it was sent, at an older price if that held then.

        (Nobody asks whether the older one was right.)
        """
        price, sent_at = self.price, exchange.sent_at
        if price is None:
            return None
        begins = price.effective_from
        if begins is not None and sent_at is not None and sent_at < datetime.combine(begins, time(), UTC):
            return exchange.computed_usd
        return cost_usd(price, exchange.usage, at=sent_at)

    @cached_property
    def seconds_each(self) -> float | None:
        """Mean time that a request is on the wire; None if nobody knows."""
        return sum(one.seconds for one in self.used) / len(self.used) if self.used else None

    def groups(self, to_send: ToSend) -> list[Group]:
        """Forecast requests that are to be sent; none if neither an answer nor max_tokens says anything.

        Those that were cut off before get longer than that, whatever all the others do.
        """
        outputs = self.outputs(to_send.fresh)
        cut_off = to_send.cut_off
        if outputs is None and (to_send.fresh or not cut_off):
            return []
        seen = [one for one in self.observed if one.key not in self._guessed]
        found = [] if outputs is None else [Group(to_send.fresh, outputs)]
        basis = "limit" if outputs is None else outputs.basis
        most = self.most_tokens if self.used else self.max_tokens  # of repairs nothing is known before any answer
        found += [
            cut_off_group(
                least, cut_off[least], seen, basis=basis, most_tokens=most, seed=_SEED, resamples=self.resamples
            )
            for least in sorted(cut_off)
        ]
        return found

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
        """Say what one exchange of so many counted tokens will be billed for, if its output is so long."""
        billed = round(self.billed_input(input_tokens))
        return Usage(
            billed,
            int(output_tokens),
            cached_input_tokens=round(billed * self.cached_share),
            cache_write_tokens=int(billed * self.written_share),
            reasoning_tokens=int(output_tokens * self.reasoning_share),
        )

    def bill(self, terms: Terms, groups: Sequence[Group]) -> Bill | None:
        """Price requests by size; None if price or output is unknown."""
        if not groups:
            return None
        if not terms.known:
            return self._as_billed(groups)
        bills = [self._group_bill(terms, group) for group in groups]
        low, expected, high = (_sum(amounts) for amounts in zip(*bills, strict=True))
        return Bill(_rounded(low), _rounded(expected), _rounded(high))

    def _group_bill(self, terms: Terms, group: Group) -> tuple[Decimal, Decimal, Decimal]:
        sizes, outputs = group.sizes, group.outputs
        if self.used and group.least is None:
            return self._observed_bill(terms, sizes, outputs)
        scale = self._scale(terms) if self.used else Decimal(1)
        with localcontext(EXACT):
            low, expected, high = (
                self._total(terms, sizes, outputs, tokens) * scale
                for tokens in (outputs.low, outputs.expected, outputs.high)
            )
        return low, expected, high

    def _scale(self, terms: Terms) -> Decimal:
        """Return what observed requests did cost for a dollar of their own tokens, priced as those of the next ones."""
        brought = _sum(self._used_usd(terms, one) for one in self.observed)
        taken = _sum(self._priced(terms, one.counted_tokens, one.output_tokens) for one in self.observed)
        with localcontext(EXACT):
            return brought / taken if taken else Decimal(1)

    def _observed_bill(self, terms: Terms, sizes: Counter[int], outputs: Outputs) -> tuple[Decimal, Decimal, Decimal]:
        """Price what the observed requests did use, beside what is expected of them in the same way.

        So whatever makes requests dear has its part in the figure and in the interval: input that is billed otherwise
        than counted, repairs, fees, reasoning, caches.
        """
        brought = [self._used_usd(terms, one) for one in self.observed]
        fitted = [
            self._priced(terms, one.counted_tokens, outputs.per_request(one.counted_tokens)) for one in self.observed
        ]
        with localcontext(EXACT):
            scale = _sum(brought) / _sum(fitted) if any(fitted) else Decimal(1)
            expected = self._total(terms, sizes, outputs, outputs.expected) * scale
            if len(brought) < FEW or not any(fitted):
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
        return min(low, expected), expected, max(high, expected)

    def _as_billed(self, groups: Sequence[Group]) -> Bill | None:
        """Forecast from what the provider said it charged, where there is no price."""
        sizes = groups[0].sizes
        billed = [_billed_usd(one) for one in self.used]
        known = [dollars for dollars in billed if dollars is not None]
        # Then answers get longer or shorter, and nobody has a price.
        other_limits = self.observed != list(self.used) or any(group.least is not None for group in groups)
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
        return _rounded(total_usd(sizes, lambda size: self._priced(terms, size, 0))) if terms.known else None

    def known_usd(self, terms: Terms) -> Decimal | None:
        """Return what an answered request did use on average, at these prices; None without any, or without a price."""
        if not self.used or not terms.known:
            return None
        return _rounded(_sum(self._used_usd(terms, one) for one in self.used) / len(self.used))

    def longer_usd(self, terms: Terms, groups: Sequence[Group]) -> Decimal | None:
        """Return how much more it costs, about and at most, with twice the max_tokens: only cut-off answers get longer.

        None where no answer was seen, or the price is unknown.
        """
        limit = self.max_tokens
        seen = [group for group in groups if group.outputs.truncated_share is not None]
        if not terms.known or not seen or limit is None:
            return None

        def longer(size: int) -> Decimal:
            twice, once = self.usage(size, 2 * limit), self.usage(size, limit)
            return max(terms.mean_usd(twice, 2 * limit) - terms.mean_usd(once, limit), Decimal(0))

        with localcontext(EXACT):
            totals = [
                (total_usd(group.sizes, longer) or Decimal(0)) * Decimal(group.outputs.truncated_share or 0)
                for group in seen
            ]
            return _rounded(_sum(totals) * self.billed_factor)

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
            return self._priced(terms, size, output(size))

        return total_usd(sizes, dollars) or Decimal(0)

    def _priced(self, terms: Terms, size: int, brings: float) -> Decimal:
        """Price a request of this size that brings so many output tokens, in as many exchanges as others took."""
        if self.exchanges_each == 1:
            return terms.mean_usd(self.usage(size, brings), brings)
        each = brings / float(self.exchanges_each)
        with localcontext(EXACT):
            return terms.mean_usd(self.usage(size, each), each) * self.exchanges_each

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
