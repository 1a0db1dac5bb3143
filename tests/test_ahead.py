"""While a run goes on it is held against its estimate: one notice when it leaves the interval, none when it doesn't."""

from decimal import Decimal

import pytest
from project import Project, texts
from stub import StubServer
from stub_faults import NO_USAGE

from pipeline.estimating import Bill
from pipeline.runners._ahead import LOOK_EVERY, Ahead

BILL = Bill(Decimal("0.90"), Decimal("1.00"), Decimal("1.10"))


def notices(ahead, costs):
    spent, told = Decimal(0), []
    for cost in costs:
        spent += Decimal(cost)
        told.append(ahead.settled(spent))
    return [notice for notice in told if notice is not None]


def expecting(requests=1000, bill=BILL):
    ahead = Ahead()
    ahead.expect(bill, requests, complete=True)
    return ahead


def test_a_run_that_gets_dearer_than_its_interval_is_told_once_and_early():
    ahead = expecting()
    (told,) = notices(ahead, ["0.002"] * 500)
    assert told == (
        "after 160 of 1,000 requests it looks like $2.00 in all, above the estimate of $0.90 to $1.10;"
        " Ctrl-C pauses, and --budget caps what the plan may cost"
    )


def test_a_run_that_stays_cheaper_is_told_without_advice():
    (told,) = notices(expecting(), ["0.0005"] * 500)
    assert told.endswith("it looks like $0.50 in all, below the estimate of $0.90 to $1.10")


def test_a_run_that_stays_inside_is_never_told():
    assert notices(expecting(), ["0.001"] * 1000) == []


@pytest.mark.parametrize("bill", [None, Bill(Decimal(0), Decimal(0), Decimal(0))])
def test_without_an_interval_there_is_nothing_to_leave(bill):
    ahead = expecting(bill=bill)
    assert notices(ahead, ["0.002"] * 500) == []
    assert ahead.projected is None


def test_the_first_estimate_stays():
    ahead = expecting()
    ahead.expect(Bill(Decimal(5), Decimal(6), Decimal(7)), 1000, complete=True)
    assert "above the estimate of $0.90" in notices(ahead, ["0.002"] * 500)[0]


def test_what_a_run_will_cost_is_the_mean_of_what_is_answered_times_all_requests():
    ahead = expecting()
    notices(ahead, ["0.001"] * (2 * LOOK_EVERY))
    assert ahead.projected is None  # too few to tell
    notices(ahead, ["0.001"] * 0)
    for number in range(2 * LOOK_EVERY + 1, 4 * LOOK_EVERY + 3):
        ahead.settled(Decimal("0.001") * number)
    assert ahead.projected == 1


@pytest.fixture
def project(tmp_path):
    """A vendor whose answers get five times longer when the pilot is over."""
    with StubServer(answer=lambda _: "word " * (4 if stub.calls <= 60 else 20)) as stub:
        project = Project(tmp_path, stub.base_url)
        project.stub = stub
        project.rows(texts(400))
        project.job()
        yield project


def test_a_run_says_when_it_leaves_what_its_pilot_promised(project):
    project.run("estimate", "job.toml", "--pilot", "60")
    done = project.run("run", "job.toml", "--yes")
    (told,) = [line for line in done.stderr.splitlines() if "it looks like" in line]
    assert "of 340 requests it looks like $0.0" in told
    assert "above the estimate of $0.0" in told
    assert project.sql("select verdict from forecast order by run_id")[1] == {"verdict": "above"}


def test_requests_of_unknown_cost_are_no_ground_for_a_warning(project):
    project.run("estimate", "job.toml", "--pilot", "60")
    project.stub.faults = lambda number, _: NO_USAGE if number > 60 else None
    assert "it looks like" not in project.run("run", "job.toml", "--yes", code=None).stderr
