"""Answers that wait for their repair when a run ends: they are paid for, and are gone on with, not asked for again."""

import signal
from collections import Counter
from decimal import Decimal

import pytest
from bookings import Booked, request
from project import Project, texts
from stub_faults import status

from pipeline.ledger import Ledger, OpenAnswer

SCHEMA = '[output]\nrepair = {}\nschema = {{ type = "object", required = ["a"] }}'
BAD, GOOD = '{"b": 0}', '{"a": 1}'


def repairs(payload):
    return sum(message["role"] == "assistant" for message in payload["messages"])


def first_bad(payload):
    return GOOD if repairs(payload) else BAD


@pytest.fixture
def project(tmp_path, stub):
    stub.answer = first_bad
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(12))
    project.job(concurrency=4, more=SCHEMA.format(1))
    return project


def answered(project):
    """How many times each row was answered, by kind of attempt."""
    found = project.sql("select kind, key, count(*) n from attempts where http_status = 200 group by all")
    return {kind: Counter(row["n"] for row in found if row["kind"] == kind) for kind in ("first", "repair")}


def rows(project):
    return {row["status"]: row["n"] for row in project.sql("select status, count(*) n from results group by all")}


def stopped(project, stub, *command, calls):
    """Run until there is no credit: what is in flight comes home, what waits for its repair stays open."""
    stub.faults = lambda number, _: status(402) if number > calls else None
    project.run(*(command or ("run", "job.toml", "--yes")), code=4)
    stub.faults = None


def test_a_run_that_pauses_before_repairs_asks_nothing_twice(project, stub):
    stopped(project, stub, calls=4)
    assert answered(project) == {"first": {1: 4}, "repair": {}}
    project.run("run", "job.toml", "--yes")
    assert answered(project) == {"first": {1: 12}, "repair": {1: 12}}
    assert rows(project) == {"ok": 12}
    assert project.sql("select distinct output from results") == [{"output": GOOD}]
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill


def test_budgets_raised_in_steps_ask_nothing_twice(project, stub):
    for budget in ("0.0004", "0.0006", "0.0008", "1"):
        project.run("run", "job.toml", "--yes", "--budget", budget, code=None)
    (wasted,) = project.sql(
        "select sum(wasted_repaired_usd) as repaired, sum(wasted_invalid_usd) as invalid from spend"
    )
    assert wasted["invalid"] is None
    assert wasted["repaired"] == project.value("select sum(cost_usd) from attempts where result = 'invalid'")
    assert answered(project) == {"first": {1: 12}, "repair": {1: 12}}
    assert rows(project) == {"ok": 12}


def test_a_repair_that_brings_nothing_keeps_the_answer_of_the_earlier_run(project, stub):
    stopped(project, stub, calls=4)
    stub.answer = lambda payload: "" if repairs(payload) else BAD
    project.run("run", "job.toml", "--yes", code=3)
    assert rows(project) == {"invalid": 12}
    assert project.sql("select distinct output from results") == [{"output": BAD}]
    assert answered(project) == {"first": {1: 12}, "repair": {1: 12}}


def test_an_answer_that_may_have_no_more_repairs_ends_as_it_is_and_costs_nothing_more(project, stub):
    stopped(project, stub, calls=4)
    before = stub.calls
    project.run("run", "job.toml", "--yes", "--set", "output.repair=0", code=3)
    assert stub.calls - before == 8, "the other eight rows"
    assert rows(project) == {"invalid": 12}
    assert project.sql("select distinct output, error_type from results") == [{"output": BAD, "error_type": "schema"}]


def test_a_repair_that_never_fits_a_limit_leaves_the_answer_as_it_is(project, stub):
    project.rows(texts(4))
    stopped(project, stub, calls=4)
    before = stub.calls
    project.run("run", "job.toml", "--yes", "--set", "limits.tokens_per_minute=80", code=3)
    assert not any(repairs(asked.payload) for asked in stub.requests[before:])
    (said,) = project.sql("select distinct error from errors")
    assert "it can't be repaired: the request needs" in said["error"]


def test_of_two_repairs_only_what_is_missing_is_made(project, stub):
    stub.answer = lambda payload: GOOD if repairs(payload) == 2 else BAD
    project.rows(texts(1))
    project.job(concurrency=1, more=SCHEMA.format(2))
    stopped(project, stub, calls=2)
    assert answered(project) == {"first": {1: 1}, "repair": {1: 1}}
    stub.answer = lambda payload: BAD
    project.run("run", "job.toml", "--yes", code=3)
    assert answered(project) == {"first": {1: 1}, "repair": {2: 1}}, "one of the two was made before"


def test_an_interrupted_retry_goes_on_with_its_open_answers(project, stub):
    project.run("run", "job.toml", "--yes", "--set", "output.repair=0", code=3)
    retry = ("retry", "job.toml", "--yes", "--status", "invalid")
    stopped(project, stub, *retry, calls=12 + 4)
    project.run(*retry)
    assert rows(project) == {"ok": 12}
    assert answered(project) == {"first": {2: 12}, "repair": {1: 12}}


def test_an_interrupted_fresh_run_goes_on_with_its_open_answers(project, stub):
    project.run("run", "job.toml", "--yes")
    stopped(project, stub, "run", "job.toml", "--yes", "--fresh", calls=24 + 4)
    project.run("run", "job.toml", "--yes", "--fresh")
    assert answered(project) == {"first": {2: 12}, "repair": {2: 12}}


def test_a_killed_run_leaves_its_open_answers_to_the_next(project, stub):
    stub.latency = lambda number: 0.05 if number <= 4 else 5.0
    running = project.start("run", "job.toml", "--yes", "--quiet")
    stub.wait_until(lambda: any(repairs(each.payload) for each in stub.requests), "a repair", 30)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    stub.latency = 0.0
    project.run("run", "job.toml", "--yes")
    assert rows(project) == {"ok": 12}
    assert answered(project)["first"] == {1: 12}, "what was on the wire were repairs"


def test_what_is_open_is_what_has_not_ended_since(tmp_path):
    path, config = tmp_path / "l.duckdb", {"model": {"name": "m"}, "output": {"repair": 2}}
    waits, ended, failed, foreign, mute, twice = ("v1" + letter * 32 for letter in "abcdef")
    run = Booked(path, config=config)
    run.attempt(waits, result="invalid", output="bad")
    run.attempt(waits, 2, kind="repair", result="invalid", output="no better", error="why", error_type="schema")
    run.attempt(ended, result="invalid", output="bad")
    run.outcome(ended, "invalid")
    run.attempt(failed, result="unavailable", output=None)
    run.attempt(mute, result="invalid", output=None)
    run.attempt(twice, result="invalid", output="bad")
    run.end(exit_code=4)
    fresh = Booked(path, config=config)
    fresh.attempt(twice, result="unavailable", output=None)
    fresh.attempt(twice, 2, result="invalid", output="once more")
    fresh.end(exit_code=4)
    other = Booked(path, "other", config=config)
    other.attempt(foreign, result="invalid", output="of another job")
    other.end(exit_code=4)
    started = Ledger(path).begin(request(repairs=True))
    started.journal.close()
    assert started.known.open == {
        waits: OpenAnswer(1, 2, "no better", "schema", "why", 1),
        mute: OpenAnswer(1, 1, "", None, None, 0),
        twice: OpenAnswer(2, 2, "once more", None, None, 0),
    }
    nobody_asked = Ledger(path).begin(request())
    nobody_asked.journal.close()
    assert nobody_asked.known.open == {}


def test_the_answer_that_says_anything_is_kept_across_runs(project, stub):
    stub.answer = lambda payload: "" if repairs(payload) else BAD
    project.rows(texts(1))
    project.job(concurrency=1, more=SCHEMA.format(2))
    stopped(project, stub, calls=2)
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select status, output from results") == [{"status": "invalid", "output": BAD}]


def test_a_repair_that_was_tried_again_counts_as_one(project, stub):
    stub.answer = lambda _: BAD
    project.rows(texts(1))
    project.job(concurrency=1, more=SCHEMA.format(2))
    stub.faults = lambda number, _: status(500) if number == 2 else status(402) if number > 3 else None
    project.run("run", "job.toml", "--yes", code=4)
    stub.faults = None
    before = stub.calls
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls - before == 1, "one of two was made"


def test_an_open_answer_goes_before_another_jobs_cut_off_one(project, stub):
    stopped(project, stub, calls=4)
    stub.answer = lambda payload: "word " * 200
    other = project.job("other", concurrency=4)
    other.write_text(
        project.job(concurrency=4, more=SCHEMA.format(1)).read_text().replace('name = "job"', 'name = "other"')
    )
    project.run("run", "other.toml", "--yes", code=3)
    stub.answer = first_bad
    project.run("run", "job.toml", "--yes", code=3)
    found = project.sql("select status, count(*) n from results where job = 'job' group by all order by all")
    assert found == [{"status": "ok", "n": 4}, {"status": "truncated", "n": 8}]
