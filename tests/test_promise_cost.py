"""Promise: the cost of every answered attempt is what the provider charged; what cannot be known is never zero."""

from decimal import Decimal

import pytest
from project import Project, texts
from stub_faults import CUT, NO_USAGE, Reply, every, first, status


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


def test_spend_in_the_ledger_equals_the_bill_to_the_last_digit(project, stub):
    stub.faults = every(10, status(500))
    project.rows(texts(1000))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
    assert Decimal(project.value("select sum(cost_usd) from results")) == stub.bill
    assert project.value("select count(*) from attempts where result = 'unavailable'") == stub.calls - 1000


def test_an_answer_whose_cost_cannot_be_known_is_listed_with_an_upper_bound(project, stub):
    stub.faults = first(1, CUT)
    project.rows(texts(3))
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes")
    (unknown,) = project.sql("select cost_usd, reserved_usd from attempts where cost_usd is null")
    known = Decimal(project.value("select sum(cost_usd) from attempts"))
    assert known < stub.bill <= known + Decimal(unknown["reserved_usd"])
    assert project.sql("select unknown_cost from spend")[0]["unknown_cost"] == 1


def test_an_answer_without_usage_is_kept_and_its_cost_is_unknown(project, stub):
    stub.faults = every(1, NO_USAGE)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


def test_an_unknown_price_is_null_everywhere_with_a_warning(project, stub):
    project.rows(texts(3))
    path = project.job()
    path.write_text(path.read_text().replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    assert "is unknown: costs will be NULL" in project.run("run", "job.toml", "--yes").stderr
    assert project.value("select count(cost_usd) from attempts") == 0


def test_a_provider_that_claims_absurd_usage_does_not_make_the_ledger_unusable(project, stub):
    stub.answer = lambda _: Reply("fine", completion_tokens=10**12)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert project.sql("select status, cost_usd from results") == [{"status": "ok", "cost_usd": None}]


def test_a_price_that_no_ledger_can_book_is_refused(project, stub):
    project.rows(texts(1))
    project.job(model="max_tokens = 100_000_000")
    done = project.run("run", "job.toml", "--yes", "--price", "1,99999", code=2)
    assert "one request may cost" in done.stderr
    assert stub.calls == 0
