"""Dollars before they are spent: whatever made earlier requests dear is in the figure, and in its interval."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from project import Project, texts
from simulated_jobs import BILLED, forecast_bill
from stub import StubServer
from stub_faults import Reply

from pipeline.estimating import Outlook
from pipeline.estimating._groups import Group
from pipeline.estimating._terms import Terms
from pipeline.job import load_job
from pipeline.ledger import Exchange, Used
from pipeline.planning import Meter
from pipeline.pricing import Price, Share, Variant, Window, cost_usd
from pipeline.records import Usage

D = Decimal
NOW = datetime(2026, 11, 24, tzinfo=UTC)
PRICE = Price("p", "m", D("0.25"), D("2.00"))
SCHEMA = '[output]\nrepair = 1\nschema = { type = "object", required = ["n"] }\n[stop]\ninvalid_share = 1.0'


def terms(price=PRICE):
    return Terms([Share(price, NOW, 1)])


def used(exchanges, *, counted=100, max_tokens=500):
    return Used("k", counted, tuple(exchanges), 1.0, max_tokens)


def alike(usage, count=50, **facts):
    return [used([Exchange(usage, truncated=False)], **facts) for _ in range(count)]


def bill(seen, sizes, *, price=PRICE, max_tokens=500, repair=0):
    outlook = Outlook(seen, "pilot", None, max_tokens, repair, price)
    return outlook.bill(terms(price), [Group(sizes, outlook.outputs(sizes))])


def test_repairs_are_longer_requests_also_where_a_server_adds_the_same_to_each():
    once = used([Exchange(Usage(155, 10), truncated=False)])
    twice = used([Exchange(Usage(155, 10), truncated=False), Exchange(Usage(275, 10), truncated=False)])
    outlook = Outlook([once, twice] * 50, "pilot", None, 500, 1, PRICE)
    assert outlook.billed_input(1000) == 1055
    assert outlook.exchange_input(100) * Fraction(outlook.exchanges_each) * 100 == 50 * (155 + 155 + 275)
    longer = used([Exchange(Usage(255, 10), truncated=False)], counted=200)
    assert Outlook([once, longer] * 50, "pilot", None, 500, 1, PRICE).exchange_input(1000) == 1055


@pytest.fixture
def stub():
    with StubServer() as server:
        yield server


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


# -- the interval


@pytest.mark.parametrize("kind", BILLED)
def test_nine_of_ten_bills_are_inside_though_it_is_not_the_output_alone_that_varies(kind):
    inside = 0
    for seed in range(40):
        dice = random.Random(f"{kind} {seed}")
        found, truth = forecast_bill([BILLED[kind](dice) for _ in range(1000)], 100)
        inside += found.low <= truth <= found.high
        assert found.high - found.low < truth / 3  # it says something
    assert 32 <= inside <= 40


def test_where_nothing_varies_the_interval_is_a_point():
    found = bill(alike(Usage(100, 10)), Counter({100: 200}))
    assert found.low == found.expected == found.high == 200 * cost_usd(PRICE, Usage(100, 10))


# -- what makes requests dear


@pytest.mark.parametrize(
    "usage",
    [
        Usage(200, 31, cached_input_tokens=150, reasoning_tokens=30),
        Usage(1000, 4, cache_write_tokens=900),
        Usage(300, 40, 100, 50, 20),
    ],
)
def test_reasoning_and_caches_are_charged_at_their_rates(usage):
    price = Price(
        "p", "m", D(2), D(1), cached_input=D("0.2"), cache_write=D("2.5"), reasoning=D(10), per_request=D("0.001")
    )
    found = bill(alike(usage), Counter({100: 100}), price=price)
    assert found.expected == 100 * cost_usd(price, usage)
    few = bill(
        alike(usage, 12), Counter({100: 100}), price=price
    )  # too few to know shares: the sum says it all the same
    assert few.expected == pytest.approx(100 * cost_usd(price, usage))


def test_a_repair_takes_max_tokens_once_more():
    seen = alike(Usage(100, 45), 50, max_tokens=50)
    twice = [one._replace(exchanges=(*one.exchanges, Exchange(Usage(190, 42), truncated=False))) for one in seen]
    outlook = Outlook(twice, "pilot", None, 50, 1)
    outputs = outlook.outputs(Counter({100: 10}))
    assert outputs.expected == 870
    assert bill(twice, Counter({100: 10}), max_tokens=50, repair=1).expected == 10 * (
        cost_usd(PRICE, Usage(100, 45)) + cost_usd(PRICE, Usage(190, 42))
    )


def test_what_the_provider_says_it_charged_outweighs_the_price():
    usage = Usage(100, 10)
    computed = cost_usd(PRICE, usage)
    charged = [used([Exchange(usage, truncated=False, computed_usd=computed, billed_usd=2 * computed)])] * 50
    assert bill(charged, Counter({100: 30})).expected == 60 * computed
    without_price = Outlook(charged, max_tokens=500)
    found = without_price.bill(Terms(), [Group(Counter({100: 30}), without_price.outputs(Counter({100: 30})))])
    assert found.expected == 60 * computed
    cut = Outlook(charged, max_tokens=5)  # shorter answers cost less, and nobody knows how much
    assert cut.bill(Terms(), [Group(Counter({100: 30}), cut.outputs(Counter({100: 30})))]) is None


def test_a_pilot_of_repaired_answers_says_what_the_rest_costs(project, stub):
    stub.answer = lambda payload: "blah " * 45 if len(payload["messages"]) == 1 else Reply('{"n": 1}')
    project.rows(texts(150))
    project.job(more=SCHEMA)
    facts = project.estimated("--pilot", "100")
    before = stub.bill
    assert facts["output"]["most_tokens"] == 50 * 2 * 50
    assert "at most 5,000 (max_tokens = 50, and 1 repair)" in project.run("estimate", "job.toml").stdout
    project.run("run", "job.toml", "--yes")
    assert D(facts["expected_usd"]) == pytest.approx(stub.bill - before, rel=D("0.01"))


def test_a_provider_that_bills_otherwise_is_believed_and_named(tmp_path):
    with StubServer(report_cost=True, input="0.50", output="4.00") as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(80))
        path = project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        facts = project.estimated("--pilot", "60")
        assert facts["billed_factor"] == 2
        told = project.run("estimate", "job.toml").stdout
        assert "earlier answers were charged 2.000 times what this price says" in told
        path.write_text(path.read_text().partition("[price]")[0])
        assert (
            "going by what the provider said it charged: no price is known"
            in project.run("estimate", "job.toml").stdout
        )
        before = stub.bill
        project.run("run", "job.toml", "--yes")
        assert D(facts["expected_usd"]) == pytest.approx(stub.bill - before, rel=D("0.02"))


# -- whose answers count


def test_answers_to_another_prompt_or_with_other_parameters_say_nothing(project):
    project.rows(texts(60))
    path = project.job()
    project.run("run", "job.toml", "--yes")
    project.rows(texts(90))
    assert project.estimated()["output"]["basis"] == "history"
    assert project.estimated("--set", "model.temperature=0.5")["output"]["basis"] == "limit"
    path.write_text(path.read_text().replace("{{ text }}", "write an essay about {{ text }}"))
    assert project.estimated()["output"]["basis"] == "limit"


def test_answers_that_could_not_be_repaired_say_nothing_of_what_repairs_cost(project):
    project.rows(texts(60))
    project.job(more=SCHEMA.replace("repair = 1\n", ""))
    project.run("run", "job.toml", "--yes", code=3)
    project.rows(texts(90))
    assert project.estimated()["output"]["basis"] == "history"
    assert project.estimated("--set", "output.repair=1")["output"]["basis"] == "limit"


def test_answers_that_ended_below_a_limit_count_under_every_higher_one_and_are_cut_under_a_lower_one():
    seen = alike(Usage(100, 40), max_tokens=50)
    sizes = Counter({100: 10})
    for limit, tokens in ((60, 400), (None, 400), (30, 300)):
        outputs = Outlook(seen, max_tokens=limit).outputs(sizes)
        assert (outputs.expected, outputs.rough) == (tokens, False)
    assert Outlook(seen, max_tokens=30).outputs(sizes).truncated_share == 1


def test_how_long_answers_are_that_were_cut_off_lower_is_a_guess_and_called_one():
    seen = [
        one._replace(exchanges=(Exchange(Usage(100, 50), truncated=True),)) for one in alike(Usage(1, 1), max_tokens=50)
    ]
    outlook = Outlook(seen, max_tokens=5000)
    outputs = outlook.outputs(Counter({100: 10}))
    assert outlook.guessed
    assert (outputs.rough, outputs.expected) == (True, 5000)


def test_a_pilot_of_answers_below_a_lower_limit_pays_for_nothing_again_and_counts(project, stub):
    project.rows(texts(90))
    project.job()
    before = project.estimated("--pilot", "60")
    calls = stub.calls
    facts = project.estimated("--pilot", "60", "--set", "model.max_tokens=60")
    assert stub.calls == calls
    assert (facts["output"]["basis"], facts["output"]["observed"], facts["output"]["rough"]) == ("pilot", 60, False)
    assert facts["expected_usd"] == before["expected_usd"]


def test_requests_that_were_asked_again_under_a_higher_limit_are_not_taken_for_all(project, stub):
    def answer(payload):
        number = int(payload["messages"][-1]["content"].split()[1])
        return " ".join(["w"] * (80 if number % 10 == 0 else 5))

    stub.answer = answer
    project.rows(texts(200))
    project.job()
    project.run("run", "job.toml", "--yes", code=3)
    project.run("retry", "job.toml", "--status", "truncated", "--max-tokens", "100", "--yes")
    project.rows(texts(400))
    facts = project.estimated("--set", "model.max_tokens=100")
    assert facts["output"]["observed"] == 200
    before = stub.bill
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=100")
    assert D(facts["low_usd"]) <= stub.bill - before <= D(facts["high_usd"])


# -- a higher limit


def test_a_higher_limit_costs_what_gets_longer_and_what_is_asked_again(project, stub):
    def answer(payload):
        number = int(payload["messages"][-1]["content"].split()[1])
        return " ".join(["w"] * (40 if number % 2 else 5))

    stub.answer = answer
    project.rows([{"id": n, "text": f"row {n} " + "hello " * 200} for n in range(200)])
    project.job(model="max_tokens = 20", more="[stop]\ninvalid_share = 1.0")
    facts = project.estimated("--pilot", "100")
    assert facts["cut_off"] == project.value("select count(*) from results where status = 'truncated'")
    told = project.run("estimate", "job.toml").stdout
    assert f", and asking the {facts['cut_off']} cut off before again up to about $0.0" in told
    before = stub.bill
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=40")
    more = stub.bill - before - D(facts["expected_usd"])
    assert more == pytest.approx(D(facts["doubled_max_tokens_usd"]), rel=D("0.25"))
    project.job(model="max_tokens = 20", more="[stop]\ninvalid_share = 1.0")
    facts = project.estimated()
    assert (facts["to_send"], facts["cut_off"]) == (0, 0)


def test_answers_that_were_cut_off_are_told_when_nothing_is_left_to_send(project, stub):
    stub.answer = lambda payload: "w " * (40 if payload["messages"][-1]["content"].split()[1] < "5" else 5)
    project.rows(texts(60))
    project.job(model="max_tokens = 20", more="[stop]\ninvalid_share = 1.0")
    project.run("run", "job.toml", "--yes", code=3)
    facts = project.estimated()
    assert facts["cut_off"] == project.value("select count(*) from results where status = 'truncated'") > 0
    told = project.run("estimate", "job.toml").stdout
    assert "requests that ended hit max_tokens; with max_tokens = 40 asking them again up to about $0.0" in told
    assert D(facts["doubled_max_tokens_usd"]) > 0


# -- prices that change


def test_prices_that_change_while_requests_are_sent_have_their_share(project):
    path = project.job()
    cheap, dear = (Price("stub", "m", D(amount), D(amount), effective_from=day) for amount, day in (
        ("1", None), ("100", (NOW + timedelta(days=1)).date())))  # fmt: skip
    meter = Meter(load_job(str(path)), cheap, [dear])
    found = Terms.of(meter, NOW, 4 * 86_400)
    usage = Usage(1_000_000, 0)
    assert found.usd(usage) == found.mean_usd(usage, 0) == D("75.25")
    assert Terms.of(meter, NOW, None).usd(usage) == 1
    hours = Window(time(6), time(12), Variant(multiplier=D(3)))
    by_day = Meter(load_job(str(path)), replace(cheap, windows=(hours,)))
    assert Terms.of(by_day, NOW, 86_400).usd(usage) == D("1.5")


def test_a_price_that_is_to_come_is_in_the_estimate_and_named(project):
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    entry = '[[price]]\nprovider = "stub"\nmodel = "test-model"\ninput = "{}"\noutput = "{}"\nsource = "me"\n'
    own = project.folder / "prices.toml"
    own.write_text(entry.format("0.25", "2") + entry.format("25", "200") + f"effective_from = {tomorrow}\n")
    project.environ["PROMPTMILL_PRICES"] = str(own)
    path = project.job(limits="requests_per_minute = 1")
    path.write_text(path.read_text().partition("[price]")[0])
    project.rows(texts(5000))
    facts = project.estimated()
    rows_a_day = D(24 * 60)
    alone = D(facts["input_tokens"]) / 5000 * D("0.25") / 10**6 + 25 * D(2) / 10**6
    most_later = alone * (rows_a_day + 100 * (5000 - rows_a_day))
    assert alone * 100 * (5000 - rows_a_day) - alone < D(facts["expected_usd"]) <= most_later + 100 * alone * rows_a_day
    assert f"from {tomorrow} on $25.00 in, $200.00 out per 1M tokens" in project.run("estimate", "job.toml").stdout
    (same,) = project.estimated("--compare", "test-model@stub")["compare"]
    assert abs(D(same["expected_usd"]) / D(facts["expected_usd"]) - 1) < D("0.02"), "it is priced over the same days"


def test_everything_that_is_charged_is_named(project):
    path = project.job()
    more = 'cached_input = "0.025"\nreasoning = "4"\nper_request = "0.01"\nmarkup = "0.05"\n'
    tier = '[[price.above]]\ninput_tokens_over = 100_000\ninput = "0.5"\noutput = "4"\n'
    path.write_text(path.read_text() + more + tier)
    project.rows(texts(3))
    told = project.run("estimate", "job.toml").stdout
    assert (
        "price     $0.25 in, $0.025 cached, $2.00 out, $4.00 reasoning per 1M tokens, above 100,000 input tokens $0.50"
        " in, $4.00 out, $0.01 a request, and 5 % on everything (source: job.toml)"
    ) in told


# -- beside it


def test_a_comparison_with_the_job_s_own_model_says_the_same(project, stub):
    stub.answer = lambda _: Reply('{"a": 1}', reasoning_tokens=30, prompt_tokens=200, cached_tokens=150)
    entry = (
        '[[price]]\nprovider = "stub"\nmodel = "test-model"\ninput = "2"\ncached_input = "0.2"\noutput = "1"\n'
        'reasoning = "10"\nper_request = "0.001"\nsource = "me"\n'
    )
    own = project.folder / "prices.toml"
    own.write_text(entry)
    project.environ["PROMPTMILL_PRICES"] = str(own)
    path = project.job(model="max_tokens = 60")
    path.write_text(path.read_text().partition("[price]")[0])
    project.rows(texts(120))
    facts = project.estimated("--pilot", "60", "--compare", "test-model@stub")
    (line,) = facts["compare"]
    for name in ("low_usd", "expected_usd", "high_usd", "ceiling_usd"):
        assert D(line[name]) == pytest.approx(D(facts[name]), rel=D("1e-6")), name


def test_the_budget_that_is_left_is_what_the_estimate_is_held_against(project, stub):
    project.rows(texts(60))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "40")
    facts = project.estimated()
    assert D(facts["plan_spent_usd"]) == stub.bill
    one = stub.bill + D("0.00005")
    told = project.run("estimate", "job.toml", "--limit", "41", "--budget", f"{one:.12f}").stdout
    assert "of it is spent: not enough for one request, which may cost up to $0.00023625\n" in told
    checked = project.run("check", "job.toml", "--budget", "0.00001")
    assert "a budget of $0.00001 lets nothing out: the first request may cost up to $0.00023" in checked.stderr
    budget = stub.bill + D(facts["expected_usd"]) * D("0.9")
    told = project.run("estimate", "job.toml", "--budget", f"{budget:.12f}").stdout
    assert "of it is spent: not enough even for the low figure" in told
    told = project.run("estimate", "job.toml", "--budget", f"{budget * 2:.12f}").stdout
    assert "of it is spent: enough for what is expected, not for the worst case" in told


def test_what_needs_no_request_is_told_as_money_saved(project):
    project.rows([*texts(10), *texts(10)])
    project.job()
    facts = project.estimated()
    assert D(facts["saved_usd"]) == D(facts["expected_usd"])
    assert "to send   10 requests (10 repeated: saves about $0.0" in project.run("estimate", "job.toml").stdout
