"""Promise: equal content is one request, and what was paid for is never asked for again, however the job changes."""

import json
import os
import random
import sys
import threading
from decimal import Decimal
from functools import partial

import polars as pl
import pytest
from project import Project, texts
from stub_faults import status


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_rows_with_equal_prompts_are_one_request(project, stub):
    project.rows([{"text": f"prompt {i % 10}"} for i in range(300)])
    project.job(more_input="")
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 10
    summary = project.sql("select count(*) n, count(output) answered, sum(cost_usd) cost from results")
    assert summary == [{"n": 300, "answered": 300, "cost": str(stub.bill.quantize(Decimal("1e-12")))}]
    assert project.value("select count(*) from results where reused") == 290


def test_answers_of_another_job_are_taken_over_in_a_few_writes(project, stub):
    project.rows(texts(1000))
    for name in ("one", "two"):
        project.job(name)
    project.run("run", "one.toml", "--yes")
    writes = 0

    def watch(frame, event, argument):
        nonlocal writes
        writes += event == "c_call" and argument is os.write and frame.f_globals["__name__"] == "pipeline.journal"

    sys.setprofile(watch)
    try:
        project.run("run", "two.toml", "--yes")
    finally:
        sys.setprofile(None)
    assert stub.calls == 1000
    assert project.value("select count(*) from results where job = 'two' and reused") == 1000
    assert 0 < writes < 20


def test_a_shuffled_file_with_one_row_more_and_one_less_makes_one_call(project, stub):
    rows = texts(100)
    project.rows(rows)
    project.job()
    project.run("run", "job.toml", "--yes")
    changed = [*rows[1:], {"id": "new", "text": "a new row"}]
    random.Random(4).shuffle(changed)
    project.rows(changed)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 101
    found = project.sql("select row_id, output from results order by row_index")
    assert [(row["row_id"], json.loads(row["output"])["echo"]) for row in found] == [
        (row["id"], row["text"]) for row in changed
    ]


def test_a_second_run_sends_nothing_and_says_so(project, stub):
    project.rows(texts(20))
    project.job()
    project.run("run", "job.toml", "--yes")
    again = project.run("run", "job.toml", "--yes")
    assert stub.calls == 20
    assert "nothing to send: every row has its outcome (20 ok)" in again.stdout


def _refused_after(calls, number, _):
    return status(401) if number > calls else None


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_resumed_run_passes_over_what_is_done_and_books_the_same_as_a_whole_one(tmp_path, stub, kind):
    """Rows repeat before, across and behind the place where the first run stopped."""
    numbers = [n if n % 3 else n // 2 for n in range(2400)]
    rows = [{"id": f"r{i}", "text": f"prompt {n}"} for i, n in enumerate(numbers)]
    ledgers = []
    for name, stops_at in (("whole", None), ("resumed", (300, 1100))):
        folder = tmp_path / name
        folder.mkdir()
        project, before = Project(folder, stub.base_url), stub.calls
        project.rows(rows)
        pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
        project.job(data=f"rows.{kind}")
        for stop in stops_at or ():
            stub.faults = partial(_refused_after, before + stop)
            assert project.run("run", "job.toml", "--yes", code=4)
        stub.faults = None
        report = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
        assert report["statuses"] == {"ok": 2400}
        assert (report["rows"], report["repeated"]) == (2400, 2400 - len(set(numbers)))
        last = json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)
        assert (last["sent"], last["already"], last["statuses"]) == (0, 2400, {"ok": 2400})
        ledgers.append(
            project.sql("select row_index, row_id, key, status, output from results order by 1")
            + project.sql("select row_index, repeated from rows order by 1")
            + project.sql("select complete, rows from plans")
        )
    assert ledgers[0] == ledgers[1]


def test_another_jobs_answers_serve_unless_the_job_keeps_to_its_own(project, stub):
    project.rows(texts(10))
    project.job("one")
    project.job("two")
    project.job("three", more='[run]\nreuse = "job"')
    project.run("run", "one.toml", "--yes")
    project.run("run", "two.toml", "--yes")
    assert stub.calls == 10
    assert project.sql("select count(*) n, sum(cost_usd) c, bool_and(reused) r from results where job = 'two'") == [
        {"n": 10, "c": "0.000000000000", "r": True}
    ]
    project.run("run", "three.toml", "--yes")
    assert stub.calls == 20
    project.run("run", "one.toml", "--yes", "--fresh")
    assert stub.calls == 30


def test_without_dedupe_each_row_is_asked_on_its_own_and_a_resume_keeps_them_apart(project, stub):
    project.rows([{"text": "throw a die"}] * 6)
    project.job(more_input="", more="[run]\ndedupe = false")
    project.run("run", "job.toml", "--yes", "--limit", "4")
    assert stub.calls == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 6


def test_a_changed_and_restored_prompt_keeps_what_was_paid_for(project, stub):
    project.rows(texts(5))
    path = project.job()
    original = path.read_text()
    project.run("run", "job.toml", "--yes")
    path.write_text(original.replace("{{ text }}", "Say: {{ text }}"))
    project.run("run", "job.toml", "--yes")
    path.write_text(original)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 10
    assert project.value("select count(*) from plans") == 3


def test_limit_works_on_the_same_plan(project, stub):
    project.rows(texts(30))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "10")
    assert stub.calls == 10
    assert project.sql("select complete, rows from plans") == [{"complete": False, "rows": None}]
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 30
    assert project.sql("select complete, rows from plans") == [{"complete": True, "rows": 30}]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_results_with_input_are_joined_by_key_so_an_edited_file_cannot_shift_answers(project, ending):
    rows = texts(10)
    project.rows(rows)
    project.job()
    project.run("run", "job.toml", "--yes")
    project.rows([{"id": "new", "text": "not asked yet", "status": "mine"}, *reversed(rows)])
    project.run("results", "job.toml", "--with-input", "-o", f"out{ending}")
    readers = {".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet, ".csv": pl.read_csv}
    found = readers[ending](project.folder / f"out{ending}").to_dicts()
    assert (found[0]["id"], found[0]["status"], found[0]["output"]) == ("new", "pending", None)
    assert found[0]["input_status"] == "mine"
    for row in found[1:]:
        assert json.loads(row["output"])["echo"] == row["text"]


def test_an_interrupted_fresh_run_goes_on_where_it_was(project, stub):
    project.rows(texts(10))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    stub.faults = lambda n, _: status(402, "no credit") if n == 15 else None
    project.run("run", "job.toml", "--yes", "--fresh", code=4)
    assert stub.calls == 15
    stub.faults = None
    for command in (("run", "--yes"), ("estimate", "--pilot", "3")):
        project.run(command[0], "job.toml", *command[1:])
    assert stub.calls == 15, "they found nothing to send, and end nothing"
    project.run("run", "job.toml", "--yes", "--fresh")
    assert stub.calls == 15 + 6, "four were asked again before the pause"
    project.run("run", "job.toml", "--yes", "--fresh")
    assert stub.calls == 21 + 10, "a finished fresh run is over: the next one asks for all again"


def test_a_file_that_grows_every_day_pays_only_for_what_is_new(project, stub):
    project.job()
    for day in (10, 25, 40):
        project.rows(texts(day))
        project.run("run", "job.toml", "--yes")
        assert stub.calls == day
        assert project.sql("select count(*) n, count(output) answered from results") == [{"n": day, "answered": day}]


def test_equal_prompts_that_are_asked_at_the_same_time_are_still_one_request(project, stub):
    stub.latency = 0.02
    project.rows([{"text": "the same"}] * 500)
    project.job(more_input="", concurrency=32)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 1
    assert project.sql("select count(*) n, sum(attempts)::int calls from results where status = 'ok'") == [
        {"n": 500, "calls": 1}
    ]


def test_a_bad_answer_serves_all_its_rows_too_and_is_paid_for_once(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 80)
    project.rows([{"text": "the same"}] * 20)
    project.job(more_input="")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select status, count(*) n, sum(cost_usd) usd from results group by all") == [
        {"status": "truncated", "n": 20, "usd": f"{stub.bill:.12f}"}
    ]


@pytest.mark.parametrize(
    "change",
    [
        "limits.concurrency=3",
        "limits.requests_per_minute=6000",
        "model.max_tokens=49",
        "retry.attempts=2",
        "budget.usd=1",
    ],
)
def test_settings_that_do_not_shape_an_answer_do_not_ask_again(project, stub, change):
    project.rows(texts(5))
    project.job()
    project.run("run", "job.toml", "--yes")
    project.run("run", "job.toml", "--yes", "--set", change)
    assert stub.calls == 5


@pytest.mark.parametrize("change", ["model.temperature=0.5", 'model.name="another"', "model.seed=7"])
def test_settings_that_shape_an_answer_ask_again_and_what_is_changed_back_is_still_paid_for(project, stub, change):
    project.rows(texts(5))
    project.job()
    for extra, calls in (([], 5), (["--set", change], 10), ([], 10), (["--set", change], 10)):
        project.run("run", "job.toml", "--yes", *extra)
        assert stub.calls == calls


ROWS, LONG = 3000, " and so on" * 40


@pytest.mark.parametrize("how", ["in place", "by another file"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_input_that_changes_while_it_is_read_pauses_the_run_and_shifts_no_answer(tmp_path, stub, how, kind):
    """Rows of the new content, stored under the old one's plan, would be passed over for ever once it is back."""
    project = Project(tmp_path, stub.base_url)
    name = f"rows.{kind}"

    def write(word, to=name):
        frame = pl.DataFrame({"id": [f"r{n}" for n in range(ROWS)], "text": [f"{word} {n}{LONG}" for n in range(ROWS)]})
        part = tmp_path / f"part.{kind}"
        frame.write_parquet(part) if kind == "parquet" else frame.write_ndjson(part)
        if how == "in place":
            (tmp_path / to).write_bytes(part.read_bytes())
        else:
            part.replace(tmp_path / to)

    changed = threading.Event()

    def answer(payload):
        if stub.calls > 20 and not changed.is_set():
            changed.set()
            write("new")
        return "about " + payload["messages"][-1]["content"].removesuffix(LONG)

    stub.answer = answer
    write("old")
    project.job(data=name, concurrency=4)
    paused = project.run("run", "job.toml", "--yes", code=4)
    assert f"{name} was changed while it was read" in paused.stderr
    write("old")
    project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "--with-input", "-o", "r.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["output"] for line in lines] == [f"about old {n}" for n in range(ROWS)]
    listed = project.sql("select row_index, output from results order by row_index")
    assert [line["output"] for line in listed] == [f"about old {n}" for n in range(ROWS)]


def test_an_input_that_is_only_touched_while_it_is_read_is_the_same(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows([{"id": f"r{n}", "text": f"{n}{LONG}"} for n in range(ROWS)])
    touched = threading.Event()

    def answer(_):
        if stub.calls > 20 and not touched.is_set():
            touched.set()
            os.utime(tmp_path / "rows.jsonl")
        return "fine"

    stub.answer = answer
    project.job(concurrency=4)
    project.run("run", "job.toml", "--yes")
    assert stub.calls == ROWS
