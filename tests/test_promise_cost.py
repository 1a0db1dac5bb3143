"""Promise: the cost of every answered attempt is what the provider charged; what cannot be known is never zero."""

import json
from decimal import Decimal

import pytest
from bookings import Booked, ask
from project import Project, texts
from stub import StubServer
from stub_faults import (
    BROKEN_JSON,
    CONTENT_FILTER,
    CUT,
    NO_CHOICES,
    NO_USAGE,
    REFUSAL,
    RESET,
    Reply,
    error_in_200,
    every,
    first,
    html,
    other_model,
    reasoned_away,
    seeded,
    status,
)

from pipeline.budget import dollars
from pipeline.ledger import HistoryRequest


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_spend_in_the_ledger_equals_the_bill_to_the_last_digit(project, stub):
    stub.faults = every(10, status(500))
    project.rows(texts(1000))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill
    assert project.value("select count(*) from attempts where result = 'unavailable'") == stub.calls - 1000


def test_what_the_provider_says_it_billed_is_booked_and_what_was_computed_is_kept_beside_it(tmp_path):
    with StubServer(report_cost=True, input="0.50") as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(20))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        project.run("run", "job.toml", "--yes")
        assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
        assert Decimal(project.value("select sum(billed_usd) from attempts")) == stub.bill
        assert Decimal(project.value("select sum(computed_usd) from attempts")) < stub.bill
        assert "the price table is wrong" in project.run("spend").stderr


def test_a_bill_is_booked_where_no_price_is_known(tmp_path):
    with StubServer(report_cost=True) as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(3))
        project.job(model='billed_cost_path = "usage.cost"')
        text = (tmp_path / "job.toml").read_text()
        (tmp_path / "job.toml").write_text(text[: text.index("[price]")])
        told = project.run("run", "job.toml", "--yes", "--json")
        assert "is unknown: costs will be what the provider says it charged" in told.stderr
        assert Decimal(json.loads(told.stdout)["spent_usd"]) == stub.bill
        assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
        assert project.value("select count(*) from attempts where computed_usd is null") == 3


def test_an_answer_whose_cost_cannot_be_known_is_listed_with_an_upper_bound(project, stub):
    stub.faults = first(1, CUT)
    project.rows(texts(3))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    (unknown,) = project.sql("select cost_usd, reserved_usd from attempts where cost_usd is null")
    known = Decimal(project.value("select sum(cost_usd) from attempts"))
    assert known < stub.bill <= known + Decimal(unknown["reserved_usd"])
    assert project.sql("select unknown_cost from spend")[0]["unknown_cost"] == 1


def test_an_answer_without_usage_is_kept_and_its_cost_is_unknown(project, stub):
    stub.faults = every(1, NO_USAGE)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


def test_a_run_of_which_no_cost_is_known_says_so_and_not_zero(project, stub):
    stub.faults = every(1, NO_USAGE)
    project.rows(texts(3))
    project.job()
    report = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
    bound = project.value("select sum(reserved_usd) from attempts")
    assert (report["spent_usd"], report["uncertain_usd"], report["unknown_unbounded"]) == (None, bound, 0)
    told = project.run("run", "job.toml", "--yes", "--fresh").stdout
    assert f"cost unknown (at most {dollars(Decimal(bound))} for attempts of unknown cost)" in told


def test_unknown_costs_without_a_bound_are_counted_wherever_dollars_are_told(project, stub):
    stub.faults = lambda n, _: NO_USAGE if n <= 2 else None
    project.rows(texts(5))
    project.job(model="", concurrency=1)
    told = project.run("run", "job.toml", "--yes").stdout
    assert f"{dollars(stub_known(stub))} spent (and 2 attempts of unknown cost without an upper bound)" in told
    project.run("run", "job.toml", "--yes", "--limit", "1")  # sends nothing: nothing is unknown about it
    stub.faults = every(1, NO_USAGE)
    pilot = project.run(
        "estimate", "job.toml", "--pilot", "3", "--set", "model.max_tokens=60", "--set", "prompt.user=x"
    )
    assert "pilot: 1 attempt for 1 random request, cost unknown (at most $" in pilot.stderr
    report = json.loads(project.run("run", "job.toml", "--yes", "--json", "--fresh").stdout)
    assert (report["spent_usd"], report["uncertain_usd"], report["unknown_unbounded"]) == (None, "0.000000000000", 5)
    assert report["plan_spent_usd"] is project.estimated()["plan_spent_usd"] is None
    assert " no_bound\n" in project.run("spend").stdout
    capped = ("--set", "model.max_tokens=100", "--budget", "1")
    refused = "7 earlier attempts of this plan have neither a known cost nor an upper bound"
    assert refused in project.run("estimate", "job.toml", *capped).stderr
    assert refused in project.run("run", "job.toml", "--yes", "--fresh", *capped, code=2).stderr


def stub_known(stub):
    """What the bill says of the answers that told their usage."""
    return sum(entry.usd for entry in stub.entries if stub.requests[entry.n - 1].outcome == "answered")


def test_a_run_without_a_price_that_sends_nothing_has_spent_nothing(project, stub):
    project.rows(texts(2))
    path = project.job()
    path.write_text(path.read_text().partition("[price]")[0])
    project.run("run", "job.toml", "--yes")
    report = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
    assert (report["sent"], report["spent_usd"]) == (0, "0.000000000000")


def test_what_is_free_by_the_price_is_not_free_once_the_provider_charges(tmp_path):
    with StubServer(report_cost=True) as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(60))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        free = ("--price", "0,0")
        assert "cost      free" in project.run("estimate", "job.toml", *free).stdout
        told = project.run("run", "job.toml", "--yes", "--limit", "40", *free)
        assert f"{dollars(stub.bill)} spent" in told.stdout
        assert told.stderr.count("that is free by the price") == 1
        facts = json.loads(project.run("estimate", "job.toml", "--json", *free).stdout)
        assert Decimal(facts["expected_usd"]) == pytest.approx(stub.bill / 2, rel=Decimal("0.01"))
        assert facts["ceiling_usd"] is None
        shown = project.run("estimate", "job.toml", *free).stdout
        assert "by the price it is free" in shown
        assert "at most   no upper bound: the provider charges for what is free by the price" in shown
        assert "without a terminal nobody can be asked" in project.run("run", "job.toml", *free, code=2).stderr
        assert (
            "a budget needs a known price" in project.run("estimate", "job.toml", *free, "--budget", "1", code=2).stderr
        )
        report = json.loads(project.run("run", "job.toml", "--yes", "--json", *free).stdout)
        assert (
            Decimal(report["plan_spent_usd"]) == stub.bill == Decimal(project.value("select sum(cost_usd) from spend"))
        )


def test_an_attempt_of_unknown_cost_at_a_free_price_has_no_bound_once_the_provider_charges(tmp_path):
    with StubServer(report_cost=True, faults=every(40, CUT)) as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(60))
        project.job(model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        report = json.loads(project.run("run", "job.toml", "--yes", "--json", "--price", "0,0").stdout)
        assert (report["unknown_unbounded"], report["uncertain_usd"]) == (1, "0.000000000000")
        bounds = project.sql("select reserved_usd from attempts where cost_usd is null")
        assert bounds == [{"reserved_usd": None}]
        assert project.value("select sum(unknown_unbounded) from spend") == 1


@pytest.mark.parametrize(("free", "unknown"), [(True, 0), (False, 1)])
def test_an_exchange_that_a_kill_cut_off_costs_nothing_where_nothing_can_cost_anything(tmp_path, free, unknown):
    run = Booked(tmp_path / "promptmill.duckdb", free=free)
    run.sent("v1a", worst=Decimal(0))
    run.die()
    lost = ask(tmp_path / "promptmill.duckdb", "select unknown_cost, cost_usd from spend")
    assert lost == [(unknown, None if unknown else 0)]


@pytest.mark.parametrize(("listed", "told"), [("0.25", False), ("0.50", True)])
def test_an_answer_that_states_a_higher_cost_than_the_price_is_told_once_though_nobody_asked(tmp_path, listed, told):
    """Perplexity adds a fee for each request: a budget by the price alone would be spent six times over."""
    with StubServer(report_cost=True, input=listed) as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(12))
        project.job()
        said = project.run("run", "job.toml", "--yes").stderr
    assert said.count("an answer says that it cost") == told
    if told:
        assert '[model] billed_cost_path = "usage.cost" books and caps what the provider charges' in said


def test_that_answers_do_not_say_what_they_cost_is_told_once(project, stub):
    project.rows(texts(12))
    project.job(model='max_tokens = 50\nbilled_cost_path = "usage.costs"', concurrency=1)
    told = project.run("run", "job.toml", "--yes").stderr
    assert told.count("the first 5 answers don't say what they cost where [model] billed_cost_path has it") == 1


def test_what_a_provider_charges_counts_without_a_price_too(tmp_path):
    run = Booked(tmp_path / "promptmill.duckdb")
    run.answer("v1a", billed_usd=Decimal(1), cost=None)
    run.answer("v1b", billed_usd=Decimal(2), cost=Decimal(1))
    run.end()
    found = ask(tmp_path / "promptmill.duckdb", "select billed_usd, billed_computed_usd, billed_priced_usd from spend")
    assert found == [(3, 1, 2)]


def test_what_was_charged_for_is_free_again_when_the_provider_says_so(tmp_path):
    run = Booked(tmp_path / "promptmill.duckdb")
    run.answer("v1a", billed_usd=Decimal(1))
    run.end()
    ask = HistoryRequest("j", "stub", "m", "q1", "f1")
    assert run.ledger.history(ask).charged
    run = Booked(tmp_path / "promptmill.duckdb")
    run.answer("v1b", billed_usd=Decimal(0))
    run.end()
    assert not run.ledger.history(ask).charged


def test_a_free_model_that_charges_nothing_stays_free(tmp_path):
    with StubServer(report_cost=True, input="0", output="0") as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(3))
        project.job(model='billed_cost_path = "usage.cost"')
        assert project.run("run", "job.toml", "--price", "0,0", "--limit", "2").stdout.endswith(" s, free\n")
        assert "cost      free" in project.run("estimate", "job.toml", "--price", "0,0").stdout


def test_an_unknown_price_is_null_everywhere_with_a_warning(project, stub):
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    assert "is unknown: costs will be NULL" in project.run("run", "job.toml", "--yes").stderr
    assert project.value("select count(cost_usd) from attempts") == 0


def test_a_provider_that_claims_absurd_usage_does_not_make_the_ledger_unusable(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=10**12)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


def test_a_price_that_no_ledger_can_book_is_refused(project, stub):
    project.rows(texts(1))
    project.job(model="max_tokens = 100_000_000")
    done = project.run("run", "job.toml", "--yes", "--price", "1,99999", code=2)
    assert "one request may cost" in done.stderr
    assert stub.calls == 0


def test_a_provider_that_silently_answers_with_another_model_is_told_once_and_visible_in_spend(project, stub):
    stub.faults = lambda n, _: other_model("cheap-model") if n > 5 else None
    project.rows(texts(12))
    project.job(concurrency=1)
    done = project.run("run", "job.toml", "--yes")
    assert done.stderr.count("cheap-model instead of test-model") == 1
    rows = json.loads(project.run("spend", "--by", "model,model_returned", "--json").stdout)
    assert [(row["model"], row["model_returned"], row["attempts"]) for row in rows] == [
        ("test-model", "cheap-model", 7),
        ("test-model", "test-model", 5),
    ]


@pytest.mark.parametrize("wire", ["auto", "native", "httpx"])
def test_under_every_kind_of_fault_the_known_cost_and_the_bounds_hold_the_bill(project, stub, wire):
    kinds = [status(500), RESET, CUT, NO_USAGE, NO_CHOICES, BROKEN_JSON, REFUSAL,
             CONTENT_FILTER, reasoned_away(20), error_in_200(billed=True), html()]  # fmt: skip
    stub.faults = seeded(0.4, kinds, seed=11)
    project.rows(texts(400))
    project.job(concurrency=16, more="[retry]\nattempts = 20", limits=f'wire = "{wire}"')
    project.run("run", "job.toml", "--yes", code=3)
    facts = "sum(cost_usd) known, sum(reserved_usd) filter (where cost_usd is null) at_most from attempts"
    (booked,) = project.sql(f"select {facts}")
    known, at_most = Decimal(booked["known"]), Decimal(booked["at_most"])
    assert known < stub.bill <= known + at_most
    answered = project.value("select count(*) from attempts where http_status = 200 and cost_usd is not null")
    told = [entry.usd for entry in stub.entries if stub.requests[entry.n - 1].outcome not in UNTOLD]
    assert (answered, known) == (len(told), sum(told))


UNTOLD = {"cut", "no usage", "broken json", "error in 200"}
"""Faults of the stub that bill an answer whose usage never reaches the client."""
