"""What programs and notebooks call: what it takes, refuses and raises, and how a run is stopped from outside."""

import asyncio
import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from pages import ROOT, blocks
from project import Project, texts
from stub_faults import status

import pipeline
from pipeline import Ledger, Overrides, Period, RunOptions, UserError, api
from pipeline.errors import RunPaused, UsageError
from pipeline.runners.job_lock import live_runs


@pytest.fixture
def project(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(40))
    project.job(concurrency=4)
    return project


@pytest.fixture
def job(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    return api.open_job("job.toml")


@pytest.fixture
def ledger(project):
    return Ledger(project.folder / "promptmill.duckdb")


def quiet(**more):
    return RunOptions(environ={}, notify=lambda text: None, **more)


# -- what is taken -----------------------------------------------------------------------------------


def test_everything_that_the_package_names_can_be_imported_from_it():
    assert set(pipeline.__all__) == {name for name in dir(pipeline.api) if name in pipeline.__all__} | {
        "Ledger", "Period", "PromptmillError", "RunPaused", "Target", "UserError",
    }  # fmt: skip
    assert pipeline.run is api.run
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pipeline.nothing


def test_the_command_line_does_not_wait_for_what_a_notebook_imports():
    code = "import sys, pipeline, pipeline.cli; print(sorted({'polars', 'duckdb', 'pipeline.api'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", [str, lambda path: path], ids=["text", "path"])
def test_files_are_named_by_texts_or_paths(project, stub, name, monkeypatch):
    monkeypatch.chdir(project.folder)
    file, ledger = name(project.folder / "job.toml"), Ledger(name(project.folder / "l.duckdb"))
    job = api.open_job(file)
    assert api.run(job, ledger, quiet()).exit_code == 0
    assert api.results(ledger, file, name(project.folder / "r.jsonl"), now=job, with_input=True).rows == 40
    assert api.errors(ledger, file).table.rows == []
    assert api.status(ledger, file)[0].rows[0]["state"] == "finished"
    assert api.earlier(ledger, file) is None


def test_a_run_is_left_to_its_defaults(project, job, ledger, stub, caplog):
    with caplog.at_level(logging.WARNING, logger="promptmill"):
        report = api.run(job, ledger)
    assert (report.exit_code, stub.calls) == (0, 40)


def test_notices_go_to_the_logger_by_default(project, job, ledger, monkeypatch):
    told = []
    monkeypatch.setattr(logging.getLogger("promptmill"), "warning", lambda form, text: told.append(form % text))
    api.run(api.open_job("job.toml", Overrides(settings=["model.name=unknown-model"], price=None)), ledger)
    api.log_notice("something")
    assert told[-1] == "something"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda job, ledger: Overrides(budget=Decimal("Infinity")),
        lambda job, ledger: Overrides(budget=Decimal("NaN")),
        lambda job, ledger: Overrides(budget=Decimal(-1)),
        lambda job, ledger: Overrides(budget=0.5),
        lambda job, ledger: Overrides(max_tokens=-5),
        lambda job, ledger: Overrides(max_tokens=0),
        lambda job, ledger: Overrides(settings="model.max_tokens=300"),
        lambda job, ledger: RunOptions(limit=-1),
        lambda job, ledger: RunOptions(limit=0),
        lambda job, ledger: RunOptions(limit=True),
        lambda job, ledger: RunOptions(until="07:00"),
        lambda job, ledger: api.estimate(job, ledger, limit=0),
        lambda job, ledger: api.check(job, {}, limit=-1),
        lambda job, ledger: api.pilot(job, ledger, 0, quiet()),
        lambda job, ledger: api.spend(ledger, by="job"),
        lambda job, ledger: api.respend(ledger, "gpt-4o-mini@openai"),
        lambda job, ledger: api.respend(ledger, by="job"),
        lambda job, ledger: api.statuses_to_retry("failed"),
        lambda job, ledger: api.prices("gpt-4o-mini", at=datetime(2026, 11, 1)),  # noqa: DTZ001 -- that is it
        lambda job, ledger: api.prices("gpt-4o-mini", at=date(2026, 11, 1)),
        lambda job, ledger: Period(since=datetime(2026, 11, 30, 23, tzinfo=UTC)),
        lambda job, ledger: Period(before="2026-11-30' or true --"),
        lambda job, ledger: api.results(ledger, "job", "r.jsonl", with_input=True),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_sent(project, job, ledger, stub, wrong):
    with pytest.raises(UsageError):
        wrong(job, ledger)
    assert stub.calls == 0


def test_the_rows_of_another_job_are_not_written(project, job, ledger):
    api.run(job, ledger, quiet())
    project.job("other")
    with pytest.raises(UsageError, match="now is the job other, and the results asked for are job's"):
        api.results(ledger, "job", "r.jsonl", now=api.open_job("other.toml"), with_input=True)


def test_a_ledger_does_not_become_another_one_by_a_change_of_folder(project, job, stub, monkeypatch):
    ledger = Ledger("l.duckdb")
    api.run(job, ledger, quiet())
    assert stub.calls == 40
    elsewhere = project.folder / "plots"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert api.sql(ledger, "select count(*) from runs").item() == 1
    assert ledger.path == project.folder / "l.duckdb"
    assert not list(elsewhere.iterdir())


# -- who watches -------------------------------------------------------------------------------------


async def guard(run):
    while run.tally.done < 10:  # noqa: ASYNC110 -- as users do it
        await asyncio.sleep(0.001)
    raise RuntimeError("enough")


def test_what_a_watcher_raises_stops_the_run_and_is_raised(project, job, ledger, stub):
    stub.latency = 0.02
    with pytest.raises(RuntimeError, match="enough"):
        api.run(job, ledger, quiet(watch=guard))
    assert stub.calls < 40
    assert api.sql(ledger, "select count(*) from results where status = 'ok'").item() >= 10
    assert api.sql(ledger, "select exit_code from runs").item() == 1
    api.run(job, ledger, quiet())
    assert stub.calls == 40


def test_a_watcher_that_finds_no_file_is_no_exception(project, job, ledger):
    async def writes(run):
        raise FileNotFoundError("progress.txt")

    with pytest.raises(FileNotFoundError, match=r"progress\.txt"):
        api.run(job, ledger, quiet(watch=writes))


def test_a_watcher_that_is_no_coroutine_is_named_and_leaves_no_thread_behind(project, job, ledger, stub):
    with pytest.raises(TypeError, match="`watch` must be a coroutine function"):
        api.run(job, ledger, quiet(watch=lambda run: None))
    assert stub.calls == 0
    assert not [each.name for each in threading.enumerate() if each.name.startswith("promptmill")]
    assert api.run(job, ledger, quiet()).exit_code == 0


def test_a_run_ends_at_a_time(project, job, ledger, stub):
    stub.latency = 0.05
    report = api.run(job, ledger, quiet(until=datetime.now(UTC) + timedelta(seconds=-1)))
    assert report.paused.kind == "time"
    assert stub.calls < 40


# -- stopped from outside ----------------------------------------------------------------------------


class InThread:
    """A run in a thread, as a server has it."""

    def __init__(self, job, ledger, **more):
        self.report, self.told = None, []
        self.thread = threading.Thread(target=self.go, args=(job, ledger, more))
        self.thread.start()

    def go(self, job, ledger, more):
        self.report = api.run(job, ledger, RunOptions(environ={}, notify=self.told.append, **more))


def sent(stub, count):
    while stub.calls < count:
        time.sleep(0.01)


def test_a_run_in_a_thread_is_stopped_though_the_program_went_to_another_folder(project, job, stub, monkeypatch):
    stub.latency = 0.3
    ledger, event = Ledger("l.duckdb"), threading.Event()
    running = InThread(job, ledger, stop=event)
    sent(stub, 8)
    monkeypatch.chdir("/")
    time.sleep(0.6)
    event.set()
    running.thread.join(timeout=60)
    assert running.report.paused.kind == "stopped"
    assert api.sql(ledger, "select pause_kind from runs").item() == "stopped"


@pytest.mark.parametrize("how", ["an event", "the function", "the command"])
def test_a_run_in_a_thread_is_stopped_gently(project, job, ledger, stub, how):
    stub.latency = 0.4 if how == "the command" else 0.05  # another process takes its time
    event = threading.Event()
    running = InThread(job, ledger, stop=event)
    sent(stub, 8)
    if how == "an event":
        event.set()
    elif how == "the function":
        assert api.stop(ledger, "job") == os.getpid()
    else:
        assert f"{os.getpid()}" in project.process("stop", "job").stdout
    running.thread.join(timeout=60)
    assert running.report.exit_code == 4
    assert running.report.paused == ("stopped", "stopped by a stop request")
    assert api.sql(ledger, "select count(*) from attempts where result = 'lost'").item() == 0
    assert stub.calls < 40
    assert api.run(job, ledger, quiet()).exit_code == 0
    assert stub.calls == 40, "a request to stop is for one run"
    assert not list(ledger.folder.glob("*.stop"))


def test_a_run_that_was_stopped_before_it_began_asks_nobody_and_leaves_nothing(project, job, ledger, stub):
    event = threading.Event()
    event.set()
    asked = []
    with pytest.raises(RunPaused, match="stopped by a stop request before anything was sent"):
        api.run(job, ledger, RunOptions(environ={}, stop=event, confirm=lambda *facts: asked.append(facts) or True))
    event.clear()
    stopping = RunOptions(environ={}, stop=event, notify=lambda _: None, confirm=lambda *_: event.set() or True)
    with pytest.raises(RunPaused, match="stopped by a stop request before anything was sent"):
        api.run(job, ledger, stopping)
    assert (asked, stub.calls, ledger.path.exists()) == ([], 0, False)


def test_a_request_to_stop_that_came_too_late_stops_no_later_run(project, job, ledger, stub):
    ledger.folder.mkdir()
    (ledger.folder / "job.stop").touch()
    running = InThread(job, ledger)
    running.thread.join(timeout=60)
    assert running.report.exit_code == 0


def test_a_cancelled_run_stops_gently_and_is_booked(project, job, ledger, stub):
    stub.latency = 0.05

    async def cell():
        working = asyncio.create_task(pipeline.run_async(job, ledger, quiet()))
        while stub.calls < 8:  # noqa: ASYNC110 -- the stub is in another thread
            await asyncio.sleep(0.01)
        assert list(live_runs(ledger.folder)) == ["job"]
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return working.cancelled()

    assert asyncio.run(cell())
    assert live_runs(ledger.folder) == {}
    assert stub.calls < 40
    assert api.sql(ledger, "select pause_kind from runs").item() == "stopped"
    assert api.sql(ledger, "select count(*) from attempts where result = 'lost'").item() == 0


def test_run_async_returns_and_raises_what_run_does(project, job, ledger, stub):
    assert asyncio.run(pipeline.run_async(job, ledger, quiet())).exit_code == 0
    stub.faults = lambda number, _: status(401)
    project.rows(texts(50))
    report = asyncio.run(pipeline.run_async(job, ledger, quiet()))
    assert report.paused.kind == "key"
    (project.folder / "rows.jsonl").unlink()
    with pytest.raises(UserError, match="there is no file"):
        asyncio.run(pipeline.run_async(job, ledger, quiet()))


def test_in_a_coroutine_nobody_is_asked_before_it_is_refused(project, job, ledger):
    async def cell():
        api.run(job, ledger, quiet(confirm=lambda *_: pytest.fail("asked")))

    with pytest.raises(UsageError, match=r"in a notebook say `await pipeline\.run_async"):
        asyncio.run(cell())


# -- the page ----------------------------------------------------------------------------------------


def test_the_code_of_the_page_runs(project, stub, monkeypatch):
    """In one module, as a reader would type it, on the stub in the vendor's place."""
    folder = project.folder
    (folder / "jobs").mkdir()
    text = project.job().read_text().replace('name = "job"', 'name = "summarize"')
    (folder / "jobs" / "summarize.toml").write_text(text)
    monkeypatch.chdir(folder)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        for block in blocks("python", pages=(ROOT / "docs" / "python.md",)):
            exec(compile(block.text, str(block), "exec"), names)
    assert "there is no job file jobs/sumarize.toml; did you mean 'summarize.toml'?" in shown.getvalue()
    assert (names["report"].exit_code, stub.calls) == (0, 30)
    assert (folder / "answers.parquet").exists()
