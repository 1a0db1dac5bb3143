"""What commands say of a job that is not done: no total that nobody has counted, no "all well" where nothing ended."""

import json
import re
import shlex
import sys
from decimal import Decimal
from types import SimpleNamespace

import pytest
from bookings import Booked
from project import Project, texts
from stub_faults import reasoned_away, status

from pipeline.cli import group
from pipeline.cli._options import warn
from pipeline.cli._progress import Progress
from pipeline.cli._sending import _advice, _sentence
from pipeline.cli._show import table
from pipeline.cli._status_line import StatusLine
from pipeline.reports.settings import carried
from pipeline.runners.tally import Tally


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def many(count):
    """Rows with ten texts: ten requests, however many rows."""
    return [{"id": f"r{i}", "text": f"text {i % 10}"} for i in range(count)]


def broken_at_the_end(project, count=1100):
    rows = project.rows(many(count))
    rows.write_text(rows.read_text() + "{broken\n")
    project.job()


# -- run --------------------------------------------------------------------------------------------


def test_a_run_that_met_a_broken_line_gives_no_total_of_rows(project):
    broken_at_the_end(project)
    said = project.run("run", "job.toml", "--yes", code=4).stdout
    assert re.search(r"job: [\d,]+ of at least [\d,]+ rows have .* ok.*; the input was not read to its end\);", said)
    report = json.loads(project.run("run", "job.toml", "--yes", "--json", code=4).stdout)
    assert report["complete"] is False


def cut_short(project, stub, *args):
    """A run without --yes, which nobody is asked about as it is free, meets the end of the credit."""
    stub.faults = lambda number, _: status(402, "no credit") if number == 5 else None
    project.rows(texts(3000))
    path = project.job(concurrency=1)
    path.write_text(path.read_text().replace('"0.25"', '"0"').replace('"2.00"', '"0"'))
    said = project.run("run", "job.toml", *args, code=4).stdout
    stub.faults = None
    return said


def test_status_counts_the_rows_that_an_interrupted_run_had_counted_before(project, stub):
    assert "4 of 3,000 rows have their outcome (4 ok, 2,996 pending)" in cut_short(project, stub)
    listed = project.value("select count(*) from results")
    assert listed < 3000
    shown = project.run("status")
    assert re.search(r"^job +paused +3000 +4 +0 +2996 ", shown.stdout, re.MULTILINE), shown
    assert f"the run had listed {listed:,} of its 3,000 rows" in shown.stdout
    assert "not read to its end" not in shown.stdout
    (row,) = json.loads(project.run("status", "--json").stdout)
    assert (row["rows"], row["ok"], row["pending"], row["complete"]) == (3000, 4, 2996, False)


def test_what_was_counted_of_another_plan_is_no_matter(project, stub):
    cut_short(project, stub)
    project.run("run", "job.toml", "--yes", "--limit", "2", "--set", "model.seed=1")
    (row,) = json.loads(project.run("status", "--json").stdout)
    assert (row["rows"], row["ok"], row["pending"]) == (2, 2, 0)


def test_a_run_that_goes_on_with_a_plan_that_is_whole_knows_its_total(project, stub):
    project.rows(texts(1500))
    project.job()
    project.run("run", "job.toml", "--yes")
    stub.faults = lambda number, _: status(402, "no credit") if number >= 1510 else None
    said = project.run("run", "job.toml", "--yes", "--fresh", code=4).stdout
    assert re.search(r"job: \d+ of 1,500 rows have their outcome \(\d+ ok, 1,4\d\d pending\);", said), said
    stub.faults = None
    assert "40 of 40 rows (--limit)" in project.run("run", "job.toml", "--yes", "--fresh", "--limit", "40").stdout


def test_a_run_says_in_json_whether_it_saw_the_end_of_the_input(project):
    project.rows(texts(5))
    project.job()
    limited = project.run("run", "job.toml", "--yes", "--json", "--limit", "2")
    assert json.loads(limited.stdout)["complete"] is False
    assert json.loads(project.run("run", "job.toml", "--yes", "--json").stdout)["complete"] is True


def summed_up(tally, *, limited=False, paused="stopped by Ctrl-C"):
    report = SimpleNamespace(
        tally=tally, paused=paused, free=False, spent=Decimal("0.5"), uncertain=Decimal(0), unbounded=0, seconds=3
    )
    return _sentence(SimpleNamespace(name="big"), report, limited=limited)


def seen(rows, done, **facts):
    tally = Tally(sent=done, **facts)
    for number in range(rows):
        tally.row(f"k{number}", "ok" if number < done else None)
    return tally


@pytest.mark.parametrize(
    ("tally", "said"),
    [
        (
            seen(1024, 762),
            "big: 762 of at least 1,024 rows have their outcome (762 ok, 262 pending; the input was not read to its",
        ),
        (seen(1024, 762, total=3000), "big: 762 of 3,000 rows have their outcome (762 ok, 2,238 pending);"),
        (seen(1024, 762, total=1024, scanned=True), "big: 762 of 1,024 rows have their outcome (762 ok, 262 pending);"),
        (seen(0, 0), "big: ended before it had looked at a row;"),
        (seen(0, 0, total=3000), "big: 0 of 3,000 rows have their outcome (3,000 pending);"),
    ],
)
def test_a_run_names_a_total_only_where_it_is_known(tally, said):
    assert summed_up(tally).startswith(said)


def test_nothing_to_send_is_said_of_the_rows_that_were_looked_at():
    tally = seen(300, 300, scanned=True)
    tally.sent = 0
    assert "every row has its outcome (300 ok)" in summed_up(tally, paused=None)
    assert "every row that --limit looks at has its outcome" in summed_up(tally, paused=None, limited=True)


# -- status -----------------------------------------------------------------------------------------


def state_of(project):
    (row,) = json.loads(project.run("status", "job", "--json").stdout)
    return row["state"]


def test_a_job_is_finished_only_when_every_row_of_its_plan_has_ended(project, stub):
    stub.faults = lambda number, _: status(400) if number == 1 else None
    project.rows(texts(5))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", "--limit", "2", code=3)
    assert state_of(project) == "partial"
    assert "job: the input was not read to its end, so there may be more rows\n" in project.run("status").stdout
    project.run("run", "job.toml", "--yes", code=3)
    assert state_of(project) == "finished"
    assert project.run("status").stdout.count("\n") == 3


def test_a_retry_after_a_pause_does_not_make_the_job_finished(project, stub):
    stub.faults = lambda number, _: status(400) if number == 1 else status(402) if number == 3 else None
    project.rows(texts(5))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=4)
    assert state_of(project) == "paused"
    project.run("retry", "job.toml", "--yes")
    assert state_of(project) == "partial"
    assert "job: its newest run was not asked for the 3 rows that are pending\n" in project.run("status").stdout


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_no_terminal_is_too_narrow_for_a_state_and_for_money(tmp_path, monkeypatch, capsys, columns):
    path = tmp_path / "promptmill.duckdb"
    run = Booked(path, job="extract-orders-of-the-whole-last-year-once-more")
    run.answer("k0", cost=Decimal("0.077123456789"))
    run.rows("k0", "k1", "k2")
    run.end(4)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("pipeline.api._standing._state", lambda *_: "running (1234567)")
    assert group.main(["status", "--ledger", str(path)], standalone_mode=False) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= columns
    assert "running (1234567)" in shown[2]
    assert "0.077123456789" in shown[2]


def test_a_number_in_a_table_is_never_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    row = {"text": "word " * 10, "usd": Decimal("1234.123456789012"), "tokens": 123_456_789_012}
    assert table(list(row), [row]).splitlines()[2] == "word wo\u2026  1234.123456789012  123456789012"


def watched(**facts):
    tally = seen(1024, 762)
    tally.ended("k1000", "failed")
    usual = {
        "waiting_alone": (0, 0.0),
        "in_flight": 32,
        "free": False,
        "spent": Decimal("0.0771234"),
        "projected": Decimal("1.5"),
        "down": False,
    }
    return SimpleNamespace(tally=tally, **usual | {"shut_seconds": 0, "ledger_problem": None} | facts)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (30, "763 of 1,024+ rows"),
        (40, "763 of 1,024+ rows  $0.0771234 spent"),
        (60, "763 of 1,024+ rows  $0.0771234 spent  762 ok  1 not well"),
        (80, "763 of 1,024+ rows  $0.0771234 spent  762 ok  1 not well  32 in flight"),
        (120, "763 of 1,024+ rows  $0.0771234 spent  762 ok  1 not well  32 in flight  about $1.50 in all  0.0 rows/s"),
    ],
)
def test_a_narrow_progress_line_leaves_facts_out_and_cuts_none(monkeypatch, columns, line):
    written = []
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(StatusLine, "_write", staticmethod(lambda text: written.append(text) or True))
    StatusLine().show(Progress(quiet=False).line(watched(), now=0.0))
    assert written == ["\r" + line]


def test_a_terminal_that_can_not_go_back_gets_whole_lines(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = StatusLine()
    line.show("one")
    warn("news")
    line.show("two")
    line.end()
    assert capsys.readouterr().err == "one\npromptmill: news\ntwo\n"


def test_the_progress_line_says_what_rate_limits_hold_the_run_to():
    run = watched(requests_per_minute=1500.4)
    run.tally.rate_limited = 213
    line = Progress(quiet=False).line(run, now=0.0)
    assert "  slowed down by 213 rate limits, at most 1,500 requests/min now  0.0 rows/s" in line


def test_the_end_says_how_many_429s_had_only_their_own_rows_wait_unless_they_are_few():
    def advice(alone):
        tally = Tally(sent=1000, limited_alone=alone)
        return _advice(SimpleNamespace(tally=tally, left_over=None, paused=None, seconds=9.0, requests_per_minute=None))

    assert advice(10) == []
    assert advice(11) == ["11 answers said to slow down (429) while other requests passed: only their own rows waited"]


def test_where_only_rows_that_a_429_refused_are_left_the_progress_line_says_until_when_they_wait():
    waits = watched(in_flight=0, waiting_alone=(112, 58.4), requests_per_minute=None)
    assert "112 rows turned away (429, 503), going on in 58 s" in Progress(quiet=False).line(waits, now=0.0)
    busy = watched(in_flight=1, waiting_alone=(112, 58.4), requests_per_minute=None)
    assert "429" not in Progress(quiet=False).line(busy, now=0.0)


def test_trouble_stands_before_figures_in_the_progress_line():
    line = Progress(quiet=False).line(watched(shut_seconds=30), now=0.0)
    assert line.startswith("763 of 1,024+ rows  $0.0771234 spent  rate limited, going on in 30 s  762 ok")


@pytest.mark.parametrize(("shut", "left"), [(0, True), (30, False)])
def test_a_run_that_waits_names_no_time_left(shut, left):
    progress = Progress(quiet=False)
    progress.line(watched(), now=0.0)
    run = watched(shut_seconds=shut)
    run.tally.total, run.tally.statuses["ok"] = 2000, run.tally.statuses["ok"] + 60
    assert progress.line(run, now=60.0).endswith(" left") == left


def test_the_time_left_stays_where_rows_come_seldom_or_all_at_once():
    progress, run = Progress(quiet=False), watched()
    run.tally.total = run.tally.done + 2000
    lines = []
    for half_second in range(400):
        run.tally.statuses["ok"] += 32 * (half_second in (120, 240, 360))
        lines.append(progress.line(run, now=half_second / 2).rpartition("  ")[2])
    assert not any(line.endswith(" left") for line in lines[:120])
    assert {line[:4] for line in lines[120:]} == {"1 h ", "59 m"}, "as long as it takes"
    assert all(line.endswith(" left") for line in lines[120:])


def test_the_time_left_shrinks_while_a_row_is_waited_for_and_a_few_rows_say_nothing():
    progress, run = Progress(quiet=False), watched()
    run.tally.total = run.tally.done + 40
    progress.line(run, now=0.0)

    def after(seconds, rows):
        run.tally.statuses["ok"] += rows
        line = progress.line(run, now=seconds)
        return line.rpartition("  ")[2] if line.endswith(" left") else None

    assert [after(1.0, 1), after(30.0, 0), after(60.0, 8)] == [None, None, None]
    assert [after(100.0, 11), after(110.0, 0), after(120.0, 0)] == [
        "1 min 40 s left",
        "1 min 30 s left",
        "1 min 20 s left",
    ]


# -- errors -----------------------------------------------------------------------------------------


def test_errors_does_not_call_a_job_well_of_which_nothing_has_ended(project, stub):
    stub.faults = lambda *_: status(402, "no credit")
    project.rows(texts(4))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=4)
    done = project.run("errors", "job.toml")
    assert done.stdout == "no row has ended yet: 4 pending\n"
    assert re.fullmatch(
        r"run 1 paused: .*no credit.* `promptmill run job.toml` goes on when that is over or put right\n", done.stderr
    )
    assert project.run("errors", "job", "--json").stdout == "[]\n"


def test_errors_never_shows_unknown_costs_as_nothing(project):
    run = Booked(project.folder / "promptmill.duckdb", "job")
    failed = {"result": "unavailable", "usage": None, "output": None, "error_type": "http_503"}
    for key, costs in {"a": (0, 0), "b": (None, 0)}.items():
        for number, cost in enumerate(costs, 1):
            run.attempt(key, number, cost=None if cost is None else Decimal(cost), **failed)
        run.outcome(key, "failed", 2, answered=False, error_type="http_503")
    run.rows("a", "b", "b")
    run.end()
    (cause,) = json.loads(project.run("errors", "job", "--json").stdout)
    assert (cause["rows"], cause["cost_usd"], cause["unknown_cost"]) == (3, None, 1)
    assert "unknown_cost" in project.run("errors", "job").stdout


def test_errors_says_what_is_pending_where_all_that_ended_ended_well(project, stub):
    project.rows(texts(4))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "3")
    done = project.run("errors", "job")
    said = "every row that has ended ended well: 3 ok; the input was not read to its end\n"
    assert done.stdout == said
    assert done.stderr == "run 1 went to its end; `promptmill run job.toml` lists and sends what is left\n"
    project.run("run", "job.toml", "--yes")
    assert project.run("errors", "job").stdout == "all rows ended well: 4 ok\n"


def test_errors_and_results_count_as_pending_what_status_does(project):
    run = Booked(project.folder / "promptmill.duckdb", "job")
    run.answer("a")
    counted = {"run_id": 1, "plan_id": 1, "rows": 6000, "requests": 6000, "input_tokens": 50, "count_method": "exact"}
    run.rows("a", "b", "c", estimate=counted)
    run.end(exit_code=4)
    (status,) = json.loads(project.run("status", "--json").stdout)
    assert (status["rows"], status["listed"], status["pending"]) == (6000, 3, 5999)
    assert "1 ok, 5,999 pending" in project.run("errors", "job").stdout
    told = "3 rows -> out.jsonl (1 ok, 2 pending; only 3 of at least 6,000 rows are listed yet)\n"
    assert project.run("results", "job", "-o", "out.jsonl").stdout == told


@pytest.mark.parametrize(
    ("output", "helps"),
    [
        ("", "(a clearer prompt, with `promptmill run`, helps more)"),
        (
            '[output]\nschema = { type = "object" }',
            "(a clearer prompt, with `promptmill run`, or [output] repair helps more)",
        ),
        ('[output]\nrepair = 1\nschema = { type = "object" }', "(a clearer prompt, with `promptmill run`, helps more)"),
    ],
)
def test_errors_recommends_repair_only_where_there_can_be_more_of_it(project, stub, output, helps):
    stub.answer = lambda _: ""
    project.rows(texts(2))
    project.job(more=output)
    project.run("run", "job.toml", "--yes", code=3)
    assert f"invalid: promptmill retry job.toml --status invalid    {helps}" in project.run("errors", "job").stderr


def test_the_commands_that_errors_prints_do_what_they_say(project, stub):
    stub.faults = lambda number, _: status(400) if number == 1 else status(500) if number == 2 else None
    project.rows(texts(1))
    project.rows([{"id": "x", "text": f"other {i}"} for i in range(3)], "my rows.jsonl")
    project.job(concurrency=1, more="[retry]\nattempts = 1")
    project.run("run", "job.toml", "--yes", "--set", "input.path=my rows.jsonl", "--limit", "2", code=3)
    said = project.run("errors", "job.toml").stderr
    command = re.search(r"failed: promptmill (retry job.toml .*) --status failed\n", said)[1]
    assert "run 1 had other settings than job.toml has now: input.path. Without --set a command looks at other" in said
    assert "nothing was sent" in project.run("retry", "job.toml", "--yes", "--status", "failed", code=2).stderr
    project.run(*shlex.split(command), "--status", "failed", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 1


def test_the_commands_that_errors_prints_are_not_stopped_by_what_the_run_was_allowed(project, stub):
    stub.faults = lambda number, _: status(500) if number == 2 else None
    project.rows([{"id": "a"}, *texts(2)])
    project.job(concurrency=1, more="[retry]\nattempts = 1\n[budget]\nusd = 0.00001")
    options = ("--set", "input.bad_rows=reject", "--budget", "1.5", "model.max_tokens=60")
    settings = ("--set", "input.bad_rows=reject", "--set", "model.max_tokens=60", "--budget", "1.5")
    project.run("run", "job.toml", "--yes", *settings, code=3)
    said = project.run("errors", "job.toml").stderr
    assert "had other settings" not in said, "a budget of the command line is no news to who gives it"
    command = re.search(r"failed: promptmill (retry job.toml .*)\n", said)[1]
    assert {*options} < {*shlex.split(command)}
    project.run(*shlex.split(command), "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 2


def test_the_command_that_sends_what_is_pending_runs_as_it_is_printed(project, stub):
    stub.faults = lambda number, _: status(402, "no credit") if number == 2 else None
    project.rows([{"id": "a"}, *texts(3)])
    project.job(concurrency=1, more="[budget]\nusd = 0.00001")
    settings = ("--set", "input.bad_rows=reject", "--set", "model.max_tokens=60", "--budget", "1.5")
    project.run("run", "job.toml", "--yes", *settings, "--ledger", "l.duckdb", code=4)
    said = project.run("errors", "job.toml", "--ledger", "l.duckdb").stderr
    command = shlex.split(re.search("`promptmill (run job.toml .*)` goes on", said)[1])
    assert "model.max_tokens=60" in command
    project.run(*command, "--yes", code=3)
    assert "3 rows ended well, 1 did not\n" in project.run("errors", "job.toml", "--ledger", "l.duckdb").stderr


@pytest.mark.parametrize(
    ("booked", "now", "options"),
    [
        ({}, {}, ""),
        ({"budget": {"usd": 1.5}}, {"budget": {"usd": 1.5}}, ""),
        ({"budget": {"usd": 1.5}}, {"budget": {"usd": 2.0}}, ""),
        ({}, {"budget": {"usd": 2.0}}, ""),
        ({"budget": {"usd": 1.5}}, {"budget": {"usd": 0.3}}, " --budget 1.5"),
        ({"budget": {"usd": 1.5}}, {}, " --budget 1.5"),
        ({"model": {"max_tokens": 60}}, {"model": {"max_tokens": 50}}, " --set model.max_tokens=60"),
        ({"model": {"max_tokens": 60}}, {"model": {"max_tokens": 70}}, ""),
        ({"model": {"max_tokens": 60}}, {"model": {}}, ""),
        ({"input": {"bad_rows": "reject"}}, {"input": {}}, " --set input.bad_rows=reject"),
        ({"input": {}}, {"input": {"bad_rows": "reject"}}, ""),
        ({"price": {"input": "0.25", "output": "2.00"}}, {}, " --price 0.25,2.00"),
        ({"price": {"input": "0.25", "output": "2.00"}}, {"price": {"input": "0.3", "output": "2"}}, ""),
    ],
)
def test_a_command_keeps_what_the_run_was_allowed_and_the_job_file_does_not_allow_now(booked, now, options):
    assert "".join(carried(booked, now).values()) == options


def test_errors_says_of_rejected_rows_only_what_helps_their_causes(project, stub):
    project.rows([{"id": "a", "text": "hello"}, {"id": "b"}])
    project.job(more_input='id = "id"\nbad_rows = "reject"')
    project.run("run", "job.toml", "--yes", code=3)
    said = project.run("errors", "job.toml").stderr
    assert "rejected (bad_row): no provider has seen these rows, and they cost nothing: mend them or the prompt" in said
    assert not re.search("never_|the provider will never take", said)
    query = shlex.split(re.search(r"each row: promptmill (sql .*)\n", said)[1])
    (row,) = json.loads(project.run(*query, "--json").stdout)
    assert (row["row_id"], row["status"], row["error_type"]) == ("b", "rejected", "bad_row")
    project.rows([{"id": "a", "text": "hello"}, {"id": "b", "text": "mended"}])
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 2


def test_errors_names_what_helps_each_cause_of_a_rejection(project, stub):
    stub.faults = lambda number, _: status(400) if number == 1 else None
    project.rows([*texts(3), {"id": "long", "text": "word " * 2000}, {"id": "b"}])
    project.job(concurrency=1, more_input='bad_rows = "reject"', limits="tokens_per_minute = 1000")
    project.run("run", "job.toml", "--yes", code=3)
    said = project.run("errors", "job.toml").stderr
    assert (
        "rejected: promptmill retry job.toml --status rejected"
        "    (helps only where what the message says was put right)" in said
    )
    assert "rejected (bad_row): " in said
    assert "rejected (never_fits): a stated limit held these rows back" in said
    assert "never_passes" not in said


def test_the_commands_that_errors_prints_name_the_ledger_if_it_is_another(project, stub):
    stub.faults = lambda *_: status(500)
    project.rows(texts(1))
    project.job(more="[retry]\nattempts = 1\n[stop]\noutage_rows = 0")
    ran = project.run("run", "job.toml", "--yes", "--ledger", "my own.duckdb", code=3)
    assert "see why with: promptmill errors job.toml --ledger 'my own.duckdb'" in ran.stderr
    said = project.run("errors", "job.toml", "--ledger", "my own.duckdb").stderr
    assert "failed: promptmill retry job.toml --ledger 'my own.duckdb' --status failed" in said


def test_a_truncated_rows_command_names_one_limit_only(project, stub):
    stub.faults = lambda number, _: reasoned_away() if number == 1 else None
    project.rows(texts(2))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", "--set", "model.max_tokens=60", code=3)
    said = project.run("errors", "job.toml").stderr
    assert "truncated: promptmill retry job.toml --status truncated --max-tokens N    (with a larger N)" in said


def test_errors_says_that_the_prompt_is_another_now(project, stub):
    stub.faults = lambda *_: status(500)
    project.rows(texts(1))
    job = project.job(more="[retry]\nattempts = 1\n[stop]\noutage_rows = 0")
    project.run("run", "job.toml", "--yes", code=3)
    job.write_text(job.read_text().replace('user = "', 'user = "' + "Please. " * 20))
    project.run("run", "job.toml", "--yes", code=3)
    job.write_text(job.read_text().replace("Please. ", "Now. "))
    assert (
        "had other settings than job.toml has now: prompt.user. The rows above are"
        in project.run("errors", "job").stderr
    )


def test_a_run_that_pauses_over_bad_answers_names_the_command_that_shows_them(project, stub):
    stub.answer = lambda _: ""
    project.rows(texts(60))
    project.job()
    said = project.run("run", "job.toml", "--yes", code=4).stderr
    assert "allows. A clearer prompt, which asks every row anew, or a larger max_tokens helps; invalid_share" in said
    assert "With --set stop.invalid_share=1, the same command goes on from here." in said
    calls = stub.calls
    project.run("run", "job.toml", "--yes", "--set", "stop.invalid_share=1", code=3)
    assert stub.calls <= 60 + 8, calls
    assert "see why with: promptmill errors job.toml" in said
