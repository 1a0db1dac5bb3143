"""Jobs whose every answer's length, or bill, is known: what a forecast from some of their rows is measured against."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import starmap
from typing import NamedTuple

from pipeline.estimating import Bill, Outlook
from pipeline.estimating._groups import Group
from pipeline.estimating._terms import Terms
from pipeline.forecasting import Observed
from pipeline.ledger import Exchange, Used
from pipeline.pricing import Price, Share, cost_usd
from pipeline.records import Usage

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


# -- bills: it is not the output alone that varies


MOST_TOKENS = 500
PRICE = Price("p", "m", Decimal("0.25"), Decimal("2.00"), reasoning=Decimal("4.00"))


def used(*usages: Usage, counted: int) -> Used:
    """A request and what its attempts were billed for."""
    exchanges = tuple(Exchange(usage, truncated=False) for usage in usages)
    return Used("k", counted, exchanges, 1.0, MOST_TOKENS)


def _counted(dice: random.Random) -> int:
    return round(dice.lognormvariate(5, 0.6)) + 1


def _verdict(dice: random.Random) -> Used:
    counted = _counted(dice)
    return used(Usage(round(counted * dice.gauss(1.1, 0.08)) + 7, 1), counted=counted)


def _repaired(dice: random.Random) -> Used:
    counted, output = _counted(dice), max(1, round(dice.gauss(100, 20)))
    usages = [Usage(counted, output)]
    if dice.random() < 0.2:
        usages.append(Usage(counted + output + 40, output))
    return used(*usages, counted=counted)


def _reasoned(dice: random.Random) -> Used:
    counted, thought = _counted(dice), min(round(dice.lognormvariate(4, 0.7)), 400)
    return used(Usage(counted, thought + 20, reasoning_tokens=thought), counted=counted)


BILLED: dict[str, Callable[[random.Random], Used]] = {
    "a word, billed as counted elsewhere": _verdict,
    "one in five repaired": _repaired,
    "reasoning at twice the rate": _reasoned,
}


def forecast_bill(rows: list[Used], answered: int) -> tuple[Bill, Decimal]:
    """Forecast the bill of a job from its first rows; return it with the true one."""
    seen, rest = rows[:answered], rows[answered:]
    outlook, sizes = Outlook(seen, "pilot", None, MOST_TOKENS, 1), Counter(one.counted_tokens for one in rest)
    outputs = outlook.outputs(sizes)
    if outputs is None:
        raise AssertionError("max_tokens is known")
    terms = Terms([Share(PRICE, datetime(2026, 11, 24, tzinfo=UTC), 1)])
    found = outlook.bill(terms, [Group(sizes, outputs)])
    if found is None:
        raise AssertionError("price and output are known")
    truth = sum((cost_usd(PRICE, each.usage) for one in rest for each in one.exchanges), Decimal(0))
    return found, truth
