"""Prices and costs: exact to the last digit, dated, and never a guess."""

import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import ROUND_UP, Decimal, localcontext
from fractions import Fraction
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PriceError
from pipeline.pricing import (
    COMPONENTS,
    Price,
    PriceBook,
    cost_usd,
    load_prices,
    parse_price_option,
    parse_prices,
    price_from_table,
    worst_case_usd,
)
from pipeline.pricing._price import _price_id
from pipeline.pricing._terms import Variant
from pipeline.records import Usage

D = Decimal
OSS = Price("modelslab", "gpt-oss-20b", D("0.03"), D("0.14"))
CACHING = Price("anthropic", "m", D("1"), D("5"), cached_input=D("0.1"), cache_write=D("1.25"))

PERIODS = """
[[price]]
provider = "p"
model = "m"
input = "0.029"
output = "0.14"
source = "a test"

[[price]]
provider = "p"
model = "m"
aliases = ["vendor/m"]
effective_from = 2026-10-19
input = "0.018"
output = "0.09"
source = "a test"

[[price]]
provider = "p"
model = "m"
aliases = ["vendor/m"]
effective_from = 2026-11-03
input = "0.03"
output = "0.14"
source = "a test"
"""
BOOK = PriceBook(parse_prices(PERIODS, "test.toml"))


# --- what a usage costs


@pytest.mark.parametrize(
    ("price", "usage", "usd"),
    [
        (OSS, Usage(1000, 200), "0.000058"),
        (
            Price("openai", "m", D("0.25"), D("2"), cached_input=D("0.025")),
            Usage(1000, 200, cached_input_tokens=600, reasoning_tokens=150),
            "0.000515",
        ),
        (CACHING, Usage(504 + 123 + 1000, 97, cached_input_tokens=1000, cache_write_tokens=123), "0.00124275"),
        (replace(OSS, per_request=D("0.085")), Usage(1000, 200), "0.085058"),
        (replace(OSS, reasoning=D("1")), Usage(0, 200, reasoning_tokens=150), "0.000157"),
        (OSS, Usage(0, 0), "0"),
        (Price("p", "m", D("999999.999999999999"), D(1)), Usage(10**18, 1), "999999999999999999.000001000000"),
    ],
)
def test_a_usage_costs_what_the_vendor_charges_to_the_last_digit(price, usage, usd):
    cost = cost_usd(price, usage)
    assert cost == D(usd)
    assert cost.as_tuple().exponent == -12


@pytest.mark.parametrize(
    ("tokens", "usd"), [(5, "0.000000000002"), (15, "0.000000000008"), (5_000_001, "0.000002500000")]
)
def test_a_cost_is_rounded_once_and_half_to_even(tokens, usd):
    assert cost_usd(Price("p", "m", D("0.0000005"), D("0")), Usage(tokens, 0)) == D(usd)


def test_the_calling_threads_decimal_settings_change_nothing():
    price = Price("p", "m", D("0.123456"), D("0.140000"), cached_input=D("0.010"))
    usage = Usage(1_234_567, 987_654, cached_input_tokens=1)
    compute_id = _price_id  # not from memory
    expected = cost_usd(price, usage), worst_case_usd(price, 1_234_567, 9), compute_id(price)
    with localcontext(prec=2, rounding=ROUND_UP):
        assert (cost_usd(price, usage), worst_case_usd(price, 1_234_567, 9), compute_id(price)) == expected


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(10, 0, cached_input_tokens=20), "0.000002"),
        (Usage(0, 10, reasoning_tokens=20), "0.0001"),
    ],
)
def test_a_usage_that_contradicts_itself_is_charged_by_its_parts(usage, usd):
    assert cost_usd(CACHING, usage) == D(usd)


COMPONENT = st.decimals(min_value=0, max_value=999_999, places=6)
PRICES = st.builds(
    Price,
    provider=st.just("p"),
    model=st.just("m"),
    input=COMPONENT,
    output=COMPONENT,
    cached_input=COMPONENT,
    cache_write=COMPONENT,
    reasoning=COMPONENT,
    per_request=COMPONENT,
)
COUNT = st.integers(0, 10_000_000)


@st.composite
def usages(draw):
    cached, written, plain, reasoning, spoken = (draw(COUNT) for _ in range(5))
    return Usage(cached + written + plain, reasoning + spoken, cached, written, reasoning)


def _plus(one, other):
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_input_tokens + other.cached_input_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )


@given(PRICES, usages())
def test_a_cost_is_the_exact_rational_number_and_at_most_the_worst_case(price, usage):
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    exact = Fraction(price.per_request) + (
        plain * Fraction(price.input)
        + usage.cached_input_tokens * Fraction(price.cached_input)
        + usage.cache_write_tokens * Fraction(price.cache_write)
        + (usage.output_tokens - usage.reasoning_tokens) * Fraction(price.output)
        + usage.reasoning_tokens * Fraction(price.reasoning)
    ) / Fraction(1_000_000)
    cost = cost_usd(price, usage)
    assert Fraction(cost) == exact >= 0
    assert cost <= worst_case_usd(price, usage.input_tokens, usage.output_tokens)


RATE = st.one_of(st.decimals(0, 1000, places=6), st.decimals(0, 1000, places=9))


@given(RATE, RATE, COUNT, COUNT)
def test_a_price_of_two_rates_charges_what_it_would_beside_terms_that_do_not_apply(into, out, inputs, outputs):
    price = Price("p", "m", into, out)
    usage = Usage(inputs, outputs)
    assert (price.per_token is not None) == all(rate * 10**6 % 1 == 0 for rate in (into, out))
    cost = cost_usd(price, usage)
    assert cost.as_tuple() == cost_usd(replace(price, lanes=(("batch", Variant()),)), usage).as_tuple()


@given(PRICES, usages(), usages())
def test_costs_of_parts_add_up_to_the_cost_of_the_whole(price, one, other):
    price = replace(price, per_request=D(0))
    assert Fraction(cost_usd(price, one)) + Fraction(cost_usd(price, other)) == Fraction(
        cost_usd(price, _plus(one, other))
    )


@given(st.decimals(min_value=0, max_value=10, places=12), COUNT, COUNT)
def test_the_worst_case_holds_even_where_the_cost_itself_is_rounded(rate, tokens, more):
    price = Price("p", "m", rate, rate)
    assert cost_usd(price, Usage(tokens, more)) <= worst_case_usd(price, tokens, more)
    assert Fraction(worst_case_usd(price, tokens, more)) >= (tokens + more) * Fraction(rate) / 1_000_000


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        (OSS, "0.000058"),
        (CACHING, "0.00225"),  # every input token might be a cache write
        (replace(OSS, reasoning=D("1")), "0.00023"),
        (replace(OSS, per_request=D("0.01")), "0.010058"),
        (Price("p", "m", D("0.000000001"), D("0")), "0.000000000001"),
    ],
)
def test_the_worst_case_takes_every_token_at_its_dearest_and_rounds_up(price, usd):
    assert worst_case_usd(price, 1000, 200) == D(usd)


# --- a price is a value


def test_components_that_are_not_given_default_to_input_and_output():
    assert (OSS.cached_input, OSS.cache_write, OSS.reasoning, OSS.per_request) == (D("0.03"), D("0.03"), D("0.14"), 0)


@pytest.mark.parametrize(
    "price",
    [
        OSS,
        CACHING,
        Price(
            "p",
            "m",
            D("0.000000000001"),
            D("999999.999999"),
            effective_from=date(2026, 4, 24),
            source="page",
            checked=date(2026, 11, 23),
            note="two figures",
            blended=True,
        ),
        Price("p", "m", D(0), D("1E+2")),
    ],
)
def test_a_recorded_price_is_plain_text_with_every_digit(price):
    record = price.as_record()
    assert all(value is None or isinstance(value, str) for value in record.values())
    assert not any("E" in record[name] for name in COMPONENTS)
    assert {name: D(record[name]) for name in COMPONENTS} == {name: getattr(price, name) for name in COMPONENTS}
    assert record["price_id"] == price.price_id


def test_a_price_id_names_the_content_and_is_the_same_in_every_process():
    assert OSS.price_id == "83c3af5eaee6ff24"
    assert _price_id(replace(OSS, input=D("0.0300"))) == OSS.price_id
    changed = [replace(OSS, input=D("0.031")), replace(OSS, provider="x"), replace(OSS, note="x")]
    changed += [replace(OSS, effective_from=date(2026, 4, 24)), replace(OSS, blended=True)]
    assert len({OSS.price_id, *(price.price_id for price in changed)}) == 6


@pytest.mark.parametrize(
    ("price", "free"),
    [
        (Price("p", "m", D(0), D(0)), True),
        (Price("p", "m", D("0.000"), D(0)), True),
        (Price("p", "m", D(0), D(0), per_request=D("0.001")), False),
        (Price("p", "m", D(0), D(0), reasoning=D("1")), False),
        (OSS, False),
    ],
)
def test_free_means_that_nothing_can_cost(price, free):
    assert price.is_free is free


@pytest.mark.parametrize("bad", ["-0.01", "NaN", "Infinity", "1000000", "0.0000000000001"])
@pytest.mark.parametrize("name", ["input", "reasoning", "per_request"])
def test_no_price_is_negative_or_unbounded(name, bad):
    with pytest.raises(PriceError, match=name):
        replace(OSS, **{name: D(bad)})


# --- what people write


def test_a_price_option_is_input_and_output():
    price = parse_price_option("0.03, 0.14", "modelslab", "gpt-oss-20b")
    assert (price.input, price.output, price.source) == (D("0.03"), D("0.14"), "--price")
    assert (price.provider, price.model) == ("modelslab", "gpt-oss-20b")


@pytest.mark.parametrize(
    "text", ["", "0.03", "0.03,0.14,1", "0.03;0.14", "$0.03,0.14", "-1,2", "nan,1", "1e3,1", "1_0,1", "٣,1", ",", "1,"]
)
def test_a_wrong_price_option_is_refused_and_quoted(text):
    with pytest.raises(PriceError, match="--price '"):
        parse_price_option(text, "p", "m")


def test_a_jobs_price_table_may_name_every_component():
    table = {"input": D("0.03"), "output": 1, "cached_input": "0.01", "cache_write": "0.04", "reasoning": "2"}
    price = price_from_table({**table, "per_request": "0.5"}, "p", "m", "jobs/a.toml")
    assert [getattr(price, name) for name in COMPONENTS] == [D(n) for n in ("0.03", "1", "0.01", "0.04", "2", "0.5")]
    assert (price.provider, price.model, price.source) == ("p", "m", "jobs/a.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": 0.03}, r'jobs/a\.toml: \[price\] input = 0\.03 is a float, .* write it as text: "0\.03"'),
        ({"input": True}, "is not a price"),
        ({"input": "-0.03"}, "not negative"),
        ({"input": -1}, "not negative"),
        ({"input": "NaN"}, "is not a price"),
        ({"input": float("nan")}, "is a float"),
        ({"input": "0,03"}, "one point"),
        ({"input": ["0.03"]}, "is not a price"),
        ({"cached_inputs": "0.03"}, "unknown key 'cached_inputs'; did you mean 'cached_input'?"),
        ({"xyz": "0.03"}, "unknown key 'xyz'; known keys: input, output"),
        ({"source": "me"}, "unknown key 'source'"),
    ],
)
def test_a_mistake_in_a_jobs_price_table_is_named_with_its_place_and_key(change, message):
    with pytest.raises(PriceError, match=message) as caught:
        price_from_table({"input": "0.03", "output": "0.14", **change}, "p", "m", "jobs/a.toml")
    assert str(caught.value).startswith("jobs/a.toml: [price]")


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_price_needs_input_and_output(missing):
    table = {"input": "0.03", "output": "0.14"}
    del table[missing]
    with pytest.raises(PriceError, match=f"{missing} is missing"):
        price_from_table(table, "p", "m", "job.toml")


# --- price files


@pytest.mark.parametrize(
    ("at", "usd"),
    [
        (datetime(2026, 9, 1, tzinfo=UTC), "0.169"),
        (datetime(2026, 10, 25, tzinfo=UTC), "0.108"),
        (datetime(2026, 11, 10, tzinfo=UTC), "0.170"),
        (datetime(2026, 10, 18, 23, 59, 59, 999999, tzinfo=UTC), "0.169"),
        (datetime(2026, 10, 19, tzinfo=UTC), "0.108"),
        (datetime(2026, 11, 2, 23, 59, 59, 999999, tzinfo=UTC), "0.108"),
        (datetime(2026, 11, 3, tzinfo=UTC), "0.170"),
        # The UTC day counts: it is still the 2nd in UTC, then already the 3rd.
        (datetime(2026, 11, 3, 1, tzinfo=timezone(timedelta(hours=2))), "0.108"),
        (datetime(2026, 11, 2, 23, tzinfo=timezone(timedelta(hours=-2))), "0.170"),
    ],
)
def test_the_newest_price_in_force_on_the_utc_day_counts(at, usd):
    assert cost_usd(BOOK.find("p", "m", at), Usage(1_000_000, 1_000_000)) == D(usd)


NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("provider", "model", "at"),
    [
        ("q", "m", NOW),
        ("p", "M", NOW),
        ("p", "m-large", NOW),
        ("p", "vendor/m", datetime(2026, 10, 18, tzinfo=UTC)),
    ],
)
def test_another_provider_another_model_or_an_earlier_day_has_no_price(provider, model, at):
    assert BOOK.find(provider, model, at) is None


def test_an_alias_finds_the_price_of_its_model():
    assert BOOK.find("p", "vendor/m", NOW) is BOOK.find("p", "m", NOW)
    assert BOOK.find("p", "vendor/m", NOW).model == "m"


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        BOOK.find("p", "m", datetime(2026, 11, 23))  # noqa: DTZ001 - the mistake itself


ENTRY = '[[price]]\nprovider = "p"\nmodel = "m"\ninput = "1"\noutput = "2"\nsource = "s"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + 'tier = "batch"', "write each lane under a heading of its own"),
        (ENTRY + "[[price.above]]\ninput_tokens_over = 1", "above 1: input is missing"),
        (ENTRY + 'cahced_input = "1"', "did you mean 'cached_input'"),
        (ENTRY.replace('source = "s"', ""), "source is missing"),
        (ENTRY.replace('model = "m"', 'model = ""'), "model is missing"),
        (ENTRY.replace('"1"', "1.5"), "is a float"),
        (ENTRY + 'effective_from = "2026-04-24"', "effective_from: write a date"),
        (ENTRY + "checked = 2026-04-24T00:00:00Z", "checked: write a date"),
        (ENTRY + 'currency = "EUR"', "only USD"),
        (ENTRY + "note = 1", "must be text"),
        (ENTRY + 'aliases = "x"', "aliases a list"),
        (ENTRY + 'blended = "yes"', "blended must be true or false"),
        ("[prices]\n", "unknown key 'prices'; did you mean 'price'?"),
        ('[price]\ninput = "1"\n', r"under its own \[\[price\]\]"),
        ("price = [1]", "expected a table"),
        ("", r"under its own \[\[price\]\]"),
        ("x", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_price_file_is_an_error_that_names_the_file(text, message):
    with pytest.raises(PriceError, match=message) as caught:
        parse_prices(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")


def test_two_prices_that_start_on_the_same_day_are_refused():
    with pytest.raises(PriceError, match="p x: two prices start on the same day"):
        PriceBook(parse_prices(ENTRY + 'aliases = ["x"]\n' + ENTRY.replace('"m"', '"x"'), "mine.toml"))


# --- the prices that come with the package


def test_every_price_file_in_the_folder_is_read():
    folder = resources.files("pipeline").joinpath("prices")
    entries = [
        entry
        for file in folder.iterdir()
        if file.name.endswith(".toml")
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))["price"]
    ]
    assert len(load_prices().listings) == len(entries) > 0
    for entry in entries:
        for name in (entry["model"], *entry.get("aliases", [])):
            assert load_prices().find(entry["provider"], name, NOW) is not None


@pytest.mark.parametrize("listing", load_prices().listings, ids=lambda listing: listing.price.model)
def test_every_shipped_price_says_where_it_is_from_and_when_it_was_checked(listing):
    assert listing.price.source
    assert listing.price.checked is not None


def test_the_bundled_model_is_explicitly_free():
    assert load_prices().find("local", "smollm2-135m-instruct", NOW).is_free


@pytest.mark.parametrize("model", ["gpt-oss-20b", "openai-gpt-oss-20b"])
def test_the_contradicting_vendor_page_is_priced_per_token_and_the_other_figures_are_noted(model):
    price = load_prices().find("modelslab", model, NOW)
    assert (price.input, price.output, price.per_request, price.blended) == (D("0.03"), D("0.14"), 0, False)
    assert "0.085 per call" in price.note
    assert "0.085 per 1M" in price.note
    assert [(claim.says, claim.in_words()) for claim in price.contradictions] == [
        ("0.085 per call", "0.085 per request"),
        ("0.085 per 1M tokens", "0.085 in, 0.085 out per 1M tokens"),
    ]
    assert load_prices().find("modelslab", model, datetime(2026, 4, 23, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("model", "input_usd", "cached_usd", "output_usd"),
    [
        ("gpt-4o-mini", "0.15", "0.075", "0.60"),
        ("gpt-4.1-mini", "0.40", "0.10", "1.60"),
        ("gpt-4.1-nano", "0.10", "0.025", "0.40"),
        ("gpt-5-mini", "0.25", "0.025", "2"),
        ("gpt-5-nano", "0.05", "0.005", "0.40"),
    ],
)
def test_openais_small_models_have_their_list_prices(model, input_usd, cached_usd, output_usd):
    price = load_prices().find("openai", model, NOW)
    assert (price.input, price.cached_input, price.output) == (D(input_usd), D(cached_usd), D(output_usd))
