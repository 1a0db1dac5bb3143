"""How often the 90 % interval of a forecast holds the truth: of output tokens, and of bills.

    python benchmarks/forecasts.py [--jobs 1000] [--pilots 50 100] [--rows 2000 20000] [--seed 1]

Each line stands for so many simulated jobs of one kind: some rows are answered, the tokens of the rest are forecast
and compared with what they are. `below` and `above`: the truth lay there. `width` is that of the interval over the
truth (mean, and the middle job), `error` how far the expected total was off (middle job), `ratio` how often output was
forecast by its ratio to the input. The last kinds are bills, of which the output is not the only uncertain part.
"""

import argparse
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated_jobs import BILLED, FAMILIES, forecast_bill, job, pilot

from pipeline.forecasting import forecast_outputs


class Scored(NamedTuple):
    """One forecast against the truth."""

    below: bool
    above: bool
    width: float
    error: float
    ratio: bool = False


def score_bill(name: str, rows: int, answered: int, seed: int) -> Scored:
    """Simulate one job and its bill."""
    dice = random.Random(f"{name} {rows} {answered} {seed}")  # noqa: S311
    forecast, truth = forecast_bill([BILLED[name](dice) for _ in range(rows)], answered)
    return Scored(
        below=truth < forecast.low,
        above=truth > forecast.high,
        width=float((forecast.high - forecast.low) / truth),
        error=abs(float(forecast.expected / truth) - 1),
    )


def score(name: str, rows: int, answered: int, seed: int) -> Scored:
    """Simulate one job."""
    family = FAMILIES[name]
    known = pilot(job(family, rows, random.Random(f"{name} {rows} {answered} {seed}")), answered)  # noqa: S311
    forecast = forecast_outputs(known.observed, known.sizes, basis="pilot", max_tokens=family.max_tokens, seed=seed)
    return Scored(
        below=known.truth < forecast.low,
        above=known.truth > forecast.high,
        width=(forecast.high - forecast.low) / known.truth,
        error=abs(forecast.expected / known.truth - 1),
        ratio=forecast.estimator == "ratio",
    )


def line(name: str, rows: int, answered: int, scores: list[Scored]) -> str:
    """Return one line of the table."""
    below, above = fmean(one.below for one in scores), fmean(one.above for one in scores)
    widths, errors = [one.width for one in scores], [one.error for one in scores]
    shares = f"{1 - below - above:>9.1%} {below:>7.1%} {above:>7.1%}"
    return (
        f"{name:<35} {rows:>6,} {answered:>6} {shares} {fmean(widths):>7.0%} {median(widths):>7.0%} "
        f"{median(errors):>7.1%} {fmean(one.ratio for one in scores):>6.0%}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--pilots", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.seed * 1_000_000, arguments.seed * 1_000_000 + arguments.jobs)
    titles = f"{'covered':>9} {'below':>7} {'above':>7} {'width':>7} {'middle':>7} {'error':>7} {'ratio':>6}"
    say(f"{'kind':<35} {'rows':>6} {'pilot':>6} {titles}")
    with ProcessPoolExecutor() as processes:
        for name, rows, answered in product([*FAMILIES, *BILLED], arguments.rows, arguments.pilots):
            scorer = score if name in FAMILIES else score_bill
            scores = list(processes.map(partial(scorer, name, rows, answered), seeds, chunksize=10))
            say(line(name, rows, answered, scores))


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
