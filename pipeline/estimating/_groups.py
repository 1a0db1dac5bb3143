"""Requests that are to be sent, in groups whose answers are alike: those that were cut off before are long ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

from pipeline.forecasting import FEW, LONE_FACTOR, Basis, Observed, Outputs, forecast_outputs
from pipeline.ledger import Used


@dataclass(frozen=True, slots=True)
class Group:
    """Requests by size, and the forecast of their answers."""

    sizes: Counter[int]
    """Input tokens of a request -> how many requests have that many."""
    outputs: Outputs
    least: int | None = None
    """Each had so many output tokens when it was cut off; None: it has no answer yet."""

    @property
    def is_guess(self) -> bool:
        """Whether nothing but two limits says how long these answers get."""
        return self.least is not None and not self.outputs.observed


def together(groups: Sequence[Group]) -> Outputs:
    """Add forecasts up; the words are those of the first group that has requests.

    Ends are added to ends: a little wider than 9 of 10.
    """
    with_requests = [group for group in groups if group.sizes] or groups
    each = [group.outputs for group in with_requests]
    return replace(
        each[0],
        low=sum(one.low for one in each),
        expected=sum(one.expected for one in each),
        high=sum(one.high for one in each),
        rough=any(one.rough for one in each),
    )


def cut_off_group(
    least: int,
    sizes: Counter[int],
    seen: Sequence[Used],
    *,
    basis: Basis,
    most_tokens: int | None,
    seed: int,
    resamples: int,
) -> Group:
    """Forecast requests whose answers were cut off at `least` tokens, and are asked for under a higher limit.

    `seen`: answered requests of which it is known how long they get; those that got longer than that say how long these
    will be. `basis`: where they come from. `most_tokens`: all that one request can bring.
    """
    longer = [one for one in seen if any(each.usage.output_tokens > least for each in one.exchanges)]
    if basis == "limit" or len(longer) < FEW:
        return Group(sizes, _guessed(least, sizes.total(), most_tokens), least)
    observed = [Observed(one.counted_tokens, one.output_tokens, one.truncated) for one in longer]
    found = forecast_outputs(observed, sizes, basis=basis, max_tokens=most_tokens, seed=seed, resamples=resamples)
    floor = float(least * sizes.total())
    ends = {name: max(getattr(found, name), floor) for name in ("low", "expected", "high")}
    return Group(sizes, replace(found, **ends), least)


def _guessed(least: int, requests: int, most_tokens: int | None) -> Outputs:
    """Between what they had and all that is allowed; by assumption the middle of the two on a scale of ratios.

    Without a limit they may be LONE_FACTOR times as long: as wide as a forecast from one answer.
    """
    most = LONE_FACTOR * least if most_tokens is None else float(most_tokens)
    middle = sqrt(least * most)
    return Outputs(
        basis="limit",
        estimator=None,
        observed=0,
        rough=True,
        low=float(least * requests),
        expected=middle * requests,
        high=most * requests,
        truncated_share=None,
        rate=middle,
        max_tokens=most_tokens,
    )
