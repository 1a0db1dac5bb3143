"""Beside a finished plan a new one begins: nothing that was paid for looks lost."""

import json
import os
import re
import shlex

import pytest
from bookings import Booked
from project import Project, texts
from stub_faults import status

from pipeline.runners.job_lock import job_lock

OTHER = ("--set", "model.temperature=0.7")


@pytest.fixture
def project(tmp_path, stub):
    """Eight rows whose answers do not fit the schema in two cases; all have their outcome."""
    stub.answer = lambda payload: "{}" if payload["messages"][-1]["content"] < "row 6" else "no JSON"
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(8))
    project.job(more='[output]\nschema = { type = "object" }')
    project.run("run", "job.toml", "--yes", code=3)
    return project


def plans(project):
    return project.value("select count(*) from plans")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (OTHER, "job.toml says something else now: model.temperature"),
        (("--set", "prompt.user=Say: {{ text }}"), "job.toml says something else now: prompt.user"),
    ],
)
def test_a_retry_that_could_ask_nothing_again_is_refused_and_leaves_no_plan(project, stub, change, says):
    calls = stub.calls
    done = project.run("retry", "job.toml", "--status", "invalid", "--yes", *change, code=2)
    assert stub.calls == calls
    assert plans(project) == 1
    assert project.value("select count(*) from results where status = 'ok'") == 6
    assert f"promptmill: nothing was sent: {says}; every request is new: no row ever ended as it" in done.stderr


def test_a_refused_retry_names_the_run_that_sends_the_rows_as_they_were_to_be_asked(project, stub):
    other = ("--ledger", "my own.duckdb")
    project.run("run", "job.toml", "--yes", *other, code=3)
    typed = ("--set", "prompt.user=New {{ text }}", "--price", "0.25,2.00", "--budget", "1")
    said = project.run("retry", "job.toml", "--yes", *typed, *other, code=2).stderr
    command = shlex.split(re.search("send all rows as they are now with `promptmill (run job.toml .*?)`", said)[1])
    assert command == ["run", "job.toml", *other, "--set", 'prompt.user="New {{ text }}"', "--budget", "1.0"]
    calls = stub.calls
    project.run(*command, "--yes", code=None)
    assert stub.calls == calls + 8
    assert stub.requests[-1].payload["messages"][-1]["content"].startswith("New row")
    said = project.run(
        "retry", "job.toml", "--yes", "--set", f"prompt.user={'Long. ' * 30}{{{{ text }}}}", code=2
    ).stderr
    assert "with `promptmill run job.toml`, with the same --set\n" in said


def test_a_retry_that_is_refused_under_a_limit_says_so_of_those_rows_only(project, stub):
    project.rows([{"id": "new", "text": "not asked yet"}, *texts(8)])
    calls = stub.calls
    said = project.run("retry", "job.toml", "--yes", "--limit", "1", code=2).stderr
    assert (
        "nothing was sent: a file that job.toml reads has changed since; every request of the first row is new" in said
    )
    assert "look at more rows than --limit does, or send all rows as they are now" in said
    assert stub.calls == calls
    project.run("retry", "job.toml", "--yes", code=3)
    assert stub.calls == calls + 2


def test_a_retry_goes_on_where_its_rows_ended_before_whatever_else_changed(project, stub):
    stub.answer = lambda _: "{}"
    project.rows(texts(9))
    project.run("retry", "job.toml", "--yes", "--set", "output.repair=1")
    assert project.sql("select status, count(*) n from results group by all order by 1") == [
        {"status": "ok", "n": 8},
        {"status": "pending", "n": 1},
    ]
    project.run("run", "job.toml", "--yes", *OTHER, "--limit", "1")
    project.rows([{"id": "x", "text": "not asked yet"}, *texts(9)])
    said = project.run("retry", "job.toml", "--yes").stdout
    assert "nothing to send" in said, "the settings of before are no change"


def kept(project):
    """What is said of the first plan by each command that shows the newest."""
    status = project.run("status", "job").stderr
    results = project.run("results", "job", "-o", "out.jsonl").stderr
    errors = project.run("errors", "job").stderr
    return status, results, errors


def test_where_a_new_plan_hides_the_answers_of_one_before_it_is_said_how_to_see_them(project, stub):
    assert all("plan 1" not in said for said in kept(project))
    begun = project.run("estimate", "job.toml", "--pilot", "2", *OTHER).stderr
    assert begun.count("promptmill: a new plan (model.temperature changed): ") == 1
    assert "the 6 answers of before are kept" in begun
    few = project.value("select count(*) from results where status = 'ok'")
    for said in kept(project):
        assert said.count(f"plan 1 (run 1) has 6 rows that ended well, the newest one (run 2) {few};") == 1, said
        assert "between them changed: model.temperature" in said
        assert "`promptmill run job.toml` lists them again and sends nothing that is answered" in said
    calls = stub.calls
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == calls
    assert all("plan" not in said for said in kept(project))


@pytest.fixture
def small(tmp_path, stub):
    """Six rows that were not sent yet; every answer is good."""
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(6))
    project.job()
    return project


def test_the_command_that_brings_answers_back_sends_what_it_says(small, stub):
    """A prompt that was tried on four rows, then another one on two."""
    small.run("run", "job.toml", "--yes", "--limit", "4", *OTHER)
    small.run("run", "job.toml", "--yes", "--limit", "2")
    for said in kept(small):
        assert "`promptmill run job.toml --set model.temperature=0.7 --limit 4` lists them again" in said
    calls = stub.calls
    small.run("run", "job.toml", "--yes", "--limit", "4", *OTHER)
    assert stub.calls == calls


def test_the_command_that_brings_answers_back_says_how_many_rows_it_sends(small, stub):
    small.run("estimate", "job.toml", "--pilot", "4", *OTHER)
    small.run("run", "job.toml", "--yes", "--limit", "2")
    for said in kept(small):
        assert "0.7` lists them again and sends the 2 of its rows that have no outcome" in said


def test_a_plan_of_the_same_job_and_input_that_another_one_came_between_is_named(small):
    small.run("run", "job.toml", "--yes")
    small.run("run", "job.toml", "--yes", "--limit", "1", *OTHER)
    small.run("run", "job.toml", "--yes", "--limit", "2")
    for said in kept(small):
        assert "plan 1 (run 1) has 6 rows that ended well, the newest one (run 3) 2; both are of the same job" in said
        assert "`promptmill run job.toml` lists them again and sends nothing that is answered" in said


def test_no_command_brings_back_what_a_changed_file_asked_for(small):
    prompt, path = small.folder / "prompt.md", small.folder / "job.toml"
    path.write_text(path.read_text().replace('user = "{{ text }}"', 'file = "prompt.md"'))
    prompt.write_text("--- user ---\nv1 {{ text }}")
    small.run("run", "job.toml", "--yes")
    prompt.write_text("--- user ---\nv2 {{ text }}")
    small.run("run", "job.toml", "--yes", "--limit", "1")
    for said in kept(small):
        assert "between them changed: a file that the job reads." in said
        assert "with that file as it was `promptmill run job.toml` lists them again" in said


def test_the_command_that_brings_answers_back_names_the_settings_they_need(project):
    path, before = project.folder / "job.toml", (project.folder / "job.toml").read_text()
    path.write_text(before.replace("max_tokens = 50", "max_tokens = 50\ntemperature = 0.7"))
    project.run("run", "job.toml", "--yes", "--limit", "1", "--set", "model.seed=7")
    for said in kept(project):
        assert "between them changed: model.temperature, model.seed" in said
        assert "`promptmill run` with the settings of run 1 lists them" in said, "no option takes a key away"
    path.write_text(before.replace("test-model", "big"))
    said = project.run("status", "--ledger", str(project.folder / "promptmill.duckdb")).stderr
    command = "`promptmill run job.toml --set model.name=test-model --ledger /"
    assert command in said
    assert "lists them again and sends nothing that is answered" in said


def test_the_command_that_brings_answers_back_is_held_to_the_budget_and_the_price_of_then(project, stub):
    path = project.folder / "job.toml"
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    project.rows([*texts(12), {"id": "bad"}])
    then = ("--price", "0.25,2.00", "--budget", "0.00055", "--set", "input.bad_rows=reject")
    project.run("run", "job.toml", "--yes", *then, "--set", "prompt.user=Old: {{ text }}", code=None)
    project.run("run", "job.toml", "--yes", "--limit", "1")
    for said in kept(project):
        command = re.search("`promptmill (run job.toml .*?)` lists them again", said)[1]
        assert command.endswith(" --set input.bad_rows=reject --budget 0.00055 --price 0.25,2.00")
    calls = stub.calls
    assert "budget" in project.run(*shlex.split(command), "--yes", code=4).stderr
    assert stub.calls == calls


def test_rows_that_come_and_go_with_the_input_are_nothing_to_be_told_of(project, stub):
    project.rows(texts(4))
    project.run("run", "job.toml", "--yes", "--limit", "2")
    assert all("plan 1" not in said for said in kept(project))
    lines = (project.folder / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["ok", "ok"]


def test_a_ledger_made_again_from_its_journals_says_how_its_rows_come_back(project, stub):
    (project.folder / "promptmill.duckdb").unlink()
    (project.folder / "out.jsonl").write_text("yesterday's")
    for command in (("status",), ("errors", "job.toml"), ("results", "job.toml", "-o", "out.jsonl")):
        said = project.run(*command, code=None).stderr
        assert (
            said.count("job: its answers and costs are here, but no list of its rows in run 1, the newest, which") == 1
        )
        assert "`promptmill run job.toml` makes it again from the input and sends nothing that is answered" in said
    assert (project.folder / "out.jsonl").read_text() == "yesterday's", "and not a file without a row"
    assert project.run("results", "job.toml", "--with-input", "-o", "w.jsonl").stdout == (
        "8 rows -> w.jsonl (6 ok, 2 invalid)\n"
    )
    calls = stub.calls
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == calls
    assert kept(project)[0] == ""


def test_unfinished_rows_that_a_replaced_input_no_longer_has_are_told_once(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(10))
    project.job()
    stub.faults = lambda n, _: status(400) if n == 2 else None
    project.run("run", "job.toml", "--yes", "--limit", "5", code=None)
    project.rows(texts(12))
    assert "never ended well" not in project.run("run", "job.toml", "--yes", "--limit", "3", code=None).stderr
    project.rows([{"id": "new", "text": "another day"}])
    said = project.run("run", "job.toml", "--yes").stderr
    assert "the input has changed since plan 2, and 1 row that never ended well is not in it any more" in said, said
    assert "never ended well" not in project.run("run", "job.toml", "--yes").stderr


def test_a_run_that_was_killed_before_its_rows_were_listed_replaces_no_results(tmp_path):
    """The list of rows is in no journal; the plan of the day before has one, and is not the newest any more."""
    for key, fingerprint in (("v1a", "yesterday"), ("v1b", "today")):
        run = Booked(tmp_path / "promptmill.duckdb", fingerprint=fingerprint)
        run.answer(key)
        if fingerprint == "yesterday":
            run.rows("v1a")
        run.end(4)
    Booked(tmp_path / "promptmill.duckdb", "new").end(4)
    project = Project(tmp_path)
    (tmp_path / "out.jsonl").write_text("yesterday's")
    for job, says in (
        ("j", "j: its answers and costs are here, but no list of its rows in run 2, the newest"),
        ("new", "new: nothing has its outcome, and there is no list of its rows in run 3, the newest"),
    ):
        assert says in project.run("results", job, "-o", "out.jsonl", code=2).stderr
        assert (tmp_path / "out.jsonl").read_text() == "yesterday's"


def test_results_of_a_run_that_has_only_begun_ask_for_patience(tmp_path):
    run = Booked(tmp_path / "promptmill.duckdb", "new")
    (tmp_path / "out.jsonl").write_text("yesterday's")
    with job_lock(run.ledger.folder, "new", "an account"):
        said = Project(tmp_path).run("results", "new", "-o", "out.jsonl", code=2).stderr
    run.end(4)
    assert f"new is running (process {os.getpid()}) and has not listed its rows yet; ask again in a few seconds" in said
    assert (tmp_path / "out.jsonl").read_text() == "yesterday's"


def test_a_fresh_run_says_which_rows_keep_the_better_answer_they_had(project, stub):
    stub.answer = lambda payload: "{}" if payload["messages"][-1]["content"] < "row 2" else "no JSON"
    done = project.run("run", "job.toml", "--yes", "--fresh", code=3)
    assert "(2 ok, 6 invalid)" in done.stdout
    assert done.stderr.count("promptmill: 4 rows ended badly this time and keep the good answer that they had") == 1
    assert "(6 ok, 2 invalid)" in project.run("run", "job.toml", "--yes", code=3).stdout
    stub.answer = lambda _: "{}"
    assert "keep the good answer" not in project.run("run", "job.toml", "--yes", "--fresh").stderr
