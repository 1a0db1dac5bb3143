"""Promise: the budget is a hard cap, and it is used."""

import json
import zlib
from datetime import timedelta
from decimal import Decimal

import pytest
from project import Project, texts
from stub import StubServer
from stub_faults import BROKEN_JSON, CUT, NO_USAGE, RESET, Reply, seeded, status

from pipeline.budget import dollars


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_the_budget_is_never_exceeded_and_a_higher_one_goes_on(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 40)
    project.rows(texts(200))
    project.job(concurrency=16)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.004", code=4)
    assert "raise it with --budget, or [budget] usd. With a higher budget, the same command goes on" in done.stderr
    worst_case = Decimal(project.value("select max(reserved_usd) from attempts"))
    assert Decimal("0.004") - worst_case < stub.bill <= Decimal("0.004")
    more = project.run("run", "job.toml", "--yes", "--budget", "1")
    assert "already spent $0.00" in more.stderr
    assert stub.calls == 200


@pytest.mark.parametrize(
    ("model", "price", "says"),
    [("max_tokens = 50", "", "needs a known price"), ("", "--price=1,2", "needs [model] max_tokens")],
)
def test_a_budget_that_could_not_be_held_refuses_to_start(project, stub, model, price, says):
    project.rows(texts(3))
    path = project.job(model=model)
    text = path.read_text()
    path.write_text(text.replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    arguments = ["run", "job.toml", "--yes", "--budget", "1", *([price] if price else [])]
    assert says in project.run(*arguments, code=2).stderr
    assert stub.calls == 0


PRICE_AHEAD = """
[[price]]
provider = "stub"
model = "test-model"
input = "0"
output = "0"
source = "a contract"
checked = 2026-11-01
[[price]]
provider = "stub"
model = "test-model"
input = "1"
output = "100"
effective_from = 2100-01-01
source = "a contract"
checked = 2026-11-01
"""


def test_what_is_free_now_and_costs_something_later_needs_a_bound_too(project, stub, monkeypatch):
    """The run may last until then."""
    monkeypatch.setattr("pipeline.pricebook.LONGEST_RUN", timedelta(days=365 * 200))
    project.rows(texts(3))
    path = project.job(model="")
    path.write_text(path.read_text().partition("[price]")[0])
    (project.folder / "mine.toml").write_text(PRICE_AHEAD)
    project.environ["PROMPTMILL_PRICES"] = "mine.toml"
    said = project.run("run", "job.toml", "--yes", "--budget", "0.0001", code=2).stderr
    assert "a budget needs [model] max_tokens" in said
    assert stub.calls == 0


def test_where_a_price_is_missing_it_is_said_which_price_file_was_looked_at(project, stub):
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    usual = "the one that PROMPTMILL_PRICES names, else ~/.config/promptmill/prices.toml"
    assert usual in project.run("run", "job.toml", "--yes", "--budget", "1", code=2).stderr
    assert usual in project.run("check", "job.toml").stderr
    entry = 'provider = "x"\nmodel = "y"\ninput = "1"\noutput = "1"\nsource = "a contract"\nchecked = 2026-11-01\n'
    (project.folder / "mine.toml").write_text(f"[[price]]\n{entry}")
    project.environ["PROMPTMILL_PRICES"] = "mine.toml"
    said = project.run("run", "job.toml", "--yes", "--budget", "1", code=2).stderr
    assert "your price file mine.toml has none" in said
    assert stub.calls == 0


def test_what_a_plan_has_spent_tells_bounds_from_known_costs(project, stub):
    stub.faults = lambda number, _: CUT if number <= 2 else None
    project.rows(texts(8))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", "--budget", "1", "--limit", "4")
    known = project.value("select sum(cost_usd) from attempts")
    bounds = project.value("select sum(reserved_usd) from attempts where cost_usd is null")
    said = project.run("run", "job.toml", "--yes", "--budget", "1").stderr
    spent = dollars(Decimal(known) + Decimal(bounds))
    bound = dollars(Decimal(bounds))
    assert f"already spent {spent} of its $1.00, {bound} of that at most, for attempts of unknown cost" in said


def test_a_plan_that_was_left_and_came_back_keeps_its_budget(project, stub):
    project.rows(texts(60))
    path = project.job(concurrency=1)
    original = path.read_text()
    project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    spent = stub.bill
    path.write_text(original.replace("{{ text }}", "Say: {{ text }}"))
    project.run("run", "job.toml", "--yes", "--limit", "1")
    path.write_text(original)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    assert "has already spent" in done.stderr
    assert stub.bill - spent < Decimal("0.0001"), "only the other plan's row was paid for"


def test_a_new_plan_says_that_its_budget_starts_afresh(project, stub):
    stub.answer = lambda _: "fine"
    project.rows(texts(4))
    project.job()
    afresh, limit = "its budget of $1.00 starts afresh; this job has spent $0.0", ("--budget", "1")
    for command in (["estimate", "job.toml"], ["run", "job.toml", "--yes"], ["run", "job.toml", "--yes"]):
        assert "afresh" not in project.run(*command, *limit).stderr, "no money was spent under another plan"

    project.rows(texts(5))
    for command in (["estimate", "job.toml"], ["run", "job.toml", "--yes"]):
        said = project.run(*command, *limit).stderr
        assert said.count(f"a new plan (the input changed): {afresh}") == 1
    assert "afresh" not in project.run("run", "job.toml", "--yes", *limit).stderr

    other = ("--set", "model.temperature=1.0")
    assert "afresh" not in project.run("estimate", "job.toml", *other).stderr, "no budget"
    said = project.run("estimate", "job.toml", "--pilot", "2", *other, *limit).stderr
    assert said.count(f"a new plan (model.temperature changed): {afresh}") == 1
    assert "afresh" not in project.run("run", "job.toml", "--yes", *limit).stderr, "the plan before came back"


def test_a_run_that_never_connected_leaves_no_unknown_cost_behind(project, stub):
    stub.stop()
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    project.run("run", "job.toml", "--yes", "--set", "retry.attempts=1", code=4)
    stub.start()
    project.run("run", "job.toml", "--yes", "--price", "0.25,2.00", "--budget", "1")
    assert project.value("select count(*) from attempts where error_type like 'connect%' and cost_usd is null") == 0


FAULTS = seeded(0.3, [status(500), status(503), RESET, CUT, NO_USAGE, BROKEN_JSON], seed=7)


@pytest.mark.parametrize("cap", ["0.02", "0.1"])
def test_many_requests_at_once_and_many_faults_never_exceed_the_cap_and_use_it(project, stub, cap):
    stub.answer, stub.faults = _of_any_length, FAULTS
    stub.latency = lambda n: n * 7 % 11 / 1000
    project.rows(texts(3000))
    project.job(concurrency=256, more="[retry]\nattempts = 20")
    project.run("run", "job.toml", "--yes", "--budget", cap, code=4)
    assert stub.bill <= Decimal(cap)
    facts = "sum(coalesce(cost_usd, reserved_usd)) booked, max(reserved_usd) worst from attempts"
    (booked,) = project.sql(f"select {facts}")
    left = Decimal(cap) - Decimal(booked["booked"])
    assert left >= 0
    assert left < max(Decimal(booked["worst"]), Decimal(cap) * Decimal("0.03"))


def _of_any_length(payload):
    """Between nothing to speak of and more than the limit."""
    return " ".join(["word"] * (1 + zlib.crc32(payload["messages"][-1]["content"].encode()) % 70))


def test_kills_and_restarts_do_not_loosen_the_cap(project, stub):
    stub.answer, stub.faults = _of_any_length, FAULTS
    stub.latency = lambda n: n * 7 % 11 / 100
    project.rows(texts(3000))
    project.job(concurrency=64, more="[retry]\nattempts = 20")
    for kill_after in (80, 160, 240):
        run = project.start("run", "job.toml", "--yes", "--budget", "0.05")
        stub.wait_for_calls(kill_after)
        run.kill()
        run.communicate()
    project.run("run", "job.toml", "--yes", "--budget", "0.05", code=4)
    assert project.value("select count(*) from attempts where result = 'lost'") > 0
    assert stub.bill <= Decimal("0.05")
    assert Decimal(project.value("select sum(coalesce(cost_usd, reserved_usd)) from attempts")) <= Decimal("0.05")


def test_a_request_too_dear_for_what_is_left_waits_for_those_in_flight(project, stub):
    project.rows(texts(20))
    project.job(concurrency=8, model="max_tokens = 50")
    worst = worst_case(project)
    stub.answer = lambda _: "short"
    done = project.run("run", "job.toml", "--yes", "--budget", f"{2 * worst:f}", code=None)
    assert stub.peak_concurrency <= 2
    assert stub.bill <= 2 * worst
    assert stub.calls > 2, done.stderr


def worst_case(project):
    """What one request of the job can cost at most."""
    return Decimal(json.loads(project.run("check", "job.toml", "--json").stdout)["at_most_usd"])


def test_a_provider_that_exceeds_max_tokens_pauses_the_run(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=5000)
    project.rows(texts(50))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", "--budget", "1", code=4)
    assert "does this provider honour max_tokens?" in done.stderr
    assert stub.calls <= 1 + 4


def test_a_pause_names_what_broke_the_bound(tmp_path, project, stub):
    stub.answer = lambda _: Reply("fine", prompt_tokens=9000)
    project.rows(texts(5))
    project.job(concurrency=1)
    done = project.run("run", "job.toml", "--yes", "--budget", "1", code=4)
    assert "it was billed for 9,000 input tokens, and" in done.stderr
    assert "max_tokens" not in done.stderr
    with StubServer(report_cost=True, input="1000") as dear:
        project = Project(tmp_path, dear.base_url)
        project.job(concurrency=1, model='max_tokens = 50\nbilled_cost_path = "usage.cost"')
        done = project.run("run", "job.toml", "--yes", "--budget", "1", code=4)
        assert "the provider says what it charged, and by the price it is $0.0" in done.stderr


LONG = "word " * 200
"""Its bytes bound its tokens from far above: that hides many tokens of output."""


def test_output_beyond_max_tokens_pauses_a_run_with_a_budget_even_if_its_dollars_fit(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=60)
    project.rows([{"id": n, "text": f"{LONG}{n}"} for n in range(20)])
    project.job(concurrency=1, model="max_tokens = 50")
    done = project.run("run", "job.toml", "--yes", "--price=1,2", "--budget=5", code=4)
    assert "an answer has 60 output tokens, and max_tokens is 50: the budget can't be held" in done.stderr
    assert project.value("select pause_kind from runs") == "bill"
    assert stub.calls <= 2


def test_without_a_budget_output_beyond_max_tokens_is_told_once_and_pauses_nothing(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=60, reasoning_tokens=40)
    project.rows([{"id": n, "text": f"{LONG}{n}"} for n in range(20)])
    project.job(concurrency=4, model="max_tokens = 50")
    done = project.run("run", "job.toml", "--yes", "--price=1,2")
    said = "an answer has 60 output tokens, 40 of them for reasoning, and max_tokens is 50: the run may cost more"
    assert done.stderr.count(said) == 1
    assert stub.calls == 20


@pytest.mark.parametrize("completion_tokens", [50, 52])
def test_a_token_or_two_that_are_counted_otherwise_pause_nothing(project, stub, completion_tokens):
    stub.answer = lambda _: Reply("fine", completion_tokens=completion_tokens)
    project.rows([{"id": n, "text": f"{LONG}{n}"} for n in range(5)])
    project.job(concurrency=1, model="max_tokens = 50")
    done = project.run("run", "job.toml", "--yes", "--price=1,2", "--budget=5")
    assert "output tokens" not in done.stderr
    assert stub.calls == 5


def test_repairs_are_paid_from_the_same_budget(project, stub):
    stub.answer = lambda _: "not json " * 20
    project.rows(texts(200))
    project.job(concurrency=8, more='[output]\nschema = { type = "object" }\nrepair = 3\n[stop]\ninvalid_share = 1')
    project.run("run", "job.toml", "--yes", "--budget", "0.01", code=4)
    assert project.value("select count(*) from attempts where kind = 'repair'") > 0
    assert stub.bill <= Decimal("0.01")


def test_what_a_provider_adds_to_what_it_is_sent_is_set_aside_by_the_next_run(project, stub):
    """A prompt of its own, or tools: one pause says so, and then the budget is held with it."""
    stub.answer = lambda payload: Reply("fine", prompt_tokens=3000 + len(payload["messages"][-1]["content"]))
    project.rows(texts(60))
    project.job(concurrency=4)
    paused = project.run("run", "job.toml", "--yes", "--budget", "1", code=4)
    assert "does this provider add to what it is sent? Then the next run sets so much more aside" in paused.stderr
    first = stub.calls
    assert first <= 4
    project.run("run", "job.toml", "--yes", "--budget", "1")
    assert stub.calls == 60
    bounds = project.sql("select min(reserved_usd - cost_usd) as least from attempts where run_id = 2")
    assert Decimal(bounds[0]["least"]) >= 0


def test_the_cap_holds_with_what_a_provider_adds(project, stub):
    stub.answer = lambda payload: Reply("fine", prompt_tokens=3000 + len(payload["messages"][-1]["content"]))
    project.rows(texts(60))
    project.job(concurrency=8)
    project.run("run", "job.toml", "--yes", "--limit", "1")
    paused = project.run("run", "job.toml", "--yes", "--budget", "0.02", code=4)
    assert "raise it with --budget" in paused.stderr
    assert Decimal("0.018") < stub.bill <= Decimal("0.02")


def test_a_count_that_is_off_is_nothing_that_a_provider_adds(project, stub):
    """One long row, billed for twice its count but within its bound, must not make each short one dear."""
    stub.answer = lambda payload: Reply("fine", prompt_tokens=2 * len(payload["messages"][-1]["content"]) // 5)
    project.rows([{"id": "long", "text": "lorem ipsum " * 8000}, *texts(20)])
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", "--limit", "1")
    before = worst_case(project)
    project.run("run", "job.toml", "--yes", "--budget", "1")
    dearest = Decimal(project.value("select max(reserved_usd) from attempts where run_id = 2"))
    assert dearest < Decimal("0.001") < before
