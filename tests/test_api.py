"""What programs and notebooks call: what it takes, refuses and raises, and how a run is stopped from outside."""

import asyncio
import contextlib
import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import anyio
import pytest
from bookings import child, hears, kill
from pages import ROOT, blocks
from project import Project, texts
from stub_faults import status

import pipeline
from pipeline import Ledger, Overrides, Period, RunOptions, UserError, api, errors
from pipeline.errors import RunDeclined, RunPaused, UsageError
from pipeline.journal import JournalFull
from pipeline.ledger import _connect
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
        "Estimate", "Job", "Ledger", "Period", "Prepared", "PromptmillError", "RunPaused", "RunReport", "Selection",
        "Target", "UserError",
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
        lambda job, ledger: Overrides(budget=Decimal("1e13")),
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


def test_models_to_compare_with_are_texts_or_targets(job, ledger):
    api.run(job, ledger, quiet())
    estimated = api.estimate(job, ledger)
    for target in ("gpt-4.1-mini@openai", pipeline.Target("gpt-4.1-mini", "openai")):
        assert [str(line.target) for line in api.compare(*estimated, [target])] == ["gpt-4.1-mini@openai"]
        assert len(api.respend(ledger, [target]).table.rows) == 1
    for wrong in (lambda: api.compare(*estimated, "gpt-4.1-mini"), lambda: api.respend(ledger, "gpt-4.1-mini")):
        with pytest.raises(UsageError, match="targets is a list of texts"):
            wrong()


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


@pytest.mark.parametrize("how", ["an event", signal.SIGTERM, signal.SIGINT])
def test_what_whoever_is_told_of_a_stop_raises_is_raised_when_the_answers_are_home(job, ledger, stub, how):
    stop = threading.Event()
    stub.hold()

    def notify(text):
        stub.release()
        raise ValueError(text)

    async def stops(run):
        while not run.in_flight:  # noqa: ASYNC110 -- as users do it
            await asyncio.sleep(0.01)
        if how == "an event":
            stop.set()
        else:
            os.kill(os.getpid(), how)

    with pytest.raises(ValueError, match="letting nothing more out"):
        api.run(job, ledger, RunOptions(environ={}, notify=notify, watch=stops, stop=stop))
    assert api.sql(ledger, "select count(*) from attempts where result = 'lost'").item() == 0


def test_a_watcher_that_finds_no_file_is_no_exception(project, job, ledger):
    async def writes(run):
        raise FileNotFoundError("progress.txt")

    with pytest.raises(FileNotFoundError, match=r"progress\.txt"):
        api.run(job, ledger, quiet(watch=writes))


def test_a_watcher_that_is_no_coroutine_is_named_and_leaves_no_thread_behind(project, job, ledger, stub):
    with pytest.raises(TypeError, match="`watch` must be a coroutine function"):
        api.run(job, ledger, quiet(watch=lambda run: None))
    assert stub.calls == 0
    ours = [each for each in threading.enumerate() if each.name.startswith("promptmill")]
    for each in ours:  # one that has brought its result may need a moment to end
        each.join(10)
    assert not [each.name for each in ours if each.is_alive()]
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


HOLDS = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def held(ledger, job):
    """Another process holds the ledger, which is there, until it is told to end."""
    api.run(job, ledger, quiet(limit=1))
    holder = child(HOLDS, ledger.path)
    hears(holder, "held")
    yield holder
    kill(holder)


@pytest.mark.parametrize("how", ["an event", "cancelled"])
def test_a_run_that_waits_for_its_ledger_is_stopped_at_once(job, ledger, held, how, monkeypatch):
    begun, told = threading.Event(), []

    def notify(text):
        told.append(text)
        begun.set()  # "waiting up to 20 s"

    stop = threading.Event()
    options = RunOptions(environ={}, notify=notify, stop=stop, confirm=lambda *_: True)

    async def cancelled():
        working = asyncio.create_task(pipeline.run_async(job, ledger, options))
        await asyncio.to_thread(begun.wait)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    monkeypatch.setattr(_connect, "READER_PATIENCE", 1000.0)
    if how == "cancelled":
        asyncio.run(asyncio.wait_for(cancelled(), 60))
    else:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(api.run, job, ledger, options)
            while not begun.wait(0.1):
                assert not running.done(), running.exception()
            stop.set()
            with pytest.raises(RunPaused, match="stopped by a stop request before anything was sent"):
                running.result(timeout=60)
    assert len(told) == 1, "nothing but that it waits"
    assert "waiting up to 1000 s" in told[0]


@pytest.mark.parametrize(
    ("how", "thread"), [("an event", "the main one"), ("an event", "another"), ("the function", "another")]
)
def test_a_run_that_waits_to_begin_is_stopped_at_once(job, ledger, monkeypatch, how, thread):
    """It has its job's lock by then: nobody held the ledger while it was estimated."""
    api.run(job, ledger, quiet(limit=1))
    monkeypatch.setattr(_connect, "READER_PATIENCE", 1000.0)
    stop, holders, told = threading.Event(), [], []

    def confirm(*_):
        holders.append(child(HOLDS, ledger.path))
        hears(holders[0], "held")
        return True

    def notify(text):
        told.append(text)
        if how == "an event":
            stop.set()
        else:
            api.stop(ledger, "job")

    options = RunOptions(environ={}, notify=notify, stop=stop, confirm=confirm)

    def in_another():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(api.run, job, ledger, options).result(timeout=60)

    runs = in_another if thread == "another" else partial(api.run, job, ledger, options)
    with pytest.raises(RunPaused, match="stopped by a stop request before anything was sent"):
        runs()
    kill(holders[0])
    assert "waiting up to 1000 s" in told[0]


def test_a_run_that_waits_for_another_thread_is_stopped_at_once(job, ledger):
    api.run(job, ledger, quiet(limit=1))
    stop = threading.Event()
    with ledger.read(), ThreadPoolExecutor(1) as pool:
        running = pool.submit(api.run, job, ledger, quiet(stop=stop))
        time.sleep(0.5)
        stop.set()
        with pytest.raises(RunPaused, match="stopped by a stop request before anything was sent"):
            running.result(timeout=60)


def test_a_ledger_that_is_held_keeps_no_other_ledger_waiting(project, job, ledger, held):
    other = Ledger(project.folder / "other.duckdb")
    stop = threading.Event()
    waiting = InThread(job, ledger, stop=stop)
    while not waiting.told:
        time.sleep(0.01)
    assert api.run(job, other, quiet(limit=2)).exit_code == 0
    assert api.sql(other, "select count(*) from attempts").item() == 2
    assert waiting.thread.is_alive(), "it still waits for its own"
    kill(held)
    waiting.thread.join(timeout=60)
    assert waiting.report.exit_code == 0


def test_a_scan_before_the_question_ends_when_the_run_is_stopped(job, ledger, stub):
    stop, steps = threading.Event(), []

    def tick(*facts):
        steps.append(facts)
        stop.set()

    with pytest.raises(RunPaused, match="stopped by a stop request"):
        api.run(job, ledger, quiet(stop=stop, tick=tick, confirm=lambda *_: pytest.fail("asked")))
    assert stub.calls == 0


def test_a_no_is_an_error_of_its_own_and_sends_nothing(job, ledger, stub):
    with pytest.raises(RunDeclined, match="the answer to the estimate was no"):
        api.run(job, ledger, quiet(confirm=lambda *_: False))
    assert stub.calls == 0


@pytest.mark.parametrize("how", ["twice", "by anyio"])
def test_a_cancelled_run_is_waited_for_however_often_it_is_cancelled(job, ledger, stub, how):
    stub.latency = 0.3

    async def cell():
        with anyio.CancelScope() as scope:
            working = asyncio.create_task(pipeline.run_async(job, ledger, quiet())) if how == "twice" else None
            if working is None:
                asyncio.get_running_loop().call_later(0.6, scope.cancel)
                await pipeline.run_async(job, ledger, quiet())
            while not live_runs(ledger.folder) or stub.calls < 4:  # noqa: ASYNC110 -- the stub is in another thread
                await asyncio.sleep(0.01)
            working.cancel()
            await asyncio.sleep(0)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        assert live_runs(ledger.folder) == {}

    asyncio.run(cell())
    assert api.sql(ledger, "select pause_kind from runs").item() == "stopped"
    assert api.sql(ledger, "select count(*) from attempts where result = 'lost'").item() == 0


def test_cancelling_one_run_stops_no_other_that_has_the_same_options(job, ledger, stub):
    options = quiet(stop=threading.Event())
    stub.latency = 0.05

    async def cell():
        working = asyncio.create_task(pipeline.run_async(job, ledger, options))
        while stub.calls < 4:  # noqa: ASYNC110 -- the stub is in another thread
            await asyncio.sleep(0.01)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    asyncio.run(cell())
    assert not options.stop.is_set()
    assert api.run(job, ledger, options).exit_code == 0


def test_runs_take_none_of_a_programs_own_threads(job, project, stub):
    stub.latency = 0.2

    async def service():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        working = [
            asyncio.create_task(pipeline.run_async(job, Ledger(project.folder / f"{n}.duckdb"), quiet(limit=4)))
            for n in range(3)
        ]
        while stub.calls < 3:  # noqa: ASYNC110 -- the stub is in another thread
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert not any(each.done() for each in working)
        return await asyncio.gather(*working)

    assert [report.exit_code for report in asyncio.run(service())] == [0, 0, 0]


def test_a_run_in_a_thread_that_outlives_the_main_one_ends_in_good_order(project, job, ledger, stub):
    code = (
        "import threading; from pipeline import Ledger, RunOptions, open_job, run, sql\n"
        "ledger = Ledger('promptmill.duckdb')\n"
        "def work():\n"
        "    report = run(open_job('job.toml'), ledger, RunOptions(environ={}))\n"
        "    print(report.exit_code, sql(ledger, 'select count(*) from results').item())\n"
        "threading.Thread(target=work).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, check=True)
    assert (done.stdout, stub.calls) == ("0 40\n", 40)


def test_a_long_query_ends_with_ctrl_c(job, ledger, stub):
    api.run(job, ledger, quiet(limit=1))
    code = (
        "import sys; from pipeline import Ledger, sql; print('asks', flush=True)\n"
        "sql(Ledger(sys.argv[1]), 'select sum(a.range * b.range) from range(1000000) a, range(1000000) b')"
    )
    asking = subprocess.Popen(
        [sys.executable, "-c", code, ledger.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert asking.stdout.readline() == "asks\n"
    while asking.poll() is None:  # until it is heard: the interpreter may not have begun to wait
        asking.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert "KeyboardInterrupt" in asking.communicate(timeout=60)[1]


def test_what_the_ledger_says_reaches_whoever_runs_a_job_and_else_the_log(job, ledger, held, caplog):
    with caplog.at_level(logging.WARNING, "promptmill"), ThreadPoolExecutor(1) as pool:
        asking = pool.submit(api.sql, ledger, "select 1 as n")
        while "waiting up to 20 s" not in caplog.text:
            time.sleep(0.01)
        kill(held)
        assert asking.result().item() == 1


def test_a_notice_is_seen_where_nobody_set_up_a_log():
    code = "from pipeline.api import log_notice; log_notice('news')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == "news\n"


@pytest.mark.parametrize("name", [":memory:", "", "rows.parquet", "ledger"])
def test_a_name_that_is_no_ledgers_is_refused(name):
    with pytest.raises(UsageError, match=r"a ledger's name ends in \.duckdb, \.db, \.ddb"):
        Ledger(name)


def test_every_error_goes_to_another_process():
    made = [
        errors.MissingColumn("said", "guess", "cure"),
        errors.LedgerBusy("somebody", "wait"),
        errors.WireError("tls", "no", maybe_sent=True),
        JournalFull(Path("j"), "full"),
        errors.RunDeclined("no"),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    pickle.dumps(RunOptions())
