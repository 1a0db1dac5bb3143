"""Promise: a run can be stopped at any time, by anybody, and bounded time is all it takes."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal

import pytest
from bookings import child, hears
from dying import hears as hears_signal
from project import COMMAND, Project, texts
from stub_faults import CUT, STALL, drip, every, first, status

from pipeline import api
from pipeline.errors import RunStopped
from pipeline.ledger import Ledger

HOLDER = """
import sys
import time
import duckdb
while True:
    try:
        held = duckdb.connect(sys.argv[1], read_only=True)
        break
    except duckdb.IOException:
        time.sleep(0.01)
print("holding", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


@contextlib.contextmanager
def opened_elsewhere(path):
    """Let another process have the ledger open for the block: as soon as the run's bursts leave it a moment."""
    holder = child(HOLDER, path)
    hears(holder, "holding")
    try:
        yield holder
    finally:
        holder.communicate("go\n", timeout=60)


@contextlib.contextmanager
def inherits(number, handler):
    """Let children inherit what a signal does to them."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def wait_for(happened):
    """Look until it has happened; a file says nothing by itself."""
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_ctrl_c_waits_for_what_is_in_flight_and_the_same_command_goes_on(project, stub):
    project.rows(texts(40))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGINT)
    while "waiting for 4 in flight" not in (line := run.stderr.readline()):
        assert line, "the run ended without waiting"
    stub.release()
    _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert "paused: stopped by Ctrl-C. The same command goes on from here." in err
    assert project.value("select pause_kind from runs") == "stopped"
    assert project.value("select count(*) from results where status = 'ok'") == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 40


def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(project, stub):
    project.rows(texts(40))
    project.job(concurrency=4)
    stub.hold()
    ours, theirs = os.openpty()
    command = [*COMMAND, "run", "job.toml", "--yes", "--log", "night.log"]
    with inherits(signal.SIGHUP, signal.SIG_DFL):  # whatever these tests were started with
        run = subprocess.Popen(command, cwd=project.folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    stub.wait_for_in_flight(4)
    os.close(ours)
    run.send_signal(signal.SIGHUP)
    log = project.folder / "night.log"
    while "a closed terminal: letting nothing more out" not in log.read_text():
        assert run.poll() is None, log.read_text()
        time.sleep(0.02)
    stub.release()
    assert run.wait(timeout=60) == 4
    assert "ends with exit code 4" in log.read_text()
    assert project.sql("select result, count(*) n from attempts group by all") == [{"result": "ok", "n": 4}]


def test_a_run_that_is_to_outlive_its_terminal_does(project, stub):
    project.rows(texts(8))
    project.job(concurrency=4)
    stub.hold()
    with inherits(signal.SIGHUP, signal.SIG_IGN):  # as nohup does
        run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGHUP)
    stub.release()
    run.communicate(timeout=60)
    assert run.returncode == 0
    assert stub.calls == 8


def test_a_second_ctrl_c_leaves_now_and_lists_what_was_on_the_wire(project, stub):
    project.rows(texts(10))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGINT)
    while "in flight" not in run.stderr.readline():
        pass
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    stub.release()
    assert run.returncode == 130
    assert "; 4 attempts in " in out
    assert project.value("select count(*) from attempts where result = 'lost'") == 4
    assert "interrupted" in project.run("status").stdout
    assert (
        "run 1 was left with a second Ctrl-C, and what was on the wire is lost" in project.run("errors", "job").stderr
    )


@pytest.mark.parametrize("why", ["no credit", "stopped by a stop request"])
def test_the_first_ctrl_c_loses_nothing_whatever_else_has_stopped_the_run_before(project, stub, why):
    stub.faults = lambda n, _: status(402, "no credit") if why == "no credit" and n == 1 else None
    project.rows(texts(40))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes", "--log", "run.log")
    stub.wait_for_in_flight(4)
    if why == "no credit":
        stub.release(1)
    else:
        run.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping: " in (project.folder / "run.log").read_text())
    run.send_signal(signal.SIGINT)
    while "Ctrl-C: stopping already" not in (line := run.stderr.readline()):
        assert line, "the run ended without waiting"
    left = 3 if why == "no credit" else 4
    assert why in line
    assert f"waiting for {left} in flight" in line
    stub.release()
    _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert why in next(line for line in err.splitlines() if "paused: " in line)
    assert project.value("select count(*) from results where status = 'ok'") == left
    assert project.value("select count(*) from attempts where result = 'lost'") == 0


# -- while a run begins -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    "moment",
    [
        "call pipeline.job.load_job 1",
        "call pipeline.runners.launch.prepare 1",
        "call pipeline.api._estimates.look_back 1",
        "return pipeline.api._runs._ready 1",
        "return pipeline.runners.job_lock._write_facts 1",
        "call pipeline.ledger.queries.next_run_id 1",
        "call pipeline.runners.launch._run 1",
    ],
)
def test_a_run_that_is_stopped_while_it_begins_sends_nothing_and_is_paused(project, stub, moment, number):
    project.rows(texts(4))
    project.job()
    done = hears_signal(project, moment, number, "run", "job.toml", "--yes")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "paused: " in line]
    assert f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'a stop request'}" in said
    assert "The same command goes on from here." in said
    assert stub.calls == 0
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 4


def test_what_is_counted_before_a_pilot_can_be_stopped_too(project, stub):
    project.rows(texts(4))
    project.job()
    done = hears_signal(
        project, "call pipeline.api._estimates.scanned 1", signal.SIGTERM, "estimate", "job.toml", "--pilot"
    )
    assert "paused: stopped by a stop request before anything was sent" in done.stderr
    assert (done.returncode, stub.calls) == (4, 0)


def test_a_run_that_is_stopped_before_it_begins_says_so_in_json(project, stub):
    project.rows(texts(4))
    project.job()
    moment = "call pipeline.ledger.queries.next_run_id 1"
    done = hears_signal(project, moment, signal.SIGTERM, "run", "job.toml", "--yes", "--json")
    said = json.loads(done.stdout)
    assert (said["exit_code"], said["pause_kind"], said["run_id"], said["sent"]) == (4, "stopped", None, 0)
    assert said.keys() == json.loads(project.run("run", "job.toml", "--yes", "--json").stdout).keys()


def test_a_run_that_is_stopped_before_its_job_is_read_says_that_in_json_too(project, stub):
    project.rows(texts(4))
    project.job()
    for command in ("run", "retry"):
        moment = "call pipeline.cli._options.overrides_of 1"
        done = hears_signal(project, moment, signal.SIGTERM, command, "job.toml", "--yes", "--json", "--log", "x.log")
        said = json.loads(done.stdout)
        assert (done.returncode, said["job"], said["run_id"], said["pause_kind"]) == (4, None, None, "stopped")
    assert (project.folder / "x.log").read_text().count("stopped by a stop request before anything was sent") == 2
    assert stub.calls == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "moment",
    [
        "return pipeline.runners.launch.launch 1",
        "call pipeline.cli._sending._sum_up 1",
        "return pipeline.cli._sending.send 1",
        "call pipeline.cli._leave 1",
    ],
)
def test_what_comes_when_a_run_is_over_changes_nothing_about_how_it_ends(project, stub, moment, number):
    project.rows(texts(4))
    project.job()
    done = hears_signal(project, moment, number, "run", "job.toml", "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_code"], stub.calls) == (0, 0, 4), done.stderr


@pytest.mark.parametrize(
    "moment",
    [
        "call pipeline.runners.launch.prepare 1",
        "call pipeline.ledger.queries.next_run_id 1",
        "return pipeline.runners._desk.Desk._write 1",
    ],
)
def test_a_run_that_a_shell_protects_from_ctrl_c_goes_on(project, stub, moment):
    """As `&` in a script does: Ctrl-C there is for the script. `promptmill stop` is for the run."""
    project.rows(texts(4))
    project.job(concurrency=1)
    with inherits(signal.SIGINT, signal.SIG_IGN):
        done = hears_signal(project, moment, signal.SIGINT, "run", "job.toml", "--yes")
    assert (done.returncode, stub.calls, "Ctrl-C" in done.stderr) == (0, 4, False), done.stderr


def test_a_stop_that_somebody_swallows_while_a_run_is_looked_into_stops_it_all_the_same(project, stub):
    def swallow(*_):
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    project.rows(texts(4))
    project.job()
    with contextlib.chdir(project.folder), pytest.raises(RunStopped, match="stopped by a stop request before anything"):
        api.run(
            api.open_job("job.toml"),
            Ledger("promptmill.duckdb"),
            api.RunOptions(confirm=lambda *_: True, tick=swallow),
        )
    assert stub.calls == 0


def test_a_run_that_waits_for_the_ledger_before_it_begins_can_be_stopped(project, stub):
    project.rows(texts(4))
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "1")
    with opened_elsewhere(project.folder / "promptmill.duckdb") as holder:
        run = project.start("run", "job.toml", "--yes")
        while f"is open in process {holder.pid}" not in (line := run.stderr.readline()):
            assert line, "the run did not wait"
        assert str(run.pid) in project.run("stop", "job").stdout
        _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert "paused: stopped by a stop request before anything was sent. The same command goes on from here." in err
    assert stub.calls == 1


@pytest.mark.parametrize(
    ("facts", "says"),
    [("", "is starting this moment"), (f'{{"pid": {2**22 + 1}}}', "has just ended"), ('{"pid": 1', "is starting")],
    ids=["not written yet", "the process has gone", "half written"],
)
def test_stopping_a_job_that_has_only_taken_its_lock_is_a_sentence(project, stub, facts, says):
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    lock = project.folder / "promptmill.journal" / "job.lock"
    lock.write_text(facts)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert says in project.run("stop", "job", code=2).stderr


# -- while the process is stopped -------------------------------------------------------------------


def test_answers_that_came_while_the_process_was_stopped_are_read_and_not_paid_for_again(project, stub):
    """A container that is frozen, Ctrl-Z: the loop rings its timers before it reads."""
    project.rows(texts(8))
    project.job(concurrency=8, limits="timeout_seconds = 1")
    soon = "from pipeline.wire import plain; plain.STOOD_STILL_SECONDS = 0.1"
    stub.hold()
    run = project.start("run", "job.toml", "--yes", first=soon)
    stub.wait_for_in_flight(8)
    run.send_signal(signal.SIGSTOP)
    stub.release()
    time.sleep(1.5)  # the deadlines have to pass
    run.send_signal(signal.SIGCONT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert project.value("select count(*) from attempts where result = 'ok'") == stub.calls == 8


# -- when all answers are home and the ledger is locked ---------------------------------------------


@contextlib.contextmanager
def waiting_for_its_ledger(project, stub):
    """Start a run whose four rows are answered while another process holds the ledger; the block ends the holding."""
    project.rows(texts(4))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    with opened_elsewhere(project.folder / "promptmill.duckdb"):
        stub.release()
        (journal,) = (project.folder / "promptmill.journal").glob("*.jsonl")
        wait_for(lambda: b'"type":"end"' in journal.read_bytes())
        yield run


def test_a_run_whose_rows_can_not_be_listed_at_its_end_is_paused_and_what_is_shown_is_called_a_part(project, stub):
    """It once ended with exit 0, and `results` wrote the one row of the list before."""
    project.rows(texts(4))
    project.job(concurrency=4)
    project.run("run", "job.toml", "--yes", "--limit", "1")
    impatient = (
        "from pipeline.runners import _loader\n"
        "_loader.BURST_SECONDS = 600  # on a busy machine a burst may come before the ledger is held\n"
        "_loader.Loader.finish.__defaults__ = (0.1,)"
    )
    stub.hold()
    run = project.start("run", "job.toml", "--yes", "--json", first=impatient)
    stub.wait_for_in_flight(3)
    with opened_elsewhere(project.folder / "promptmill.duckdb"):
        stub.release()
        out, err = run.communicate(timeout=60)
    said = json.loads(out)
    assert (run.returncode, said["exit_code"], said["pause_kind"]) == (4, 4, "ledger"), err
    part = "3 requests have their outcome and their rows are not listed"
    assert part in project.run("results", "job", "-o", "r.jsonl").stderr
    assert part in project.run("errors", "job").stderr
    assert part in project.run("status").stderr
    assert "4 ok" in project.run("run", "job.toml", "--yes").stdout
    assert "are not listed" not in project.run("results", "job", "-o", "r.jsonl").stderr
    assert len((project.folder / "r.jsonl").read_text().splitlines()) == stub.calls == 4


def test_ctrl_c_after_the_last_answer_changes_nothing_about_how_the_run_ended(project, stub):
    with waiting_for_its_ledger(project, stub) as run:
        run.send_signal(signal.SIGINT)
        while "Ctrl-C: nothing is on the wire any more" not in (line := run.stderr.readline()):
            assert line, "the run ended without saying what it waits for"
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "4 ok" in out
    assert "paused" not in err
    assert project.sql("select exit_code, reason from runs") == [{"exit_code": 0, "reason": "finished"}]


def test_a_second_ctrl_c_while_the_ledger_is_locked_leaves_and_says_where_the_answers_are(project, stub):
    with waiting_for_its_ledger(project, stub) as run:
        run.send_signal(signal.SIGINT)
        while "Ctrl-C: nothing is on the wire any more" not in (line := run.stderr.readline()):
            assert line, "the run ended without saying what it waits for"
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "4 attempts are safe in the journal" in err
    assert "Traceback" not in err
    assert project.value("select count(*) from outcomes where status = 'ok'") == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 4


def test_stop_from_another_container_stops_the_run_and_signals_nobody_there(project, stub):
    """What has the run's number there may be anything."""
    project.rows(texts(20))
    project.job(concurrency=2)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(2)
    lock = project.folder / "promptmill.journal" / "job.lock"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        facts = json.loads(lock.read_text()) | {"pid": stranger.pid, "where": "another container"}
        lock.write_text(json.dumps(facts))
        project.run("stop", "job")
        wait_for(lambda: not lock.with_suffix(".stop").exists())
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    stub.release()
    _, err = run.communicate(timeout=60)
    assert (run.returncode, stub.calls) == (4, 2), err
    assert "a stop request: letting nothing more out, waiting for 2 in flight" in err


def test_stop_from_another_terminal_pauses_the_run(project, stub):
    project.rows(texts(10))
    project.job(concurrency=2)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(2)
    assert str(run.pid) in project.run("stop", "job").stdout
    while "in flight" not in run.stderr.readline():
        pass
    stub.release()
    run.communicate(timeout=60)
    assert run.returncode == 4
    assert "not running" in project.run("stop", "job", code=2).stderr


def test_a_second_run_of_the_same_job_at_once_is_refused_and_names_the_process(project, stub):
    project.rows(texts(4))
    project.job(concurrency=2)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(2)
    second = project.run("run", "job.toml", "--yes", code=2)
    assert f"already running (process {run.pid})" in second.stderr
    stub.release()
    assert run.wait(60) == 0
    run.communicate()
    assert stub.calls == 4


def test_waiting_for_what_is_in_flight_is_bounded_and_says_so(project, stub):
    stub.faults = every(1, STALL)
    project.rows(texts(40))
    project.job(concurrency=4, more="[retry]\nattempts = 9", limits="timeout_seconds = 2")
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 4
    assert "waiting for 4 in flight, at most 2 s" in err
    assert stub.calls == 4
    assert project.value("select count(*) from attempts where error_type = 'timeout' and cost_usd is null") == 4


def test_a_run_that_was_asked_to_stop_before_it_sent_anything_ends_at_once(project, stub):
    project.rows(texts(4))
    project.job(concurrency=1, more="", limits="requests_per_minute = 1")
    run = project.start("run", "job.toml", "--yes")
    stub.wait_until(lambda: stub.calls == 1 and stub.in_flight == 0, "the first answer")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 4
    assert stub.calls == 1


# -- time that does strange things ------------------------------------------------------------------


@pytest.mark.parametrize("fault", [STALL, drip(pieces=1000, gap_seconds=0.05)], ids=lambda fault: fault.name)
def test_an_answer_that_never_comes_to_its_end_is_one_failed_row_of_unknown_cost(project, stub, fault):
    stub.faults = lambda _, payload: fault if "row 1 " in payload["messages"][-1]["content"] else None
    project.rows(texts(5))
    project.job(concurrency=2, more="[retry]\nattempts = 2", limits="timeout_seconds = 0.5")
    project.run("run", "job.toml", "--yes", code=3)
    assert project.sql("select row_id, status, error_type, cost_usd from results where status <> 'ok'") == [
        {"row_id": "r1", "status": "failed", "error_type": "timeout", "cost_usd": None}
    ]


@pytest.mark.parametrize("wire", ["native", "httpx"])
def test_a_reset_in_mid_body_is_asked_again_and_its_cost_is_unknown(project, stub, wire):
    stub.faults = first(3, CUT)
    project.rows(texts(9))
    project.job(concurrency=3, limits=f'wire = "{wire}"')
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 9
    assert project.value("select count(*) from attempts where cost_usd is null and reserved_usd > 0") == 3


def test_a_clock_that_jumps_neither_loses_rows_nor_spoils_latencies(project, stub, monkeypatch):
    offset, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def jump(n, _):
        offset[0] = (n % 5 - 2) * 86_400.0

    stub.faults = jump
    project.rows(texts(60))
    project.job(concurrency=4)
    project.run("run", "job.toml", "--yes", "--until", "2099-01-01T07:00")
    assert project.value("select count(*) from results where status = 'ok'") == 60
    assert project.value("select max(latency_ms) < 60000 and min(latency_ms) >= 0 from attempts")
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill


def test_a_laptop_that_slept_while_its_connections_died_goes_on_when_it_wakes(project, stub):
    project.rows(texts(30))
    project.job(concurrency=4)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(4)
    run.send_signal(signal.SIGSTOP)
    stub.stop()
    stub.start()
    stub.release()
    run.send_signal(signal.SIGCONT)
    run.communicate(timeout=60)
    assert run.returncode == 0
    assert project.value("select count(*) from results where status = 'ok'") == 30


def test_a_reader_of_stderr_that_went_away_does_not_hold_the_run_up(project, stub):
    project.rows(texts(30))
    project.job(concurrency=4)
    run = project.start("run", "job.toml", "--yes")
    run.stderr.close()
    assert run.wait(60) == 0
    run.stdout.close()
    run.stdin.close()
    assert project.value("select count(*) from results where status = 'ok'") == 30


def test_a_reader_of_stderr_that_reads_nothing_does_not_hold_the_run_up(project, stub):
    project.rows(texts(30))
    project.job(concurrency=4)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    run = subprocess.Popen(
        [*COMMAND, "run", "job.toml", "--yes"],
        cwd=project.folder, env=project._env(), stdout=subprocess.DEVNULL, stderr=writer,
    )  # fmt: skip
    assert run.wait(60) == 0
    os.close(writer)
    os.close(reader)
    assert project.value("select count(*) from results where status = 'ok'") == 30
