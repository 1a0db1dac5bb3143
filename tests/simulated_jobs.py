"""Jobs whose every answer's length is known: what a forecast from some of their rows is measured against."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import starmap
from typing import NamedTuple

from pipeline.forecasting import Observed

Row = tuple[float, float]
"""Input and output tokens, before rounding and the limit."""


class Family(NamedTuple):
    """One way in which lengths of answers are distributed."""

    max_tokens: int
    row: Callable[[random.Random], Row]


def _input(dice: random.Random) -> float:
    return dice.lognormvariate(5.7, 0.6)  # 300 in the middle, 800 in the longest twentieth


def _flat(dice: random.Random) -> Row:
    return _input(dice), dice.gauss(150, 30)


def _proportional(dice: random.Random) -> Row:
    size = _input(dice)
    return size, 0.3 * size * dice.lognormvariate(0, 0.3)


def _heavy(dice: random.Random) -> Row:
    return _input(dice), dice.lognormvariate(5.3, 1.2)  # 200 in the middle


def _mixture(dice: random.Random) -> Row:
    return _input(dice), dice.gauss(100, 20) * (20 if dice.random() < 0.05 else 1)


def _uneven_mixture(dice: random.Random) -> Row:
    return _input(dice), dice.lognormvariate(4.6, 0.5) * (20 if dice.random() < 0.05 else 1)


def _proportional_cut(dice: random.Random) -> Row:
    size = dice.lognormvariate(6, 0.9)
    return size, 0.5 * size * dice.lognormvariate(0, 0.3)


FAMILIES = {
    "flat": Family(1024, _flat),
    "proportional": Family(2048, _proportional),
    "proportional, often cut": Family(400, _proportional_cut),
    "heavy tail (lognormal 1.2)": Family(4096, _heavy),
    "heavy tail, cut sooner": Family(1500, _heavy),
    "1 in 20 is 20 times longer": Family(4096, _mixture),
    "the same, uneven": Family(4096, _uneven_mixture),
}


class Pilot(NamedTuple):
    """What is known of a job after some of its rows were answered, and what is not."""

    observed: list[Observed]
    sizes: Counter[int]
    """Input tokens of the rows that remain."""
    truth: int
    """Output tokens that those will bring."""
    outputs: list[int]
    """Of each of them, in the order of `inputs`."""
    inputs: list[int]


def job(family: Family, rows: int, dice: random.Random) -> list[Observed]:
    """Draw a job's rows, in random order."""
    return list(starmap(lambda size, length: _answered(family, size, length), (family.row(dice) for _ in range(rows))))


def _answered(family: Family, size: float, length: float) -> Observed:
    output = max(1, min(round(length), family.max_tokens))
    return Observed(max(1, round(size)), output, output == family.max_tokens)


def pilot(rows: list[Observed], answered: int) -> Pilot:
    """Answer the first rows: as good as any, as the order is random."""
    rest = rows[answered:]
    outputs, inputs = [row.output_tokens for row in rest], [row.input_tokens for row in rest]
    return Pilot(rows[:answered], Counter(inputs), sum(outputs), outputs, inputs)
