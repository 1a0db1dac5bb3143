"""Context tiers, lanes, hours and fees: both sides of every boundary, and a worst case that holds under all of them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PriceError
from pipeline.pricing import Above, Claim, Price, Rates, Variant, Window, cost_usd, parse_prices, worst_case_usd
from pipeline.records import Usage

D = Decimal
FRIDAY = datetime(2026, 11, 27, tzinfo=UTC)
ENTRY = '[[price]]\nprovider = "p"\nmodel = "m"\ninput = "0.10"\noutput = "0.50"\nsource = "s"\n'


def price_of(terms, entry=ENTRY):
    (listing,) = parse_prices(entry + terms, "prices.toml")
    return listing.price


TIERED = price_of("""
cached_input = "0.01"
[[price.above]]
input_tokens_over = 200000
input = "1"
output = "4"
[[price.above]]
input_tokens_over = 100000
input = "0.50"
output = "2.50"
""")
ANTHROPIC = Price("anthropic", "m", D("1"), D("5"), D("0.1"), D("1.25"), lanes=(("batch", Variant(D("0.5"))),))
GPT5 = Price("openai", "m", D("0.25"), D("2"), D("0.025"), lanes=(("batch", Variant(D("0.5"))),))


# --- the vectors of the reference that tiers and lanes decide (the others are in test_pricing.py)


@pytest.mark.parametrize(
    ("price", "usage", "lane", "usd"),
    [
        (GPT5, Usage(1000, 200, 600, 0, 150), "realtime", "0.000515"),
        (GPT5, Usage(1000, 200, 600, 0, 150), "batch", "0.0002575"),
        (ANTHROPIC, Usage(504 + 123 + 1000, 97, 1000, 123), "realtime", "0.00124275"),
        (ANTHROPIC, Usage(504 + 123 + 1000, 97, 1000, 123), "batch", "0.000621375"),
        (TIERED, Usage(100_000, 1000), "realtime", "0.0105"),
        (TIERED, Usage(100_001, 1000), "realtime", "0.0525005"),
    ],
)
def test_the_reference_vectors_hold_to_the_last_digit(price, usage, lane, usd):
    assert cost_usd(price, usage, lane=lane) == D(usd)


def test_the_highest_tier_passed_counts_whatever_the_order_in_the_file():
    assert cost_usd(TIERED, Usage(200_000, 0)) == D("0.1")
    assert cost_usd(TIERED, Usage(200_001, 0)) == D("0.200001")


def test_of_two_tiers_with_one_limit_none_is_chosen():
    with pytest.raises(PriceError, match="two context tiers begin above the same number of input tokens"):
        replace(TIERED, above=(Above(100, Rates(D(1), D(1))), Above(100, Rates(D(2), D(2)))))


def test_cached_tokens_count_towards_a_tier_and_its_output_price_counts_too():
    assert cost_usd(TIERED, Usage(100_000, 1, 99_999)) == D("0.00100059")
    assert cost_usd(TIERED, Usage(100_001, 1, 100_000)) == D("0.050003")


# --- lanes


def test_a_lane_may_have_prices_and_tiers_of_its_own():
    price = price_of("""
[price.tier.flex]
input = "0.05"
output = "0.25"
[[price.tier.flex.above]]
input_tokens_over = 10
input = "0.06"
output = "0.30"
[price.tier.priority]
multiplier = "2"
""")
    costs = [cost_usd(price, Usage(tokens, 1), lane=lane) for lane in ("flex", "priority") for tokens in (10, 11)]
    assert costs == [D("0.00000075"), D("0.00000096"), D("0.000003"), D("0.0000032")]
    assert not price.sells("batch")


OWN = 'input = "0.05"\noutput = "0.25"\n'
TIER = '[[price.above]]\ninput_tokens_over = 100\ninput = "0.50"\noutput = "2.50"\n'
HOURS_OF_ITS_OWN = f"[[price.window]]\nutc_from = 01:00:00\nutc_to = 04:00:00\n{OWN}"


@pytest.mark.parametrize("change", [f"[price.tier.batch]\n{OWN}", HOURS_OF_ITS_OWN])
def test_prices_of_a_lane_or_an_hour_never_lose_the_context_tiers_silently(change):
    with pytest.raises(
        PriceError, match=r"(tier\.batch|window 1): the price has context tiers, and these .* have none"
    ):
        price_of(TIER + change)
    price = price_of(TIER + change + "above = []\n")  # says that they have none
    at_one = FRIDAY.replace(hour=1)
    assert cost_usd(price, Usage(101, 0), lane="batch" if price.lanes else "realtime", at=at_one) == D("0.00000505")
    assert cost_usd(price, Usage(101, 0)) == D("0.0000505")


def test_a_factor_of_a_lane_leaves_the_context_tiers_in_force():
    price = price_of(TIER + '[price.tier.batch]\nmultiplier = "0.5"\n')
    assert [cost_usd(price, Usage(size, 0), lane="batch") for size in (100, 101)] == [D("0.000005"), D("0.00002525")]


def test_a_lane_without_a_known_price_is_never_charged_as_another():
    with pytest.raises(PriceError, match="the price of m at p in the batch lane is unknown"):
        cost_usd(TIERED, Usage(1, 1), lane="batch")


def test_a_cost_in_a_lane_is_rounded_once_and_half_to_even():
    price = Price("p", "m", D("0.000001"), D(0), lanes=(("batch", Variant(D("0.5"))),))
    assert cost_usd(price, Usage(1, 0), lane="batch") == 0
    assert cost_usd(price, Usage(3, 0), lane="batch") == D("0.000000000002")


# --- hours


WORKING = price_of("""
[[price.window]]
utc_from = 01:00:00
utc_to = 04:00:00
weekdays = ["mon", "fri"]
multiplier = "2"
[[price.window]]
utc_from = 22:00:00
utc_to = 00:30:00
weekdays = ["fri"]
input = "7"
output = "7"
""")


@pytest.mark.parametrize(
    ("hours", "usd"),
    [
        (0, "0.10"),
        (1, "0.20"),
        (4, "0.10"),
        (22, "7"),
        (24, "7"),  # Saturday 00:00: the window began on Friday
        (24.5, "0.10"),
        (25, "0.10"),  # Saturday 01:00
        (46, "0.10"),  # Saturday 22:00
        (-0.5, "0.10"),  # Thursday 23:30
        (73, "0.20"),  # Monday 01:00
    ],
)
def test_a_window_holds_from_its_first_moment_to_before_its_last_on_its_weekdays(hours, usd):
    at = FRIDAY + timedelta(hours=hours)
    assert cost_usd(WORKING, Usage(1_000_000, 0), at=at) == D(usd)
    assert cost_usd(WORKING, Usage(1_000_000, 0), at=at.astimezone(timezone(timedelta(hours=9)))) == D(usd)


def test_the_last_microsecond_of_a_window_is_in_it_and_the_one_before_it_is_not():
    tick = timedelta(microseconds=1)
    at = [FRIDAY + timedelta(hours=1) - tick, FRIDAY + timedelta(hours=4) - tick]
    assert [cost_usd(WORKING, Usage(1_000_000, 0), at=moment) for moment in at] == [D("0.10"), D("0.20")]


def test_without_a_moment_no_window_holds():
    assert cost_usd(WORKING, Usage(1_000_000, 0)) == D("0.10")


def test_multipliers_of_a_lane_and_a_window_multiply():
    price = replace(WORKING, windows=WORKING.windows[:1], lanes=(("batch", Variant(D("0.5"))),))
    assert cost_usd(price, Usage(1_000_000, 0), lane="batch", at=FRIDAY + timedelta(hours=1)) == D("0.10")


def test_what_holds_in_a_lane_and_a_window_with_prices_of_their_own_is_not_guessed():
    with pytest.raises(PriceError, match="both have prices of their own"):
        price_of('[price.tier.batch]\ninput = "1"\noutput = "1"\n[[price.window]]\nutc_from = 01:00:00\n'
                 'utc_to = 02:00:00\ninput = "2"\noutput = "2"\n')  # fmt: skip


# --- cache writes and fees


@pytest.mark.parametrize(
    ("terms", "five_minutes", "an_hour"),
    [
        ("", "0.10", "0.10"),
        ('cache_write = "0.2"', "0.2", "0.2"),
        ('cache_write_5m = "0.2"', "0.2", "0.10"),
        ('cache_write_1h = "0.3"', "0.10", "0.3"),
        ('cache_write_5m = "0.2"\ncache_write_1h = "0.3"', "0.2", "0.3"),
        ('cache_write = "0.2"\ncache_write_1h = "0.3"', "0.2", "0.3"),
    ],
)
def test_cache_writes_cost_by_how_long_they_stay(terms, five_minutes, an_hour):
    price = price_of(terms)
    million = 1_000_000
    assert cost_usd(price, Usage(million, 0, 0, million)) == D(five_minutes)
    assert cost_usd(price, Usage(million, 0, 0, million, cache_write_1h_tokens=million)) == D(an_hour)


def test_fees_come_in_the_order_tokens_request_minimum_markup():
    price = price_of('per_request = "0.001"\nminimum_charge = "0.002"\nmarkup = "0.05"')
    assert cost_usd(price, Usage(1, 0)) == D("0.0021")
    assert cost_usd(price, Usage(10_000, 0)) == D("0.0021")  # exactly the minimum
    assert cost_usd(price, Usage(10_001, 0)) == D("0.002100105")


def test_a_lane_leaves_the_fee_of_a_request_as_it_is():
    price = price_of('per_request = "0.001"\n[price.tier.batch]\nmultiplier = "0.5"')
    assert cost_usd(price, Usage(10_000, 0), lane="batch") == D("0.0015")


# --- the worst case


RATE = st.decimals(min_value=0, max_value=999, places=6)
RATES = st.builds(Rates, RATE, RATE, RATE, RATE, RATE, RATE)
LIMIT = st.integers(0, 2000)
FACTOR = st.decimals(min_value=0, max_value=9, places=3)
HOURS = st.times().map(lambda clock: clock.replace(microsecond=0))
WINDOWS = st.lists(
    st.tuples(HOURS, HOURS, FACTOR)
    .filter(lambda hours: hours[0] != hours[1])
    .map(lambda hours: Window(hours[0], hours[1], Variant(hours[2]))),
    max_size=2,
).map(tuple)
TIERS = st.lists(st.builds(Above, LIMIT, RATES), max_size=3, unique_by=lambda tier: tier.input_tokens_over).map(tuple)
PRICES = st.builds(
    Price, st.just("p"), st.just("m"), RATE, RATE, RATE, RATE, RATE, RATE, cache_write_1h=RATE, above=TIERS,
    lanes=FACTOR.map(lambda factor: (("batch", Variant(factor)),)), windows=WINDOWS, minimum_charge=RATE, markup=FACTOR,
)  # fmt: skip


@given(PRICES, st.tuples(*[st.integers(0, 3000)] * 6), st.sampled_from(["realtime", "batch"]))
def test_a_cost_is_the_exact_sum_rounded_once_half_to_even_whatever_the_terms(price, counts, lane):
    plain, cached, five_minutes, an_hour, spoken, reasoning = counts
    written = five_minutes + an_hour
    usage = Usage(plain + cached + written, spoken + reasoning, cached, written, reasoning, {}, an_hour)
    tier = max(
        (tier for tier in price.above if usage.input_tokens > tier.input_tokens_over),
        key=lambda tier: tier.input_tokens_over, default=None,
    )  # fmt: skip
    rates = price.tariff.rates if tier is None else tier.rates
    tokens = (
        plain * Fraction(rates.input) + cached * Fraction(rates.cached_input)
        + five_minutes * Fraction(rates.cache_write) + an_hour * Fraction(rates.cache_write_1h)
        + spoken * Fraction(rates.output) + reasoning * Fraction(rates.reasoning)
    ) * Fraction(1 if lane == "realtime" else price.lanes[0][1].multiplier) / 1_000_000  # fmt: skip
    exact = max(tokens + Fraction(price.per_request), Fraction(price.minimum_charge)) * (1 + Fraction(price.markup))
    cost = cost_usd(price, usage, lane=lane)
    assert Fraction(cost) == round(exact, 12)
    assert cost.as_tuple().exponent == -12


@given(PRICES, st.tuples(*[LIMIT] * 7), st.sampled_from(["realtime", "batch"]), st.datetimes())
def test_no_usage_within_its_bounds_costs_more_than_the_worst_case(price, counts, lane, at):
    plain, cached, written, for_an_hour, output, more, room = counts
    usage = Usage(plain + cached + written, output, cached, written, min(output, plain), {}, min(for_an_hour, written))
    cost = cost_usd(price, usage, lane=lane, at=at.replace(tzinfo=UTC))
    assert 0 <= cost <= worst_case_usd(price, usage.input_tokens + more, output + room, lane=lane)


def test_a_cheaper_tier_does_not_lower_the_bound_of_a_request_that_may_stay_below_it():
    price = replace(TIERED, above=(Above(10, Rates(D("0.01"), D("0.01"))),))
    assert worst_case_usd(price, 11, 0) == D("0.0000011")


def test_a_tier_out_of_reach_does_not_raise_the_bound():
    assert worst_case_usd(TIERED, 100_000, 0) == D("0.01")
    assert worst_case_usd(TIERED, 100_001, 0) == D("0.0500005")


def test_the_calling_threads_decimal_settings_change_nothing():
    price = replace(WORKING, windows=WORKING.windows[:1], lanes=(("batch", Variant(D("0.333"))),), markup=D("0.0123"))
    at = FRIDAY + timedelta(hours=1)
    expected = cost_usd(price, Usage(123_457, 3), lane="batch", at=at), worst_case_usd(price, 123_457, 3, lane="batch")
    with localcontext(prec=2, rounding=ROUND_UP):
        assert cost_usd(price, Usage(123_457, 3), lane="batch", at=at) == expected[0]
        assert worst_case_usd(price, 123_457, 3, lane="batch") == expected[1]


# --- as values


def test_terms_are_recorded_in_the_words_of_a_price_file_and_are_part_of_the_id():
    record = WORKING.as_record()
    assert json.loads(record["terms"])["window"][0] == {
        "utc_from": "01:00:00", "utc_to": "04:00:00", "weekdays": ["mon", "fri"], "multiplier": "2",
    }  # fmt: skip
    assert TIERED.as_record()["terms"] is not None
    plain = replace(TIERED, above=())
    assert plain.as_record()["terms"] is None
    assert len({plain.price_id, TIERED.price_id, replace(plain, markup=D("0.1")).price_id}) == 3
    assert replace(plain, markup=D("0.10")).price_id == replace(plain, markup=D("0.1")).price_id


def test_what_a_source_also_says_is_kept_beside_the_price_and_changes_neither_its_cost_nor_its_id():
    said = '[[price.contradiction]]\nsays = "a call"\nper_request = "1"\ninput = "0.20"\noutput = "0.3"'
    price, plain = price_of(said), price_of("")
    assert price.contradictions == (Claim("a call", D("0.2"), D("0.3"), D(1)),)
    assert price.contradictions[0].in_words() == "0.2 in, 0.3 out per 1M tokens, and 1 per request"
    assert cost_usd(price, Usage(10, 10)) == cost_usd(plain, Usage(10, 10))
    assert (price.price_id, price.as_record()) == (plain.price_id, plain.as_record())


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, True),
        ({"minimum_charge": D("0.01")}, False),
        ({"above": (Above(9, Rates(D(1), D(0))),)}, False),
        ({"windows": (replace(WORKING.windows[1]),)}, False),
        ({"markup": D("0.5")}, True),
    ],
)
def test_free_means_free_in_every_tier_and_at_every_hour(change, free):
    assert Price("p", "m", D(0), D(0), **change).is_free is free


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ('[[price.above]]\ninput = "1"\noutput = "1"', "input_tokens_over must be a whole number"),
        ('[[price.above]]\ninput_tokens_over = 1.5\ninput = "1"\noutput = "1"', "whole number"),
        ('[[price.above]]\ninput_tokens_over = 1\ninput = "1"', "above 1: output is missing"),
        ('[[price.above]]\ninput_tokens_over = 1\ninput = "1"\noutput = "1"\n' * 2, "the same number of tokens"),
        ('[[price.above]]\ninput_tokens_over = 1\nper_request = "1"', "unknown key 'per_request'"),
        ('[price.tier.batches]\nmultiplier = "0.5"', "unknown key 'batches'; did you mean 'batch'"),
        ('[price.tier.batch]\nmultiplier = "0.5"\ninput = "1"', "unknown key 'input'"),
        ("[price.tier.batch]\nmultiplier = 0.5", "is a float"),
        ('[[price.window]]\nutc_from = "01:00"\nutc_to = "02:00"\nmultiplier = "2"', "two times without quotes"),
        ('[[price.window]]\nutc_from = 01:00:00\nutc_to = 01:00:00\nmultiplier = "2"', "two times"),
        ('[[price.window]]\nutc_from = 01:00:00\nutc_to = 02:00:00\nweekdays = ["Mo"]', "weekdays must be a list"),
        ('cache_write = "1"\ncache_write_5m = "1"', "say the same thing"),
        ('markup = "-0.1"', "not negative"),
        ('[[price.contradiction]]\nper_request = "1"', "contradiction 1: says is missing"),
        ('[[price.contradiction]]\nsays = " "\nper_request = "1"', "says is missing"),
        ('[[price.contradiction]]\nsays = 1\nper_request = "1"', "says is missing"),
        ('[[price.contradiction]]\nsays = "so"', "write what 'so' would charge"),
        ('[[price.contradiction]]\nsays = "so"\noutput = "1"\nper_request = "1"', "as both input and output"),
        ('[[price.contradiction]]\nsays = "so"\nper_call = "1"', "unknown key 'per_call'"),
        ('[[price.contradiction]]\nsays = "so"\nper_request = 0.1', "is a float"),
        ('[price.contradiction]\nsays = "so"\nper_request = "1"', r"under a \[\[...\]\] heading"),
    ],
)
def test_a_mistake_in_the_terms_of_a_price_is_an_error_that_names_its_place(terms, message):
    with pytest.raises(PriceError, match=message) as caught:
        price_of(terms)
    assert str(caught.value).startswith("prices.toml: [[price]] 1")
