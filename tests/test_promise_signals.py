"""Promise: a run can be stopped at any time, by anybody, and bounded time is all it takes."""

import signal

import pytest
from project import Project, texts


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


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
    assert project.value("select count(*) from results where status = 'ok'") == 4
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 40


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
    run.communicate(timeout=60)
    stub.release()
    assert run.returncode == 130
    assert project.value("select count(*) from attempts where result = 'lost'") == 4


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
