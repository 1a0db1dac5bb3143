"""Promise: the budget is a hard cap, and it is used."""

from decimal import Decimal

import pytest
from project import Project, texts


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_the_budget_is_never_exceeded_and_a_higher_one_goes_on(project, stub):
    stub.answer = lambda _: " ".join(["word"] * 40)
    project.rows(texts(200))
    project.job(concurrency=16)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.004", code=4)
    assert "--budget" in done.stderr
    worst_case = Decimal(project.value("select max(reserved_usd) from attempts"))
    assert Decimal("0.004") - worst_case < stub.bill <= Decimal("0.004")
    more = project.run("run", "job.toml", "--yes", "--budget", "1")
    assert "already spent $0.00" in more.stderr
    assert stub.calls == 200


@pytest.mark.parametrize(
    ("model", "price", "says"),
    [("max_tokens = 50", "", "needs a known price"), ("", "--price=1,2", "needs [model] max_tokens")],
)
def test_a_budget_that_could_not_be_held_refuses_to_start(project, stub, model, price, says):
    project.rows(texts(3))
    path = project.job(model=model)
    text = path.read_text()
    path.write_text(text.replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    arguments = ["run", "job.toml", "--yes", "--budget", "1", *([price] if price else [])]
    assert says in project.run(*arguments, code=2).stderr
    assert stub.calls == 0


def test_a_plan_that_was_left_and_came_back_keeps_its_budget(project, stub):
    project.rows(texts(60))
    path = project.job(concurrency=1)
    original = path.read_text()
    project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    spent = stub.bill
    path.write_text(original.replace("{{ text }}", "Say: {{ text }}"))
    project.run("run", "job.toml", "--yes", "--limit", "1")
    path.write_text(original)
    done = project.run("run", "job.toml", "--yes", "--budget", "0.0004", code=4)
    assert "has already spent" in done.stderr
    assert stub.bill - spent < Decimal("0.0001"), "only the other plan's row was paid for"


def test_a_run_that_never_connected_leaves_no_unknown_cost_behind(project, stub):
    stub.stop()
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    project.run("run", "job.toml", "--yes", "--set", "retry.attempts=1", code=4)
    stub.start()
    project.run("run", "job.toml", "--yes", "--price", "0.25,2.00", "--budget", "1")
    assert project.value("select count(*) from attempts where error_type like 'connect%' and cost_usd is null") == 0
