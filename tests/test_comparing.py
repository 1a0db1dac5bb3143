"""The same work at other prices: every seller, every lane, and what it would cost if a price's source were wrong."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pipeline.comparing import UNKNOWN, Compared, Contradiction, Load, Work, compare, contradictions
from pipeline.pricebook import Prices, Target
from pipeline.pricing import Claim, Price, cost_usd, worst_case_usd
from pipeline.records import Usage

D = Decimal
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ENTRY = '[[price]]\nprovider = "{}"\nmodel = "m"\ninput = "{}"\noutput = "{}"\nsource = "s"\n'
BATCH = '[price.tier.batch]\nmultiplier = "0.5"\n'


def work(sizes=None, *, outputs=(50.0, 100.0, 200.0), per_request=lambda _: 1.0, max_tokens=600):
    exchanges = [(size, number, per_request(size)) for size, number in ({100: 10} if sizes is None else sizes).items()]
    return Work([Load(exchanges, outputs)], max_tokens)


def book(tmp_path, text):
    (tmp_path / "prices.toml").write_text(text)
    return Prices(tmp_path / "prices.toml", own_only=True)


def lines(prices, *targets, at=NOW, **changes):
    return compare(prices, [Target.parse(target) for target in targets], work(**changes), at=at)


def told(found):
    return [(str(line.target), line.expected_usd, line.note) for line in found]


def test_a_line_has_the_price_and_what_the_work_costs_under_each_forecast_and_at_most(tmp_path):
    (line,) = lines(book(tmp_path, ENTRY.format("a", 1, 10)), "m@a")
    assert line == Compared(
        Target("m", "a"), Price("a", "m", D(1), D(10), source="s"),
        low_usd=D("0.0015"), expected_usd=D("0.002"), high_usd=D("0.003"), ceiling_usd=D("0.061"), note=None,
    )  # fmt: skip


def test_the_jobs_own_model_has_the_jobs_own_price_also_where_no_list_has_it(tmp_path):
    own = Price("here", "m", D(2), D(20))
    prices = book(tmp_path, ENTRY.format("a", 1, 10))
    stated = Work([Load([(100, 10, 1.0)], (50.0, 100.0, 200.0))], 600, price=own)
    found = [line for target in ("m@here", "m") for line in compare(prices, [Target.parse(target)], stated, at=NOW)]
    assert told(found) == [("m@here", D("0.004"), None), ("m@a", D("0.002"), None), ("m@here", D("0.004"), None)]
    mine = Work([Load([(100, 10, 1.0)], (50.0, 100.0, 200.0))], 600, price=Price("a", "m", D(2), D(20)))
    assert told(compare(prices, [Target.parse("m@a")], mine, at=NOW)) == [("m@a", D("0.004"), None)]


def test_work_that_takes_hours_is_priced_over_them_and_at_most_at_the_dearest(tmp_path):
    text = ENTRY.format("a", 1, 10) + '[price.tier.batch]\nmultiplier = "0.5"\n'
    text += '[[price.window]]\nutc_from = 12:00:00\nutc_to = 13:00:00\nmultiplier = "10"\n'
    prices = book(tmp_path, text)
    four_hours = Work([Load([(100, 10, 1.0)], (50.0, 100.0, 200.0))], 600, seconds=4 * 3600.0)
    at_noon, over_hours = lines(prices, "m@a")[0], compare(prices, [Target.parse("m@a")], four_hours, at=NOW)[0]
    assert (at_noon.expected_usd, at_noon.ceiling_usd) == (D("0.02"), D("0.61"))
    assert (over_hours.expected_usd, over_hours.ceiling_usd) == (D("0.002") * (10 + 3) / 4, D("0.61"))
    (batch,) = compare(prices, [Target.parse("m@a:batch")], four_hours, at=NOW)
    assert batch.expected_usd == at_noon.expected_usd / 2, "a batch is priced when it is handed in"


def test_a_price_that_comes_into_force_while_the_work_is_sent_counts_for_its_part(tmp_path):
    dearer = ENTRY.format("a", 10, 100) + "effective_from = 2026-11-25\n"
    prices = book(tmp_path, ENTRY.format("a", 1, 10) + "effective_from = 2026-01-01\n" + dearer)
    a_day = Work([Load([(100, 10, 1.0)], (50.0, 100.0, 200.0))], 600, seconds=86400.0)
    (line,) = compare(prices, [Target.parse("m@a")], a_day, at=NOW)
    assert (line.expected_usd, line.ceiling_usd) == (D("0.002") * 11 / 2, D("0.61"))


def test_repairs_are_exchanges_of_their_own_and_pay_the_fee_again_in_the_forecast_and_in_the_ceiling(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 1, 10) + 'per_request = "0.5"\n')
    repaired = Work([Load([(100, 15, 1.0)], (2900.0, 3000.0, 3000.0))], max_tokens=200, worst={100: 10, 400: 10})
    (line,) = compare(prices, [Target.parse("m@a")], repaired, at=NOW)
    assert (line.low_usd, line.expected_usd, line.high_usd) == (D("7.5305"), D("7.5315"), D("7.5315"))
    assert line.ceiling_usd == 20 * D("0.5") + D("0.005") + 20 * D("0.002")


def test_groups_of_answers_are_forecast_apart_and_added_up(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 0, 1))
    short, long = Load([(10, 4, 1.0)], (4, 8, 12)), Load([(10, 2, 1.0)], (20, 40, 80))
    (line,) = compare(prices, [Target.parse("m@a")], Work([short, long], max_tokens=40), at=NOW)
    assert (line.low_usd, line.expected_usd, line.high_usd) == (D("0.000024"), D("0.000048"), D("0.000092"))


def test_what_is_charged_beyond_the_job_s_own_price_is_in_its_line_alone_and_no_line_s_high_is_above_its_ceiling(
    tmp_path,
):
    prices = book(tmp_path, ENTRY.format("a", 1, 10) + ENTRY.format("b", 1, 10))
    charged = Work([Load([(100, 10, 1.0)], (50, 100, 200))], 20, price=prices.find("a", "m", NOW), billed_factor=D(2))
    mine, other = compare(prices, [Target.parse("m@a"), Target.parse("m@b")], charged, at=NOW)
    assert (mine.low_usd, mine.expected_usd, mine.high_usd) == (D("0.003"), D("0.004"), D("0.006"))
    assert (other.low_usd, other.expected_usd, other.high_usd) == (D("0.0015"), D("0.002"), D("0.003"))
    assert (mine.ceiling_usd, other.ceiling_usd) == (D("0.006"), D("0.003"))


def test_what_the_provider_charges_for_is_not_free_in_the_line_of_its_free_price_and_other_lines_are_as_ever(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 0, 0) + ENTRY.format("b", 1, 10) + ENTRY.format("c", 0, 0))
    free = Work([Load([(100, 10, 1.0)], (50, 100, 200))], 20, price=prices.find("a", "m", NOW), charged=True)
    (mine,) = compare(prices, [Target.parse("m@a")], free, at=NOW)
    assert (mine.low_usd, mine.expected_usd, mine.high_usd, mine.ceiling_usd) == (None, None, None, None)
    assert mine.note == "the provider charges for what is free by this price"
    assert told(compare(prices, [Target.parse("m")], free, at=NOW)) == [
        ("m@c", D(0), None),
        ("m@b", D("0.002"), None),
        ("m@a", None, mine.note),
    ]


def test_a_model_alone_gets_a_line_for_each_seller_with_the_lane_the_cheapest_first(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 4, 4) + ENTRY.format("b", 3, 3) + BATCH + ENTRY.format("c", 2, 9))
    assert told(lines(prices, "m")) == [
        ("m@c", D("0.0029"), None),
        ("m@b", D("0.0033"), None),
        ("m@a", D("0.0044"), None),
    ]
    assert told(lines(prices, "m:batch")) == [("m@b:batch", D("0.00165"), None)]


def test_what_is_cheapest_depends_on_the_work(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 1, 9) + ENTRY.format("b", 9, 1))
    cheapest = [
        lines(prices, "m", sizes=sizes, outputs=outputs)[0].target.provider
        for sizes, outputs in (({1000: 1}, (1, 1, 1)), ({1: 1}, (9, 9, 9)), ({1000: 1}, None))
    ]
    assert cheapest == ["a", "b", "a"]


def test_what_has_no_price_gets_a_line_that_says_why_and_nothing_fails(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 1, 1) + ENTRY.format("b", 1, 1))
    assert told(lines(prices, "m@a:batch", "m:flex", "m@nobody", "unheard-of")) == [
        ("m@a:batch", None, "has no batch lane with a known price"),
        ("m:flex", None, "none of its 2 sellers has a flex lane"),
        ("m@nobody", None, UNKNOWN),
        ("unheard-of", None, UNKNOWN),
    ]


def test_the_only_seller_is_named_even_if_it_has_no_such_lane(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 1, 1))
    assert told(lines(prices, "m:batch")) == [("m@a:batch", None, "has no batch lane with a known price")]


@pytest.mark.parametrize(
    ("sellers", "last"), [(12, None), (13, "1 more seller, dearer"), (15, "3 more sellers, dearer")]
)
def test_of_many_sellers_the_twelve_cheapest_are_shown_and_the_others_counted(tmp_path, sellers, last):
    prices = book(tmp_path, "".join(ENTRY.format(f"p{usd}", usd, 1) for usd in range(sellers, 0, -1)))
    found = lines(prices, "m")
    assert [line.target.provider for line in found[:12]] == [f"p{usd}" for usd in range(1, 13)]
    assert [(str(line.target), line.note) for line in found[12:]] == ([] if last is None else [("m", last)])


def test_without_a_forecast_the_low_figure_is_the_input_alone_and_without_max_tokens_there_is_no_ceiling(tmp_path):
    (line,) = lines(book(tmp_path, ENTRY.format("a", 1, 10)), "m@a", outputs=None, max_tokens=None)
    assert (line.low_usd, line.expected_usd, line.high_usd, line.ceiling_usd) == (D("0.001"), None, None, None)


def test_the_hour_counts_and_the_ceiling_holds_at_every_hour(tmp_path):
    window = '[[price.window]]\nutc_from = 01:00:00\nutc_to = 04:00:00\nmultiplier = "2"\n'
    prices = book(tmp_path, ENTRY.format("a", 1, 10) + window)
    costs = [lines(prices, "m@a", at=NOW.replace(hour=hour))[0] for hour in (0, 1, 4)]
    assert [line.expected_usd for line in costs] == [D("0.002"), D("0.004"), D("0.002")]
    assert {line.ceiling_usd for line in costs} == {D("0.122")}


def test_sizes_tiers_and_fees_cost_what_each_request_does(tmp_path):
    terms = 'per_request = "0.001"\n[[price.above]]\ninput_tokens_over = 50\ninput = "5"\noutput = "7"\n'
    prices = book(tmp_path, ENTRY.format("a", 1, 2) + terms + BATCH)
    sizes = {50: 3, 51: 2}
    outputs = {50: 10, 51: 20}
    (line,) = lines(prices, "m@a:batch", sizes=sizes, outputs=(70.0, 70.0, 70.0), per_request=outputs.get)
    expected = sum(cost_usd(line.price, Usage(size, outputs[size]), lane="batch") * sizes[size] for size in sizes)
    ceiling = sum(worst_case_usd(line.price, size, 600, lane="batch") * sizes[size] for size in sizes)
    assert (line.low_usd, line.expected_usd, line.high_usd, line.ceiling_usd) == (*[expected] * 3, ceiling)


def test_the_forecasts_total_is_kept_whatever_rounding_would_do_to_each_request(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 0, 1_000))
    sizes = dict.fromkeys(range(1, 1001), 3)
    (line,) = lines(prices, "m@a", sizes=sizes, outputs=(0.4 * 3000, 1.5 * 3000, 2.2 * 3000), per_request=lambda _: 1.5)
    assert (line.low_usd, line.expected_usd, line.high_usd) == (D("1.2"), D("4.5"), D("6.6"))


def test_no_answer_is_taken_for_longer_than_max_tokens(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 0, 1))
    (line,) = lines(prices, "m@a", sizes={1: 1, 99: 1}, outputs=(100, 100, 500), per_request=float, max_tokens=60)
    assert (line.expected_usd, line.high_usd, line.ceiling_usd) == (D("0.000061"), D("0.000065"), D("0.00012"))


def test_a_forecast_that_does_not_tell_requests_apart_is_spread_evenly(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 0, 1))
    (line,) = lines(prices, "m@a", sizes={1: 1, 99: 3}, outputs=(0, 0, 8), per_request=lambda _: 0.0)
    assert (line.expected_usd, line.high_usd) == (0, D("0.000008"))


def test_no_work_costs_nothing_and_a_free_model_nothing_either(tmp_path):
    prices = book(tmp_path, ENTRY.format("a", 1, 1) + ENTRY.format("free", 0, 0))
    (idle,) = lines(prices, "m@a", sizes={})
    (free,) = lines(prices, "m@free")
    for line in (idle, free):
        assert (line.low_usd, line.expected_usd, line.high_usd, line.ceiling_usd, line.note) == (0, 0, 0, 0, None)


def test_fifty_thousand_sizes_are_added_up_once_and_not_priced_one_by_one(monkeypatch):
    priced = []
    monkeypatch.setattr("pipeline.pricing._totals.charged", lambda *args: priced.append(args))
    found = lines(Prices(), "gpt-oss-20b", "gpt-5-mini@openai:batch", sizes=dict.fromkeys(range(1, 50_001), 2))
    assert len(found) > 8
    assert priced == []


# --- a source that contradicts itself


def test_the_contradicting_vendor_page_makes_the_bills_of_the_reference():
    price = Prices().find("modelslab", "gpt-oss-20b", NOW)
    rows = work({1000: 100_000}, outputs=(2e7, 2e7, 2e7))
    assert contradictions(price, rows) == [
        Contradiction("0.085 per call", D(8500)),
        Contradiction("0.085 per 1M tokens", D("10.20")),
    ]


def test_a_figure_that_depends_on_the_answers_is_unknown_without_a_forecast():
    claims = (Claim("a call", per_request=D(1)), Claim("tokens", D(1), D(1)), Claim("free answers", D(1)))
    price = Price("p", "m", D(1), D(1), contradictions=claims)
    assert [found.usd for found in contradictions(price, work(outputs=None))] == [D(10), None, D("0.001")]
    assert contradictions(Price("p", "m", D(1), D(1)), work()) == []
