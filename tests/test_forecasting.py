"""Forecasts of output tokens, measured on jobs whose answers are known, and a run's projection."""

import random
from collections import Counter
from decimal import Decimal
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_jobs import FAMILIES, job, pilot

from pipeline.forecasting import (
    LEAST_OBSERVED,
    Beginning,
    Course,
    Observed,
    Projection,
    forecast_from_limit,
    forecast_outputs,
)
from pipeline.pricing import Price, cost_usd
from pipeline.records import Usage

JOBS, ROWS = 200, 2000
QUICK = 199
"""Resamples: fewer than in use, and again one less than a round number, so the bounds are as right on average."""
SEED = 1
PRICE = Price("modelslab", "gpt-oss-20b", Decimal("0.03"), Decimal("0.14"))


def pilots(name, answered, seed):
    """Jobs of a family: each draws its rows from the same 10,000, which is quicker than making them."""
    dice = random.Random(f"{name} {answered} {seed}")
    pool = job(FAMILIES[name], 10_000, dice)
    for _ in range(JOBS):
        yield pilot(dice.sample(pool, ROWS), answered)


def forecast(known, name, seed):
    limit = FAMILIES[name].max_tokens
    return forecast_outputs(known.observed, known.sizes, basis="pilot", max_tokens=limit, seed=seed, resamples=QUICK)


def answers(*outputs, size=100):
    return [Observed(size, output, truncated=False) for output in outputs]


def of(observed, sizes, max_tokens=None, seed=1, basis="pilot"):
    return forecast_outputs(observed, sizes, basis=basis, max_tokens=max_tokens, seed=seed)


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("flat", 50),
        ("proportional", 100),
        ("heavy tail (lognormal 1.2)", 50),
        ("1 in 20 is 20 times longer", 100),
    ],
)
def test_the_interval_holds_the_truth_in_nine_of_ten_jobs(name, answered):
    held, chosen = 0, Counter()
    for seed, known in enumerate(pilots(name, answered, SEED)):
        outputs = forecast(known, name, seed)
        held += outputs.low <= known.truth <= outputs.high
        chosen[outputs.estimator] += 1
    assert 0.85 <= held / JOBS <= 0.95
    if name in {"flat", "proportional"}:
        assert chosen == {"ratio" if name == "proportional" else "mean": JOBS}


def bill(inputs, outputs):
    """Return the dollars for so many tokens."""
    return (PRICE.input * inputs + PRICE.output * Decimal(outputs)) / 1_000_000


def test_the_interval_in_dollars_holds_the_bill_of_the_remaining_rows_in_nine_of_ten_jobs():
    name, held = "the same, uneven", 0
    for seed, known in enumerate(pilots(name, 100, SEED)):
        outputs, inputs = forecast(known, name, seed), sum(known.inputs)
        held += bill(inputs, outputs.low) <= bill(inputs, known.truth) <= bill(inputs, outputs.high)
    assert 0.85 <= held / JOBS <= 0.95
    rows = zip(known.inputs, known.outputs, strict=True)
    assert bill(inputs, known.truth) == sum(cost_usd(PRICE, Usage(*tokens)) for tokens in rows)


@pytest.mark.parametrize("remaining", [1, 5, 30])
def test_few_remaining_rows_bring_their_own_chance_into_the_interval(remaining):
    dice, held = random.Random(remaining), 0
    pool = job(FAMILIES["heavy tail (lognormal 1.2)"], 10_000, dice)
    for seed in range(JOBS):
        known = pilot(dice.sample(pool, 100 + remaining), 100)
        outputs = forecast(known, "heavy tail (lognormal 1.2)", seed)
        held += outputs.low <= known.truth <= outputs.high
    assert 0.85 <= held / JOBS <= 0.96


def test_a_history_of_thousands_holds_the_truth_as_often():
    dice, held = random.Random(SEED), 0
    pool = job(FAMILIES["1 in 20 is 20 times longer"], 20_000, dice)
    for seed in range(40):
        known = pilot(dice.sample(pool, 5000), 2500)
        outputs = forecast(known, "1 in 20 is 20 times longer", seed)
        held += outputs.low <= known.truth <= outputs.high
    assert 0.8 <= held / 40 <= 0.975


def test_the_interval_narrows_with_what_is_observed():
    rows = job(FAMILIES["heavy tail (lognormal 1.2)"], 4000, random.Random(SEED))
    widths = []
    for answered in (25, 100, 400, 1600):
        outputs = of(rows[:answered], {300: 10_000})
        widths.append((outputs.high - outputs.low) / outputs.expected)
    assert all(wide > 1.3 * narrow for wide, narrow in pairwise(widths))


def test_the_same_answers_and_seed_give_the_same_forecast():
    rows = job(FAMILIES["the same, uneven"], 600, random.Random(SEED))
    assert of(rows, {100: 50}, seed=3) == of(rows, {100: 50}, seed=3) != of(rows, {100: 50}, seed=4)


def test_what_each_request_is_expected_to_bring_adds_up_to_the_total():
    for name in FAMILIES:
        known = next(pilots(name, 100, SEED))
        outputs = forecast(known, name, 1)
        assert sum(outputs.per_request(size) * requests for size, requests in known.sizes.items()) == pytest.approx(
            outputs.expected
        )


def test_what_max_tokens_takes_from_long_requests_is_not_taken_from_the_total():
    """Outputs are half the input, cut at 100: the plain ratio would expect too little of the short requests."""
    sizes = [20, 40, 60, 100, 400, 1000] * 20
    observed = [Observed(size, min(size // 2, 100), size >= 200) for size in sizes]
    outputs = of(observed, {20: 10, 1000: 10}, max_tokens=100)
    assert outputs.estimator == "ratio"
    assert (outputs.per_request(20), outputs.per_request(1000)) == (pytest.approx(10), 100)
    assert outputs.expected == pytest.approx(1100)
    assert outputs.truncated_share == pytest.approx(1 / 3)


def test_no_bound_is_beyond_what_the_requests_can_bring():
    observed = answers(*[1] * 57, 1000, 1000, 1000)
    outputs = of(observed, {100: 3}, max_tokens=1000)
    assert 0 <= outputs.low < outputs.expected < outputs.high <= 3000
    unlimited = of([Observed(1, 5000, truncated=False)] * 60, {10: 4}, max_tokens=1000)
    assert (unlimited.low, unlimited.expected, unlimited.high) == (4000, 4000, 4000)


def test_equal_outputs_leave_no_interval():
    outputs = of(answers(*[7] * 60), {100: 1000, 900: 1000})
    assert (outputs.estimator, outputs.low, outputs.expected, outputs.high) == ("mean", 14_000, 14_000, 14_000)


def test_a_million_requests_and_a_hundred_thousand_answers_with_a_very_rare_tail_are_forecast():
    outputs = of(answers(*[10] * 99_990, *[10_000] * 10), {100: 1_000_000})
    assert outputs.expected == pytest.approx(10_999_000)
    assert outputs.low < outputs.expected < outputs.high


@pytest.mark.parametrize("output", [0, 5])
def test_requests_without_input_are_forecast_by_the_mean(output):
    observed = [Observed(0, output * (1 + index % 2), truncated=False) for index in range(60)]
    outputs = of(observed, {0: 10})
    assert (outputs.estimator, outputs.expected) == ("mean", 15 * output)
    assert outputs.per_request(0) == 1.5 * output


def test_one_answer_is_enough_for_a_rough_and_wide_interval():
    outputs = of(answers(40), {100: 10}, max_tokens=4096)
    assert (outputs.rough, outputs.low, outputs.expected, outputs.high) == (True, 20, 400, 8000)
    assert of(answers(40), {100: 10}, max_tokens=100).high == 1000
    assert of(answers(0), {100: 10}).high > 0


def test_few_answers_that_happen_to_agree_promise_nothing():
    outputs = of(answers(40, 41, 40), {100: 10})
    assert outputs.low < outputs.expected / 2 < 2 * outputs.expected < outputs.high < inf


def test_below_fifty_answers_a_forecast_is_rough():
    assert LEAST_OBSERVED == 50
    assert of(answers(*range(49)), {1: 1}).rough
    assert not of(answers(*range(50)), {1: 1}).rough


def test_the_basis_and_what_was_observed_are_named():
    observed = [Observed(10, 20, truncated=index < 15) for index in range(60)]
    outputs = of(observed, {10: 1}, basis="history")
    assert (outputs.basis, outputs.observed, outputs.truncated_share) == ("history", 60, 0.25)


@pytest.mark.parametrize("sizes", [{}, {100: 0}])
def test_where_nothing_remains_nothing_is_expected(sizes):
    for observed in (answers(5), answers(*range(60))):
        outputs = of(observed, sizes, max_tokens=10)
        assert (outputs.low, outputs.expected, outputs.high) == (0, 0, 0)


def test_without_answers_there_is_no_such_forecast():
    with pytest.raises(ValueError, match="at least one answered request"):
        of([], {10: 1})


def test_without_answers_half_of_max_tokens_is_assumed_and_called_rough():
    outputs = forecast_from_limit({10: 3, 500: 1}, 200)
    assert (outputs.basis, outputs.estimator, outputs.observed, outputs.rough) == ("limit", None, 0, True)
    assert (outputs.low, outputs.expected, outputs.high, outputs.truncated_share) == (0, 400, 800, None)
    assert outputs.per_request(10) == outputs.per_request(500) == 100


def test_without_answers_and_max_tokens_there_is_no_forecast():
    assert forecast_from_limit({10: 3}, None) is None


@given(
    observed=st.lists(
        st.builds(Observed, st.integers(0, 10**6), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=60
    ),
    sizes=st.dictionaries(st.integers(0, 10**6), st.integers(0, 10**6), max_size=5),
    max_tokens=st.none() | st.integers(1, 10**6),
)
def test_whatever_was_observed_the_forecast_is_in_order_and_within_the_limit(observed, sizes, max_tokens):
    outputs = forecast_outputs(observed, sizes, basis="history", max_tokens=max_tokens, seed=1, resamples=19)
    most = inf if max_tokens is None else max_tokens * sum(sizes.values())
    assert 0 <= outputs.low <= outputs.expected <= outputs.high < inf
    assert outputs.high <= most * (1 + 1e-12)
    assert all(0 <= outputs.per_request(size) <= (max_tokens or inf) for size in sizes)


# A run's projection.


def estimated(known, name, seed):
    """Return what an estimate after a pilot says of the run: its interval, and each remaining row's cost."""
    outputs, inputs = forecast(known, name, seed), sum(known.inputs)
    bounds = [bill(inputs, tokens) for tokens in (outputs.low, outputs.expected, outputs.high)]
    costs = [bill(size, output) for size, output in zip(known.inputs, known.outputs, strict=True)]
    return dollars(*bounds, len(costs)), costs


def looks(course, costs, dice, most=30):
    """Run, in looks of up to `most` answers."""
    done, spent = 0, Decimal(0)
    while done < len(costs):
        some = costs[done : done + dice.randint(1, most)]
        done, spent = done + len(some), spent + sum(some)
        course.look(done, spent)
        yield done


def warnings(projection, costs, dice, total=None, most=30):
    """Run; return what was said after how many."""
    course, projection = projection
    total = total or len(costs)
    return [(side, done) for done in looks(course, costs, dice, most) if (side := projection.outside(total))]


@pytest.mark.parametrize("name", ["proportional", "heavy tail (lognormal 1.2)", "1 in 20 is 20 times longer"])
def test_a_run_that_ends_inside_the_interval_seldom_warns(name):
    dice, ran, warned = random.Random(SEED), 0, 0
    for seed, known in enumerate(pilots(name, 100, SEED)):
        projection, costs = estimated(known, name, seed)
        if projection[1].low_usd <= sum(costs) <= projection[1].high_usd:
            ran += 1
            warned += bool(warnings(projection, costs, dice))
    assert ran > 150
    assert warned / ran <= 0.05


@pytest.mark.parametrize("name", ["proportional", "heavy tail (lognormal 1.2)", "1 in 20 is 20 times longer"])
@pytest.mark.parametrize(("side", "factor"), [("above", Decimal("1.5")), ("below", Decimal("0.5"))])
def test_a_run_far_outside_warns_exactly_once_and_before_half_of_it_is_done(name, side, factor):
    dice = random.Random(SEED)
    for seed, known in zip(range(60), pilots(name, 100, SEED), strict=False):
        projection, costs = estimated(known, name, seed)
        bound = projection[1].high_usd if side == "above" else projection[1].low_usd
        scale = factor * bound / sum(costs)
        [(said, done)] = warnings(projection, [scale * cost for cost in costs], dice)
        assert said == side
        assert done < len(costs) / 2


def dollars(low, expected, high, to_send, *, complete=True):
    course = Course()
    return course, Projection(Decimal(low), Decimal(expected), Decimal(high), to_send, complete=complete, course=course)


@pytest.mark.parametrize(
    ("done", "total", "projected"),
    [(49, 100, None), (50, 100, 20), (199, 10_000, None), (200, 10_000, 2000), (60, 50, 10)],
    ids=["49 are too few", "50 of few", "under 2 %", "2 % of many", "more than were expected"],
)
def test_a_projection_waits_for_fifty_answers_and_two_percent(done, total, projected):
    course = Course()
    course.look(done, done * Decimal("0.2"))
    assert course.projected_usd(total) == projected


def test_a_run_of_equal_costs_warns_as_soon_as_it_may():
    costs = [Decimal("0.02")] * 400
    [(side, done)] = warnings(dollars(3, 4, 5, 400), costs, random.Random(1), most=5)
    assert side == "above"
    assert 50 <= done <= 55


def test_a_deviation_of_less_than_a_hundredth_is_not_worth_a_warning():
    costs = [Decimal("0.01004")] * 400
    assert warnings(dollars(4, 4, 4, 400), costs, random.Random(1)) == []


def test_while_planning_goes_on_the_run_is_measured_on_what_was_estimated():
    costs = [Decimal("0.01")] * 400
    assert warnings(dollars(3, 4, 5, 400), costs, random.Random(1), total=60) == []


def test_an_input_that_grew_since_the_estimate_is_above_it():
    costs = [Decimal("0.01")] * 200
    [(side, _)] = warnings(dollars(3, 4, 5, 400), costs, random.Random(1), total=600)
    assert side == "above"


def test_rows_beyond_those_an_incomplete_estimate_counted_are_no_deviation():
    costs = [Decimal("0.01")] * 600
    assert warnings(dollars(3, 4, 5, 400, complete=False), costs, random.Random(1)) == []


# The first requests of a run, as long as nobody knows how many there are.


def first_warnings(low, high, requests, costs, seed=1):
    course, dice = Course(), random.Random(seed)
    beginning = Beginning(Decimal(low), Decimal(high), requests, course)
    return [(side, done) for done in looks(course, costs, dice, 16) if (side := beginning.outside())]


@pytest.mark.parametrize(("each", "said"), [("0.02", "above"), ("0.005", "below")])
def test_the_first_requests_tell_once_and_early_that_a_run_is_not_as_estimated(each, said):
    [(side, done)] = first_warnings("4.5", "5.5", 500, [Decimal(each)] * 5000)
    assert side == said
    assert done < 200


@pytest.mark.parametrize(
    ("each", "said"), [("0.0114", []), ("0.0117", ["above"]), ("0.0087", []), ("0.0084", ["below"])]
)
def test_a_few_percent_in_the_first_requests_are_not_worth_a_word(each, said):
    assert [side for side, _ in first_warnings("4.5", "5.5", 500, [Decimal(each)] * 500)] == said


def test_requests_beyond_those_that_were_estimated_are_not_held_against_them():
    """A dataset sorted by length: each row costs more than the one before, as was to be expected."""
    costs = [Decimal("0.01")] * 500 + [Decimal("0.03")] * 5000
    assert first_warnings("4.5", "5.5", 500, costs) == []


def test_chance_in_the_first_requests_is_no_news_of_the_run():
    """Costs that differ by as much as their mean: by chance 500 of them are often 5 % off, and all are not."""
    said, off = 0, 0
    for seed in range(100):
        dice = random.Random(seed)
        costs = [Decimal(repr(dice.expovariate(100))) for _ in range(500)]
        off += not Decimal("4.8") < sum(costs) < Decimal("5.2")
        said += bool(first_warnings("4.8", "5.2", 500, costs, seed))
    assert off > 30
    assert said == 0


def test_what_was_said_of_the_first_requests_is_not_said_again_of_all():
    course = Course()
    beginning = Beginning(Decimal("4.5"), Decimal("5.5"), 500, course)
    projection = Projection(Decimal(9), Decimal(10), Decimal(11), 1000, complete=True, course=course)
    said = [
        beginning.outside() if done < 500 else projection.outside(1000)
        for done in looks(course, [Decimal("0.02")] * 1000, random.Random(1))
    ]
    assert [side for side in said if side] == ["above"]
