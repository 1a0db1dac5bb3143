"""Promise: what no row can pass pauses the run; rows stay pending, and the same command goes on later."""

import time
from datetime import datetime, timedelta

import pytest
from project import Project, texts
from stub_faults import RESET, every, first, html, status

from pipeline.cli._options import _moment

SCHEMA = '[output]\nschema = { type = "object" }'


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(401, "bad key"), "bad key"),
        (status(402, "no credit"), "no credit"),
        (status(404, "no such model"), "no such model"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
    ],
)
def test_what_no_row_can_pass_pauses_the_run_and_leaves_rows_pending(project, stub, fault, says):
    stub.faults = every(1, fault)
    project.rows(texts(200))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert says in done.stderr
    assert "When that is over or put right, the same command goes on from here." in done.stderr
    assert stub.calls <= 4 + 4, "at most the concurrency after the first refusal"
    stub.faults = None
    before = stub.calls
    project.run("run", "job.toml", "--yes")
    assert stub.calls - before == 200


def test_an_unreachable_provider_pauses_the_run(project, stub):
    stub.stop()
    project.rows(texts(50))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert "can't be reached" in done.stderr
    assert ". The same command" not in done.stderr
    assert project.value("select count(*) from results where status = 'pending'") == 50


# -- a job that is all wrong ------------------------------------------------------------------------


def test_equal_rejections_from_the_start_pause_the_run_and_are_not_booked_against_the_rows(project, stub):
    stub.faults = every(1, status(400, "Unsupported parameter: temperature"))
    project.rows(texts(200))
    project.job(concurrency=4)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert "Unsupported parameter: temperature" in done.stderr
    assert "the job is to blame" in done.stderr
    assert stub.calls <= 10 + 4
    assert project.sql("select status, count(*) n from results group by all") == [{"status": "pending", "n": 200}]
    assert project.value("select count(*) from attempts where result = 'rejected'") == stub.calls
    before, stub.faults = stub.calls, None
    project.run("run", "job.toml", "--yes")
    assert stub.calls - before == 200


def test_equal_rejections_of_new_rows_pause_a_job_that_has_answers_too(project, stub):
    """Rows appended every night were once all booked as rejected, and never asked for again, for one wrong night."""
    project.rows(texts(20))
    project.job(concurrency=4)
    project.run("run", "job.toml", "--yes")
    project.rows(texts(120))
    stub.faults = every(1, status(400, "Unsupported parameter: temperature"))
    project.run("run", "job.toml", "--yes", code=4)
    assert stub.calls <= 20 + 10 + 4
    assert project.value("select count(*) from results where status = 'pending'") == 100


@pytest.mark.parametrize(("bad", "rows"), [(9, 30), (3, 3)], ids=["good ones follow", "there are no more"])
def test_a_few_rejections_are_the_rows_own(project, stub, bad, rows):
    stub.faults = first(bad, status(400, "no such thing"))
    project.rows(texts(rows))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select count(*) from results where status = 'rejected'") == bad
    assert project.value("select count(*) from results where status = 'ok'") == rows - bad


def test_rows_that_are_to_blame_after_all_can_be_booked_so(project, stub):
    stub.faults = every(1, status(422, "unprocessable"))
    project.rows(texts(30))
    project.job(concurrency=4, more="[stop]\nsame_rejections = 0")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select count(*) from results where status = 'rejected'") == 30


def test_a_rejection_held_back_is_not_booked_by_whoever_finds_the_dead_journal(project, stub):
    stub.faults = lambda n, _: status(400, "no such thing") if n <= 3 else None
    project.rows(texts(4))
    project.job(concurrency=1)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    for calls in (1, 2, 3, 4):  # the fourth is on the wire when the kill comes
        stub.wait_for_calls(calls)
        stub.wait_for_in_flight(1)
        if calls < 4:
            stub.release(1)
    run.kill()
    run.communicate()
    stub.release()
    assert project.value("select count(*) from attempts where result = 'rejected'") == 3
    assert project.value("select count(*) from outcomes") == 0
    stub.faults = None
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 4


# -- a provider that is down ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [status(503), html(), html(200), RESET, status(500, "internal")], ids=lambda fault: fault.name
)
def test_a_provider_that_is_down_from_the_start_pauses_the_run_and_fails_no_row(project, stub, fault):
    stub.faults = every(1, fault)
    project.rows(texts(300))
    project.job(concurrency=8)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert "the provider is down" in done.stderr
    assert stub.calls <= 8 + 8
    assert project.value("select count(*) from results where status = 'pending'") == 300
    stub.faults = None
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 300


def test_a_provider_that_goes_down_in_the_night_is_probed_one_request_at_a_time_until_it_is_back(project, stub):
    stub.faults = lambda n, _: status(503) if 100 < n <= 112 else None
    project.rows(texts(300))
    project.job(concurrency=8)
    done = project.run("run", "job.toml", "--yes")
    assert "trying one at a time until the provider is back" in done.stderr
    assert "the provider is back after" in done.stderr
    assert project.value("select count(*) from results where status = 'ok'") == 300
    assert stub.calls == 312


def test_an_outage_that_lasts_pauses_the_run_after_a_few_probes(project, stub):
    stub.faults = lambda n, _: status(503) if n > 100 else None
    project.rows(texts(300))
    project.job(concurrency=8, more="[stop]\noutage_minutes = 0.02")
    done = project.run("run", "job.toml", "--yes", code=4)
    assert "the provider is down" in done.stderr
    assert stub.calls <= 100 + 8 + 8 + 8
    ended = project.sql("select status, count(*) n from results group by all order by all")
    assert ended == [{"status": "ok", "n": 100}, {"status": "pending", "n": 200}]
    before, stub.faults = stub.calls, None
    project.run("run", "job.toml", "--yes")
    assert stub.calls - before == 200


def test_a_row_that_breaks_the_server_fails_alone(project, stub):
    stub.faults = lambda _, payload: status(500) if "row 3 " in payload["messages"][-1]["content"] else None
    project.rows(texts(40))
    project.job(concurrency=4, more="[retry]\nattempts = 2")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select row_id, status from results where status <> 'ok'") == [
        {"row_id": "r3", "status": "failed"}
    ]


# -- answers that are worth nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "more", "says"),
    [
        ("not json", SCHEMA, "50 invalid"),
        (" ".join(["word"] * 80), "", "50 truncated"),
    ],
    ids=["invalid", "truncated"],
)
def test_a_prompt_that_brings_nothing_pauses_before_it_burns_the_budget(project, stub, answer, more, says):
    stub.answer = lambda _: answer
    project.rows(texts(400))
    project.job(concurrency=4, more=more)
    done = project.run("run", "job.toml", "--yes", code=4)
    assert says in done.stderr
    assert "invalid_share" in done.stderr
    assert stub.calls <= 50 + 4
    project.run("run", "job.toml", "--yes", "--set", "stop.invalid_share=1", code=3)
    assert stub.calls == 400, "whoever wants it all gets it all"


def test_half_of_the_answers_may_be_bad(project, stub):
    stub.answer = lambda p: "{}" if int(p["messages"][-1]["content"].split()[1]) % 5 < 3 else "not json"
    project.rows(texts(400))
    project.job(concurrency=1, more=SCHEMA)
    project.run("run", "job.toml", "--yes", code=3)
    assert project.value("select count(*) from results where status = 'invalid'") == 160


# -- the clock --------------------------------------------------------------------------------------


def test_a_run_stops_at_the_time_it_was_given_and_goes_on_later(project, stub):
    stub.latency = 0.02
    project.rows(texts(500))
    project.job(concurrency=1)
    until = (datetime.now().astimezone() + timedelta(seconds=1)).isoformat()
    done = project.run("run", "job.toml", "--yes", "--until", until, code=4)
    assert "the time given with --until has come" in done.stderr
    assert project.value("select pause_kind from runs") == "time"
    assert 0 < stub.calls < 500
    stub.latency = 0
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 500


@pytest.mark.parametrize(
    ("text", "says"), [("2020-01-01T07:00", "is over"), ("25:00", "is no time"), ("soon", "07:00")]
)
def test_a_time_that_cannot_be_meant_is_refused(project, stub, text, says):
    project.rows(texts(3))
    project.job()
    assert says in project.run("run", "job.toml", "--yes", "--until", text, code=2).stderr
    assert stub.calls == 0


@pytest.mark.parametrize(
    ("text", "now", "meant"),
    [
        ("07:00", "2026-11-24T23:15", "2026-11-25T07:00"),
        ("7:00", "2026-11-24T06:59", "2026-11-24T07:00"),
        ("07:00", "2026-11-24T07:00", "2026-11-25T07:00"),
        ("2026-12-01T01:30", "2026-11-24T07:00", "2026-12-01T01:30"),
    ],
)
def test_a_time_without_a_day_is_the_next_one(text, now, meant):
    assert _moment(text, datetime.fromisoformat(now).astimezone()) == datetime.fromisoformat(meant).astimezone()


@pytest.mark.parametrize(
    ("text", "now", "meant"),
    [
        ("02:30", "2027-03-28T01:30+01:00", "2027-03-28T03:30+02:00"),  # there is no 02:30 in that night
        ("07:00", "2027-03-28T01:30+01:00", "2027-03-28T07:00+02:00"),
        ("02:30", "2027-03-28T04:00+02:00", "2027-03-29T02:30+02:00"),
        ("02:30", "2027-10-31T01:30+02:00", "2027-10-31T02:30+02:00"),  # there are two
        ("02:30", "2027-10-31T02:15+01:00", "2027-10-31T02:30+01:00"),
        ("02:30", "2027-10-31T02:45+02:00", "2027-10-31T02:30+01:00"),
        ("02:30", "2027-10-31T02:45+01:00", "2027-11-01T02:30+01:00"),
    ],
)
def test_a_time_in_a_night_in_which_the_clock_is_changed_is_the_next_one_too(monkeypatch, text, now, meant):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert _moment(text, datetime.fromisoformat(now).astimezone()) == datetime.fromisoformat(meant)
    finally:
        monkeypatch.undo()
        time.tzset()
