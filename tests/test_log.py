"""The log of a run: readable in the morning, one line per event, never in the run's way."""

import asyncio
import logging
import os
import re
from types import SimpleNamespace

import pytest
from project import Project, texts
from stub_faults import every, status
from virtual_clock import run as run_virtually

from pipeline.errors import UsageError
from pipeline.records import Attempt
from pipeline.runners import runlog
from pipeline.runners.tally import Tally

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) .+")


@pytest.fixture
def project(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(20))
    project.job(concurrency=4)
    return project


@pytest.fixture
def write(tmp_path):
    """Open a log at tmp_path/a.log, let `act` use it, and return the lines and what the user was told."""

    def written(act, *, debug=False):
        told = []
        with runlog.opened(tmp_path / "a.log", debug=debug, notify=told.append) as log:
            act(log)
        return (tmp_path / "a.log").read_text(encoding="utf-8").splitlines(), told

    return written


def lines_of(project, name="night.log"):
    lines = (project.folder / name).read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line is whole"
    assert all(LINE.fullmatch(line) for line in lines), lines
    return lines


def attempt(**facts):
    base = {"key": "v1ab", "attempt": 1, "kind": "first", "result": "ok", "sent_at": 0.0, "latency_ms": 1.0}
    return Attempt(**base | {"reserved_usd": None, "computed_usd": None} | facts)


def test_a_log_may_begin_with_a_line_of_somebody_elses_and_other_files_are_left_alone(project):
    (project.folder / "night.log").write_text("=== Tuesday ===\n")
    project.run("run", "job.toml", "--yes", "--log", "night.log")
    first, second, *_ = (project.folder / "night.log").read_text().splitlines()
    assert first == "=== Tuesday ==="
    assert LINE.fullmatch(second)
    (project.folder / "notes.txt").write_text("=== Tuesday ===\n")
    said = project.run("run", "job.toml", "--yes", "--log", "notes.txt", code=2).stderr
    assert "the file exists and is not a log of promptmill; name another, or a .log" in said
    assert (project.folder / "notes.txt").read_text() == "=== Tuesday ===\n"


def test_a_log_tells_the_start_the_failures_and_the_end(project, stub):
    stub.faults = every(4, status(400, "this row is no good"))
    done = project.run("run", "job.toml", "--yes", "--budget", "1", "--log", "night.log", code=3)
    lines = lines_of(project)
    assert " info run 1 starts: job=job model=test-model provider=stub host=127.0.0.1 rows_known=0 " in lines[0]
    assert all(f" {fact}" in lines[0] for fact in ("budget=$1.00", "concurrency=4", f"pid={os.getpid()}", "version="))
    told = [line for line in lines if "not well:" in line]
    assert len(told) == 3, "the first three of five"
    assert all('error="this row is no good (HTTP 400)"' in line for line in told)
    assert any(line.endswith("info 5 times in all: rejected/bad_request") for line in lines)
    assert any(line.endswith(f"info run 1 ends with exit code 3: {done.stdout.strip()}") for line in lines)
    assert any("warning see why with: promptmill errors job.toml" in line for line in lines)


def test_several_nights_go_into_one_file(project):
    project.run("run", "job.toml", "--yes", "--log", "night.log")
    project.run("run", "job.toml", "--yes", "--log", "night.log")
    project.run("retry", "job.toml", "--yes", "--log", "night.log")
    assert len([line for line in lines_of(project) if " starts: " in line]) == 3


def test_debug_adds_one_line_per_exchange(project, stub):
    stub.faults = every(5, status(503))
    project.run("run", "job.toml", "--yes", "--log", "night.log", "--log-level", "debug")
    lines = [line for line in lines_of(project) if " debug exchange: " in line]
    assert len(lines) == stub.calls
    good = next(line for line in lines if "result=ok" in line)
    assert all(
        f" {name}=" in good for name in ("key", "attempt", "latency_ms", "input_tokens", "output_tokens", "cost")
    )
    assert "says hello" not in "".join(lines), "neither prompt nor answer"


def test_a_pause_and_its_reason_are_in_the_log(project, stub):
    stub.faults = lambda *_: status(402, "no credit")
    project.run("run", "job.toml", "--yes", "--log", "night.log", code=4)
    lines = lines_of(project)
    assert [line for line in lines if "warning stopping: no credit (HTTP 402" in line]
    assert [line for line in lines if "ends with exit code 4" in line]


def test_a_rate_limit_and_its_wait_are_in_the_log(project, stub):
    stub.faults = lambda n, _: status(429, retry_after=0.3) if n == 1 else None
    project.run("run", "job.toml", "--yes", "--log", "night.log")
    (line,) = [line for line in lines_of(project) if "rate limited: nothing goes out for" in line]
    assert 0.3 <= float(re.search(r"for ([\d.]+) s", line)[1]) < 1


def test_an_outage_is_no_rate_limit_in_the_log(project, stub):
    stub.faults = lambda n, _: status(503, retry_after=0.1) if n <= 12 else None
    project.run("run", "job.toml", "--yes", "--log", "night.log", "--set", "limits.concurrency=2", code=None)
    lines = lines_of(project)
    assert any("provider down: nothing goes out for" in line for line in lines)
    assert not any("rate limited" in line for line in lines)


def test_what_the_user_is_told_is_in_the_log_too(project):
    project.run("run", "job.toml", "--log", "night.log", "--price", "1,2", code=2)
    assert "nothing was sent: without a terminal" in lines_of(project)[-1]
    project.run("run", "none.toml", "--yes", "--log", "night.log", code=2)
    assert "none.toml" in lines_of(project)[-1]


@pytest.mark.parametrize(
    "bad", ["no/such/folder/x.log", "promptmill.duckdb", "job.toml", "rows.jsonl", "folder", "pipe"]
)
def test_a_log_that_cannot_be_opened_or_would_spoil_a_file_is_a_mistake_before_anything_is_sent(project, stub, bad):
    (project.folder / "folder").mkdir()
    os.mkfifo(project.folder / "pipe")
    before = {name: (project.folder / name).read_bytes() for name in ("job.toml", "rows.jsonl")}
    done = project.run("run", "job.toml", "--yes", "--log", bad, code=2)
    assert bad in done.stderr
    assert stub.calls == 0
    assert before == {name: (project.folder / name).read_bytes() for name in before}
    assert not (project.folder / "promptmill.duckdb").exists()


def test_a_log_level_without_a_log_is_a_mistake(project, stub):
    assert "--log FILE" in project.run("run", "job.toml", "--yes", "--log-level", "debug", code=2).stderr
    assert stub.calls == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's always-full device")  # noqa: PTH110
def test_a_log_that_fails_later_is_said_once_and_the_run_goes_on(project, stub):
    done = project.run("run", "job.toml", "--yes", "--log", "/dev/full", "--log-level", "debug")
    assert done.stderr.count("the log /dev/full can't be written: No space left on device; the run goes on") == 1
    assert project.value("select count(*) from results where status = 'ok'") == stub.calls == 20


def test_every_event_is_one_line_without_control_characters(write):
    hostile = "one\ntwo\r\x1b[2J\x9b31m\u202ethree\u2028four\x00"
    lines, _ = write(lambda log: (log.tell(hostile), log.ended(1, 0, hostile), log.failed(UsageError(hostile))))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert all("one" in line and "four" in line for line in lines)


def test_a_key_is_hidden_wherever_it_comes_from(write):
    def act(log):
        log.hide("mark-0123456789")
        log.tell("a warning with mark-0123456789 in it")
        runlog.exchange(attempt(result="rejected", error="bad key mark-0123456789", request_id="mark-0123456789"))
        log.failed(RuntimeError("mark-0123456789"))

    lines, _ = write(act)
    assert len(lines) == 3
    assert "mark-" not in "".join(lines)


def test_of_millions_of_equal_failures_a_few_are_told_and_all_are_counted(write):
    def act(_):
        for _n in range(12_345):
            runlog.exchange(attempt(result="unavailable", error_type="http_503", error="down"))
        runlog.exchange(attempt(result="invalid", error_type="schema", error="'private' is not a number"))

    lines, _ = write(act)
    told = [line for line in lines if "not well:" in line and "http_503" in line]
    assert len(told) == 3 + len((10, 100, 1_000, 10_000))
    assert told[-1].endswith("(10,000 like this so far)")
    assert lines[-1].endswith("12,345 times in all: unavailable/http_503")
    assert "private" not in "".join(lines), "a schema's complaint quotes the answer"


def test_failures_whose_codes_are_all_different_fill_no_disk(write):
    def act(_):
        for n in range(10_000):
            runlog.exchange(attempt(result="unavailable", error_type=f"err_{n}", error="down"))

    lines, _ = write(act)
    assert len(lines) < 250
    assert lines[-1].endswith(" times in all: unavailable/others")


def test_a_very_long_event_is_cut(write):
    (line,), _ = write(lambda log: log.tell("x" * 10**6))
    assert len(line) < runlog.LONGEST_LINE + 100


def test_a_line_that_a_full_disk_tore_does_not_swallow_the_next(tmp_path, write):
    (tmp_path / "a.log").write_text("2026-11-24T02:00:00.000Z info torn in mid-li", encoding="utf-8")
    lines, _ = write(lambda log: log.tell("whole"))
    assert lines[0].endswith("torn in mid-li")
    assert LINE.fullmatch(lines[1])


def test_logging_is_left_as_it_was_found(write):
    logger = logging.getLogger("promptmill")
    before = (logger.level, logger.propagate, list(logger.handlers), list(logging.getLogger().handlers))
    write(lambda log: log.tell("x"), debug=True)
    assert before == (logger.level, logger.propagate, list(logger.handlers), list(logging.getLogger().handlers))


def test_progress_is_told_once_a_minute(tmp_path):
    facts = {"spent": None, "in_flight": 2, "shut_seconds": 0.0, "ledger_problem": None, "requests_per_minute": 600.2}
    run = SimpleNamespace(tally=Tally(), **facts)
    for number in range(90):
        run.tally.row(f"k{number}", None)
        run.tally.ended(f"k{number}", "ok")

    async def night(log):
        watching = asyncio.create_task(log.watch(run))
        await asyncio.sleep(3 * 60 + 1)
        watching.cancel()

    with runlog.opened(tmp_path / "a.log", debug=False, notify=print) as log:
        run_virtually(night(log))
    lines = (tmp_path / "a.log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert all(" info progress: rows=90 done=90 ok=90 not_well=0 " in line for line in lines)
    assert all(" learned_per_minute=600" in line for line in lines)


@pytest.mark.parametrize("name", ["promptmill.duckdb.wal", "promptmill.duckdb.gate", "promptmill.journal/night.jsonl"])
def test_a_file_of_the_ledger_is_no_log(project, stub, name):
    project.rows(texts(2))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "1")
    said = project.run("run", "job.toml", "--yes", "--log", name, code=2).stderr
    assert f"--log {name}: that" in said
    assert stub.calls == 1
