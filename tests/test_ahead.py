"""While a run goes on it is held against its estimate: one notice when it leaves the interval, none when it doesn't."""

import json
import re
from contextlib import chdir
from decimal import Decimal

import pytest
from project import Project, texts
from stub import StubServer
from stub_faults import NO_USAGE, status

from pipeline import api
from pipeline.estimating import Bill
from pipeline.ledger import Ledger
from pipeline.runners._ahead import LOOK_EVERY, Ahead, Begun
from pipeline.runners._planner import FIRST_REQUESTS

BILL = Bill(Decimal("0.90"), Decimal("1.00"), Decimal("1.10"))


def notices(ahead, costs, spent="0"):
    spent, told = Decimal(spent), []
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


def test_a_run_of_which_nothing_is_answered_is_no_cheap_one():
    assert notices(expecting(), ["0"] * 500) == []


def test_a_run_that_stays_inside_is_never_told():
    assert notices(expecting(), ["0.001"] * 1000) == []


@pytest.mark.parametrize("bill", [None, Bill(Decimal(0), Decimal(0), Decimal(0))])
def test_without_an_interval_there_is_nothing_to_leave(bill):
    ahead = expecting(bill=bill)
    if bill is not None:
        ahead.expect_first(Begun(bill, 500))
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


# -- as long as the last row is not planned ------------------------------------------------------------


def begun(requests=500, bill=BILL):
    ahead = Ahead()
    ahead.expect_first(Begun(bill, requests))
    return ahead


def test_a_run_without_a_whole_estimate_is_told_early_what_1000_requests_cost():
    ahead = begun()
    (told,) = notices(ahead, ["0.004"] * 500)
    assert told == (
        "after 160 requests it looks like $4.00 per 1,000, above the estimate of $1.80 to $2.20 per 1,000"
        " (made from the first 500, before the rest was planned);"
        " Ctrl-C pauses, and --budget caps what the plan may cost"
    )
    assert ahead.projected is None  # of how many requests?


def test_a_cheaper_beginning_is_told_without_advice():
    (told,) = notices(begun(), ["0.001"] * 500)
    assert told.endswith(
        "below the estimate of $1.80 to $2.20 per 1,000 (made from the first 500, before the rest was planned)"
    )


def test_a_beginning_as_estimated_is_never_told():
    assert notices(begun(), ["0.002"] * 500) == []


def test_an_estimate_of_all_replaces_that_of_the_beginning():
    ahead = begun()
    assert notices(ahead, ["0.002"] * 480) == []
    ahead.expect(BILL, 600, complete=True)
    (told,) = notices(ahead, ["0.002"] * 100, "0.96")
    assert told.startswith(
        "after 496 of 600 requests it looks like $1.20 in all, above the estimate of $0.90 to $1.10;"
    )


def test_what_was_told_of_the_beginning_is_not_told_again_of_all():
    ahead = begun()
    assert len(notices(ahead, ["0.004"] * 480)) == 1
    ahead.expect(BILL, 600, complete=True)
    assert notices(ahead, ["0.004"] * 100, "1.92") == []


# -- runs ----------------------------------------------------------------------------------------------


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


class Heard:
    """Who watches a run: each notice, and whether the last row was planned when it came."""

    def __init__(self):
        self.run, self.told, self.projected = None, [], []

    async def watch(self, run):
        self.run = run

    def notify(self, text):
        if "it looks like" in text:
            self.told.append((text, self.run.tally.scanned))
            self.projected.append(self.run.projected)


def heard(project, **more):
    """Run the job as `run --yes` does."""
    heard = Heard()
    options = api.RunOptions(environ={}, watch=heard.watch, notify=heard.notify, **more)
    with chdir(project.folder):
        report = api.run(api.open_job("job.toml"), Ledger(project.folder / "promptmill.duckdb"), options)
    assert report.exit_code == 0
    return heard


def longer_from(project, call):
    """Let answers get ten times longer from some call on."""
    project.stub.answer = lambda _: "word " * (4 if project.stub.calls < call else 40)


def first_requests(told):
    return int(re.search(r"\(made from the first ([\d,]+), before the rest was planned\)", told)[1].replace(",", ""))


def test_a_bill_that_goes_wrong_is_told_before_the_last_row_is_planned_and_once(project):
    project.rows(texts(1500))
    longer_from(project, 61)
    project.run("estimate", "job.toml", "--pilot", "60")
    said = json.loads(project.run("estimate", "job.toml", "--json").stdout)
    run = heard(project)
    ((told, scanned),) = run.told
    assert not scanned
    assert run.projected == [None]  # nobody knows of how many
    assert re.match(r"after [12]\d\d requests it looks like \$0\.\d+ per 1,000, above the estimate of \$0\.", told)
    assert told.endswith("; Ctrl-C pauses, and --budget caps what the plan may cost")
    assert FIRST_REQUESTS <= first_requests(told) < 2 * FIRST_REQUESTS
    row = booked(project)[1]  # and what is booked is the estimate of all
    assert (row["rows"], row["requests"], row["verdict"]) == (1500, 1440, "above")
    assert [row[name] for name in FIGURES] == [said[name] for name in FIGURES]
    assert project.value("select count(*) from estimates where run_id = 2") == 1
    assert run.run.projected == Decimal(row["actual_usd"])


def test_a_bill_that_goes_wrong_later_is_told_when_twice_as_many_are_planned(project):
    project.rows(texts(3000))
    longer_from(project, 800)
    project.run("estimate", "job.toml", "--pilot", "60")
    ((told, scanned),) = heard(project).told
    assert not scanned
    assert first_requests(told) >= 2 * FIRST_REQUESTS


def test_a_long_run_that_is_as_estimated_is_told_nothing(project):
    project.rows(texts(1500))
    project.stub.answer = lambda _: "word " * (4 + project.stub.calls % 3)
    project.run("estimate", "job.toml", "--pilot", "60")
    assert heard(project).told == []
    assert booked(project)[1]["verdict"] == "inside"


def test_what_has_its_answer_is_no_part_of_the_first_requests(project):
    project.rows(texts(2500))
    longer_from(project, 801)
    project.run("run", "job.toml", "--yes", "--limit", "800")
    ((told, scanned),) = heard(project).told
    assert not scanned
    assert FIRST_REQUESTS <= first_requests(told) < 2 * FIRST_REQUESTS


def test_a_run_whose_estimate_was_agreed_to_is_held_against_that_alone(project):
    project.rows(texts(1500))
    longer_from(project, 61)
    project.run("estimate", "job.toml", "--pilot", "60")
    ((told, scanned),) = heard(project, confirm=lambda *_: True).told
    assert not scanned
    assert "of 1,440 requests it looks like" in told


def test_a_free_run_is_told_nothing_of_dollars(project):
    project.rows(texts(600))
    longer_from(project, 61)
    project.run("estimate", "job.toml", "--pilot", "60", "--price", "0,0")
    assert "it looks like" not in project.run("run", "job.toml", "--yes", "--price", "0,0").stderr


# -- what is booked ----------------------------------------------------------------------------------

FIGURES = ("input_tokens", "low_usd", "expected_usd", "high_usd", "ceiling_usd")


def booked(project):
    return project.sql("select * from forecast order by run_id")


def test_a_run_with_a_limit_books_what_estimate_says_for_it_and_says_when_it_leaves_that(project):
    project.run("estimate", "job.toml", "--pilot", "60")
    said = json.loads(project.run("estimate", "job.toml", "--limit", "350", "--json").stdout)
    done = project.run("run", "job.toml", "--yes", "--limit", "350")
    assert f"of {said['to_send']} requests it looks like $0.0" in done.stderr
    row = booked(project)[1]
    assert (row["rows"], row["requests"], row["verdict"]) == (350, said["to_send"], "above")
    assert [row[name] for name in FIGURES] == [said[name] for name in FIGURES]
    assert project.value("select complete from plans where plan_id = 1")  # by the pilot, which scanned all of it
    project.run("run", "job.toml", "--yes", "--fresh", "--limit", "5")
    assert [(row["rows"], row["requests"]) for row in booked(project)[2:]] == [(5, 5)]


def test_a_run_with_a_limit_leaves_the_plan_open(project):
    project.run("run", "job.toml", "--yes", "--limit", "10")
    assert not project.value("select complete from plans")
    project.run("run", "job.toml", "--yes")
    assert [(row["rows"], row["requests"]) for row in booked(project)] == [(10, 10), (400, 390)]


def test_a_retry_with_a_limit_books_what_it_sends_again(project):
    project.stub.faults = lambda number, _: status(400) if number <= 3 else None
    project.run("run", "job.toml", "--yes", "--limit", "20", "--set", "limits.concurrency=1", code=3)
    project.run("retry", "job.toml", "--yes", "--limit", "2")
    assert [(row["rows"], row["requests"], row["finished"]) for row in booked(project)] == [
        (20, 20, True),
        (2, 2, True),
    ]


def test_a_pilot_s_estimate_rests_on_what_was_answered_before(project):
    project.run("run", "job.toml", "--yes", "--limit", "50")
    project.run("estimate", "job.toml", "--pilot", "8")
    pilot = booked(project)[1]
    assert Decimal(pilot["high_usd"]) < 3 * Decimal(
        pilot["actual_usd"]
    )  # going by max_tokens it was twelve times as much


async def nobody(_):
    pass


def test_an_estimate_that_was_agreed_to_is_booked_whatever_stops_the_run(project):
    """Paused when the planner has read some hundred rows of many: what it had to send is what was shown."""
    project.rows(texts(3000))
    project.stub.faults = lambda number, _: status(401) if number > 20 else None
    shown = []
    options = api.RunOptions(
        environ={}, watch=nobody, notify=print, confirm=lambda _, estimate: not shown.append(estimate), limit=2500
    )
    with chdir(project.folder):
        report = api.run(api.open_job("job.toml"), Ledger(project.folder / "promptmill.duckdb"), options)
    assert report.exit_code == 4
    (row,) = booked(project)
    assert (row["rows"], row["requests"], row["verdict"]) == (2500, 2500, "unfinished")
    assert Decimal(row["expected_usd"]) == shown[0].forecast.bill.expected
    assert Decimal(row["actual_usd"]) < Decimal(row["low_usd"])
