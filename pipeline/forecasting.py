"""How many output tokens the requests still to be sent will bring, from those already answered. Pure: no I/O, no clock.

Input tokens are counted, output tokens are not known until they are paid for. What is forecast here is their total
over the requests that remain, with a 90 % interval: in nine of ten jobs the bill should lie inside, and
benchmarks/forecasts.py measures how often it does. No interval sees what the observed answers show no trace of: if one
row in a hundred is very long, 37 % of all pilots of 100 rows hold none of those.

`Projection` compares a run with such an interval while it goes on, `Beginning` one whose end is not planned yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import cos, fsum, inf, pi, sqrt
from operator import mul
from random import Random
from statistics import fmean
from typing import Literal, NamedTuple

Basis = Literal["pilot", "history", "limit"]
"""What a forecast rests on: a pilot's answers, other answers of the job, or nothing but `max_tokens`."""
Estimator = Literal["mean", "ratio"]
"""Output tokens per request, or per input token."""
Side = Literal["above", "below"]

LEAST_OBSERVED = 50
"""With fewer answers than this a forecast is rough."""
RESAMPLES = 999
"""One less than a round number, so that both bounds of 90 % are one of the resamples."""
TAIL = 0.05
"""What is left out at each end of the interval."""
LIMIT_SHARE = 0.5
"""Assumed where nothing was observed: answers are half of max_tokens long. Nobody knows; of all guesses this one is
wrong by the least if it is as wrong as can be."""
FEW = 10
"""Fewer answers than this say little of how far others spread: the interval is then at least as wide as if outputs were
exponentially distributed."""
LONE_FACTOR, FEW_POWER = 20.0, -0.75
"""That is up to twenty times the one answer there is, or LONE_FACTOR ** (n ** FEW_POWER) times the mean of n."""
STEADYING = 3
"""As if so many observations had the spread of all observed in every resample. Without it, an observed tail of one or
two answers, which many resamples lack, makes intervals up to three times as wide, and they cover no more."""
MOST_RESAMPLED = 500
"""More answers than this are resampled in so many groups."""
MOST_DRAWN = 200
"""The total's own randomness is drawn request by request up to so many; that of more is taken as normal."""

LEAST_ANSWERED, LEAST_ANSWERED_SHARE = 50, Decimal("0.02")
"""A projection needs so many answers, and this share of all."""
STANDARD_ERRORS = 3.0
"""A projection must be farther than this from the interval: two would be passed by chance too often, as every look at a
run is another chance."""
LEAST_LOOKS = 10
"""From fewer looks it is not known well enough how much requests differ."""
WORTH_SAYING = Decimal("0.05")
"""And by more than this share of the interval's bound: where all answers are alike an interval has no width, and the
first requests of a run differ a little from the rest, by shorter ids for example."""


class Observed(NamedTuple):
    """One answered request."""

    input_tokens: int
    """As we counted it."""
    output_tokens: int
    """As the provider billed it, reasoning included."""
    truncated: bool
    """It hit max_tokens."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Forecast of the output tokens of the requests still to be sent: totals over all of them, 90 % interval."""

    basis: Basis
    estimator: Estimator | None
    """None for the basis `limit`."""
    observed: int
    rough: bool
    low: float
    expected: float
    high: float
    truncated_share: float | None
    """Of the observed; None if nothing was observed."""
    rate: float
    """Expected output tokens per input token with the estimator `ratio`, else per request."""
    max_tokens: int | None
    """No request is expected to bring more."""

    def per_request(self, input_tokens: int) -> float:
        """Return the expected output tokens of one request of this size; those of all requests make `expected`."""
        return _expected(self.estimator, self.rate, input_tokens, self.max_tokens)


def forecast_outputs(
    observed: Sequence[Observed],
    sizes: Mapping[int, int],
    *,
    basis: Literal["pilot", "history"],
    max_tokens: int | None,
    seed: int,
    resamples: int = RESAMPLES,
) -> Outputs:
    """Forecast from answers to rows chosen at random; `sizes`: input tokens -> number of requests still to be sent.

    Of the mean and the ratio to the input that estimator is used whose total has the smaller estimated variance. An
    observed answer longer than max_tokens counts as one of max_tokens.

    The interval is for the total of a finite remainder: the error of the estimate and the remaining answers' own
    randomness are both in it. Its shape comes from a studentized bootstrap (bootstrap-t), because output tokens are
    skewed: a pilot that misses long answers sees too small a mean and too small a spread at once, and only a bootstrap
    of error over spread widens the upper side for it. (The plain percentile interval covered 80-88 % of heavy-tailed
    totals, from 50 to 100 observations.) Resamples weight the observations with Beta(1/2, 3/2) weights instead of
    drawing some and leaving out others: second-order accurate as the usual bootstrap-t, with shorter intervals that are
    never infinite (A. B. Owen, "Better bootstrap t confidence intervals for the mean", arXiv 2508.10083, 2025).

    Raises ValueError if nothing was observed.
    """
    if not observed:
        raise ValueError("a forecast needs at least one answered request; without any, use forecast_from_limit")
    fit = _best_fit(observed, sizes, max_tokens)
    low, high = _interval(fit, Random(seed), resamples)  # noqa: S311 -- a simulation that has to be repeatable
    return Outputs(
        basis=basis,
        estimator=fit.estimator,
        observed=len(observed),
        rough=len(observed) < LEAST_OBSERVED,
        low=min(max(low, 0.0), fit.total),
        expected=fit.total,
        high=max(_cut(high, None if max_tokens is None else max_tokens * fit.requests), fit.total),
        truncated_share=sum(one.truncated for one in observed) / len(observed),
        rate=fit.rate,
        max_tokens=max_tokens,
    )


def interval_of_total(
    fitted: Sequence[float],
    brought: Sequence[float],
    rest: float,
    requests: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the 90 % interval for what `requests` more bring together, of which `rest` is expected: dollars, say.

    `fitted` is what was expected of each observed request in the same way, `brought` what it did bring; they have the
    same sum, and the interval is as in `forecast_outputs`. Never below zero. Raises ValueError below FEW observations:
    they say too little of anything that is not their output alone.
    """
    if len(fitted) < FEW:
        raise ValueError(f"an interval needs {FEW} observations, not {len(fitted)}")
    residuals = [one - expected for one, expected in zip(brought, fitted, strict=True)]
    fit = _Fit("ratio", 1.0, list(fitted), residuals, requests, rest)
    low, high = _interval(fit, Random(seed), resamples)  # noqa: S311 -- a simulation that has to be repeatable
    return min(max(low, 0.0), rest), max(high, rest)


def forecast_from_limit(sizes: Mapping[int, int], max_tokens: int | None) -> Outputs | None:
    """Forecast without any answer: between nothing and max_tokens each, and half of it (LIMIT_SHARE) by assumption.

    None without max_tokens: then anything is possible.
    """
    if max_tokens is None:
        return None
    most = float(max_tokens * sum(sizes.values()))
    return Outputs(
        basis="limit",
        estimator=None,
        observed=0,
        rough=True,
        low=0.0,
        expected=LIMIT_SHARE * most,
        high=most,
        truncated_share=None,
        rate=LIMIT_SHARE * max_tokens,
        max_tokens=max_tokens,
    )


_GRID = 32
_WEIGHTS = [
    (u + 0.5) / _GRID * cos(pi / 2 * (v + 0.5) / _GRID) ** 2  # the square of an abscissa in the unit disc
    for u in range(_GRID)
    for v in range(_GRID)
]
"""Evenly spaced values of Beta(1/2, 3/2); drawing from them is far quicker than from the distribution."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """One estimator on the observed answers.

    Where every request is expected to bring the same, the ratio to what is expected is the mean; so what follows knows
    one estimator only: the ratio of what was brought to what was expected, which is 1.
    """

    estimator: Estimator
    rate: float
    fitted: list[float]
    """Expected output tokens of each observed request; they add up to what was observed."""
    residuals: list[float]
    """What each brought beyond that."""
    requests: int
    """How many remain."""
    total: float
    """Expected output tokens of those."""

    @property
    def spread(self) -> float:
        """Standard deviation of one answer from what is expected of it."""
        return _root_mean_square(self.residuals)

    @property
    def estimate_weight(self) -> float:
        """Variance that the estimate's error brings into the total, where one answer has a variance of 1."""
        observed = fsum(self.fitted)
        return (self.total / observed) ** 2 * len(self.fitted) if observed else 0.0

    @property
    def standard_error(self) -> float:
        """Of the total: the estimate's error and the remaining answers' own randomness."""
        return self.spread * sqrt(self.requests + self.estimate_weight)


def _best_fit(observed: Sequence[Observed], sizes: Mapping[int, int], max_tokens: int | None) -> _Fit:
    capped = [
        one if max_tokens is None or one.output_tokens <= max_tokens else one._replace(output_tokens=max_tokens)
        for one in observed
    ]
    mean = _fit("mean", fmean(one.output_tokens for one in capped), capped, sizes, max_tokens)
    rate = _ratio(capped, max_tokens)
    if rate is None:
        return mean
    ratio = _fit("ratio", rate, capped, sizes, max_tokens)
    return ratio if ratio.standard_error < mean.standard_error else mean


def _fit(
    estimator: Estimator,
    rate: float,
    observed: Sequence[Observed],
    sizes: Mapping[int, int],
    max_tokens: int | None,
) -> _Fit:
    fitted = [_expected(estimator, rate, one.input_tokens, max_tokens) for one in observed]
    residuals = [one.output_tokens - expected for one, expected in zip(observed, fitted, strict=True)]
    total = fsum(_expected(estimator, rate, size, max_tokens) * requests for size, requests in sizes.items())
    return _Fit(estimator, rate, fitted, residuals, sum(sizes.values()), total)


def _ratio(observed: Sequence[Observed], max_tokens: int | None) -> float | None:
    """Output tokens per input token, so that what is expected of the observed, cut at max_tokens, is what they brought.

    What the cut takes from large requests has to come from the others, so the plain ratio is only the first step.
    (Newton's method on a concave line of straight pieces: each step cuts more requests, or is the last.) None if no
    ratio does it.
    """
    inputs, outputs = [one.input_tokens for one in observed], sum(one.output_tokens for one in observed)
    free, wanted = sum(inputs), outputs
    while free > 0:
        rate = wanted / free
        uncut = [size for size in inputs if max_tokens is None or rate * size <= max_tokens]
        if sum(uncut) == free:
            return rate
        free, wanted = sum(uncut), outputs - (max_tokens or 0) * (len(inputs) - len(uncut))
    return None


def _interval(fit: _Fit, dice: Random, resamples: int) -> tuple[float, float]:
    low = high = fit.total
    error = fit.standard_error
    if error:
        errors = sorted(_errors(fit, dice, resamples))
        rank = max(round(TAIL * (resamples + 1)), 1)
        low, high = fit.total + errors[rank - 1] * error, fit.total + errors[-rank] * error
    observed = len(fit.fitted)
    if observed < FEW:
        factor = LONE_FACTOR ** (observed**FEW_POWER)
        low, high = min(low, fit.total / factor), max(high, max(fit.total, float(fit.requests)) * factor)
    return low, high


def _errors(fit: _Fit, dice: Random, resamples: int) -> Iterator[float]:
    """Draw the error of the total (true minus expected) in estimated standard errors: bootstrap-t."""
    fitted, residuals = _groups(fit, dice)
    observed, average = len(fitted), fsum(fitted) / len(fitted)
    share = fit.estimate_weight / (fit.requests + fit.estimate_weight)
    of_estimate, of_rest, rest = sqrt(share * observed), sqrt(1 - share), _rest(fit, dice)
    for _ in range(resamples):
        weights = dice.choices(_WEIGHTS, k=observed)
        weight, size = sum(weights), sum(map(mul, weights, fitted))
        off = sum(map(mul, weights, residuals)) / size
        squares = [(residual - off * expected) ** 2 for residual, expected in zip(residuals, fitted, strict=True)]
        stretch = average * weight / size  # a resample of small requests: its errors are multiplied by more
        variance = stretch**2 * sum(map(mul, weights, squares)) / weight
        steadied = (observed * variance + STEADYING) / (observed + STEADYING)
        yield (of_rest * next(rest) - of_estimate * off * average) / sqrt(steadied)


def _groups(fit: _Fit, dice: Random) -> tuple[list[float], list[float]]:
    """Return what was expected of the observed and the residuals, these scaled to a variance of 1.

    Many observations are added up in groups at random: the sum of all is as skewed as before, and less work.
    """
    fitted, residuals = fit.fitted, fit.residuals
    if len(fitted) > MOST_RESAMPLED:
        order = dice.sample(range(len(fitted)), len(fitted))
        groups = [order[first::MOST_RESAMPLED] for first in range(MOST_RESAMPLED)]
        fitted = [fsum(fitted[index] for index in group) for group in groups]
        residuals = [fsum(residuals[index] for index in group) for group in groups]
    return fitted, _scaled(residuals)


def _rest(fit: _Fit, dice: Random) -> Iterator[float]:
    """Draw the remaining answers' own deviation, scaled to a variance of 1."""
    if fit.requests > MOST_DRAWN:
        while True:
            yield dice.gauss(0.0, 1.0)
    residuals, root = _scaled(fit.residuals), sqrt(fit.requests)
    while True:
        yield sum(dice.choices(residuals, k=fit.requests)) / root


def _scaled(values: list[float]) -> list[float]:
    unit = _root_mean_square(values) or 1.0
    return [value / unit for value in values]


def _root_mean_square(values: Sequence[float]) -> float:
    return sqrt(fsum(map(mul, values, values)) / len(values))


def _expected(estimator: Estimator | None, rate: float, input_tokens: int, max_tokens: int | None) -> float:
    return _cut(rate * input_tokens if estimator == "ratio" else rate, max_tokens)


def _cut(tokens: float, most: int | None) -> float:
    return tokens if most is None else min(tokens, float(most))


class Course:
    """A run so far: what its answered requests cost, and how much one differs from another.

    It outlives the estimates that the run is held against.
    """

    def __init__(self) -> None:
        self.done, self.spent = 0, Decimal(0)
        self.said = False
        """It was said that the run leaves its estimate: once is enough."""
        self._looks, self._mean, self._squares = 0, 0.0, 0.0

    def look(self, done: int, spent: Decimal) -> None:
        """Take in how far the run is; `done`: requests whose cost is known; `spent`: what they cost together.

        Both are running sums since the run began. The more often this is called, the better it knows how much requests
        differ.
        """
        requests, usd = done - self.done, spent - self.spent
        if requests > 0:  # Welford's running mean and sum of squares, of batches weighted by their size
            self._looks += 1
            off = float(usd) / requests - self._mean
            self._mean += off * requests / done
            self._squares += requests * off * (float(usd) / requests - self._mean)
        self.done, self.spent = done, spent

    def projected_usd(self, total: int) -> Decimal | None:
        """Return the cost of `total` requests if they cost what those that are done did on average.

        None until LEAST_ANSWERED, and LEAST_ANSWERED_SHARE of all, are done.
        """
        if self.done < LEAST_ANSWERED or self.done < LEAST_ANSWERED_SHARE * total:
            return None
        return self.spent / self.done * total

    def error_of_all(self, total: int) -> float:
        """Return the standard error of a projection to `total` requests, those that are done included."""
        left = max(total - self.done, 0)
        return self._error(left + left**2 / self.done)

    def error_of_mean(self, requests: int) -> float:
        """Return the standard error of so many times the mean: of others like them, however many there are."""
        return self._error(requests**2 / self.done)

    def _error(self, variances: float) -> float:
        """Return the root of so many variances of one request; how batches differ tells how much one varies."""
        return inf if self._looks < LEAST_LOOKS else sqrt(self._squares / (self._looks - 1) * variances)


class Projection:
    """What a run will cost in all, and whether that leaves the estimate's interval, while it goes on.

    Pure bookkeeping; whoever runs says what was answered. It takes the order of the rows as chance: a dataset sorted by
    length misleads it until the long rows come.
    """

    def __init__(
        self,
        low_usd: Decimal,
        expected_usd: Decimal,
        high_usd: Decimal,
        to_send: int,
        *,
        complete: bool,
        course: Course,
    ) -> None:
        """Take the estimate for `to_send` requests; `complete`: these were all that the input holds."""
        self.low_usd, self.expected_usd, self.high_usd = low_usd, expected_usd, high_usd
        self._to_send, self._complete = to_send, complete
        self._course = course

    def outside(self, total: int) -> Side | None:
        """Return on which side a run of `total` requests leaves the interval, once, and None ever after.

        Where the estimate did not see the whole input, the run is measured on as many requests as the estimate counted.
        """
        course = self._course
        compared = max(total, self._to_send) if self._complete else self._to_send
        projected = course.projected_usd(compared)
        if projected is None:
            return None
        return _left(course, projected, (self.low_usd, self.high_usd), course.error_of_all(compared))


class Beginning:
    """The first requests of a run, held against what was estimated for them while the rest is not planned yet.

    Rows may be sorted, so later ones are no measure for these: it says nothing when more requests are done than it
    knows of.
    """

    def __init__(self, low_usd: Decimal, high_usd: Decimal, requests: int, course: Course) -> None:
        """Take the estimate for the first `requests`."""
        self.low_usd, self.high_usd, self.requests = low_usd, high_usd, requests
        self._course = course

    def outside(self) -> Side | None:
        """Return on which side these requests leave the interval, once, and None ever after."""
        course, requests = self._course, self.requests
        projected = course.projected_usd(requests)
        if projected is None or course.done > requests:
            return None
        # Not `error_of_all`, which is 0 in the end: the first of a run may well be outside when the run is not.
        return _left(course, projected, (self.low_usd, self.high_usd), course.error_of_mean(requests))


def _left(course: Course, projected: Decimal, interval: tuple[Decimal, Decimal], error: float) -> Side | None:
    """Return on which side a projection is far enough outside of an interval, if that was not said of the run yet."""
    low, high = interval
    side: Side = "above" if projected > high else "below"
    bound = high if side == "above" else low
    beyond = projected - high if side == "above" else low - projected
    if course.said or beyond <= WORTH_SAYING * bound or float(beyond) < STANDARD_ERRORS * error:
        return None
    course.said = True
    return side
