"""Promise: what no row can pass pauses the run; rows stay pending, and the same command goes on later."""

import pytest
from project import Project, texts
from stub_faults import every, status


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
    assert project.value("select count(*) from results where status = 'pending'") == 50
