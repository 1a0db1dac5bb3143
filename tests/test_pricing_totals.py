"""Many requests at once cost what they cost one by one, to the last digit, whatever the price's shape."""

from datetime import UTC, datetime, time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PriceError
from pipeline.pricing import (
    Above,
    Bulk,
    Price,
    Rates,
    Variant,
    Window,
    cost_usd,
    total_usd,
    worst_case_usd,
    worst_total_usd,
)
from pipeline.records import Usage

D = Decimal
LIMITS = (0, 10, 200)
DOLLARS = st.sampled_from([D(0), D("0.03"), D("0.000001"), D("0.0000000001"), D("2.5"), D("0.333333333333")])
RATES = st.builds(Rates, DOLLARS, DOLLARS, DOLLARS, DOLLARS)
ABOVE = st.lists(st.builds(Above, st.sampled_from(LIMITS), RATES), max_size=2, unique_by=lambda t: t.input_tokens_over)
FACTORS = st.builds(Variant, st.sampled_from([D(1), D(2), D("0.5"), D(0)]))
PRICES = st.builds(
    Price,
    st.just("p"), st.just("m"), DOLLARS, DOLLARS, DOLLARS, DOLLARS,
    per_request=st.sampled_from([D(0), D("0.085"), D("0.000000000001")]),
    above=ABOVE.map(tuple),
    lanes=FACTORS.map(lambda variant: (("batch", variant),)),
    windows=FACTORS.map(lambda variant: (Window(time(1), time(4), variant),)),
    minimum_charge=st.sampled_from([D(0), D(0), D("0.0001")]),
    markup=st.sampled_from([D(0), D("0.05"), D("0.000000000001")]),
)  # fmt: skip
SIZES = st.lists(
    st.tuples(st.sampled_from([0, 1, 9, 10, 11, 199, 200, 201, 10**6]), st.integers(0, 10**5), st.integers(1, 10**6)),
    max_size=6,
)
LANES = st.sampled_from(["realtime", "batch"])


@given(PRICES, SIZES, LANES, st.sampled_from([datetime(2026, 11, 24, hour, tzinfo=UTC) for hour in (0, 1, 4)]))
def test_a_total_is_the_sum_of_the_costs_to_the_last_digit(price, sizes, lane, at):
    one_by_one = sum(
        cost_usd(price, Usage(tokens, output), lane=lane, at=at) * requests for tokens, output, requests in sizes
    )
    assert total_usd(price, Bulk(sizes), lane=lane, at=at) == one_by_one


@given(PRICES, SIZES, LANES)
def test_a_worst_total_is_the_sum_of_the_worst_cases_to_the_last_digit(price, sizes, lane):
    one_by_one = sum(worst_case_usd(price, tokens, most, lane=lane) * requests for tokens, most, requests in sizes)
    assert worst_total_usd(price, Bulk(sizes), lane=lane) == one_by_one


def test_neither_of_two_terms_may_be_dearer_for_all_requests():
    at_night = Window(time(1), time(4), Variant(tariff=Price("p", "m", D(9), D(1)).tariff))
    price = Price("p", "m", D(1), D(9), windows=(at_night,))
    sizes = [(10, 100, 1), (100, 10, 1)]
    assert worst_total_usd(price, Bulk(sizes)) == D("0.00091") * 2
    assert total_usd(price, Bulk(sizes)) == D("0.00091") + D("0.00019")


def test_a_context_limit_parts_the_requests_on_both_sides_of_it():
    price = Price("p", "m", D(1), D(0), above=(Above(100, Rates(D(5), D(0))),))
    assert total_usd(price, Bulk([(101, 0, 1), (100, 0, 2)])) == D("0.000705")
    assert worst_total_usd(price, Bulk([(101, 0, 1), (100, 0, 2)])) == D("0.000705")


def test_a_cost_that_has_to_be_rounded_is_rounded_for_each_request():
    price = Price("p", "m", D("0.000001"), D(0), lanes=(("batch", Variant(D("0.5"))),))
    assert total_usd(price, Bulk([(1, 0, 1000)]), lane="batch") == 0
    assert worst_total_usd(price, Bulk([(1, 0, 1000)]), lane="batch") == D("0.000000001")


def test_a_minimum_is_charged_for_each_request():
    price = Price("p", "m", D(1), D(0), minimum_charge=D("0.01"))
    assert total_usd(price, Bulk([(1, 0, 3)])) == D("0.03")


@pytest.mark.parametrize("total", [total_usd, worst_total_usd])
def test_a_lane_of_unknown_price_has_no_total(total):
    with pytest.raises(PriceError, match="the flex lane is unknown"):
        total(Price("p", "m", D(1), D(1)), Bulk([(1, 1, 1)]), lane="flex")


def test_nothing_costs_nothing():
    assert total_usd(Price("p", "m", D(1), D(1), per_request=D(1)), Bulk([])) == 0
