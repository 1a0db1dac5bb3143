"""The desk: what came back is on file whatever else goes wrong, and nothing follows from what is not."""

import asyncio
import time
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import pytest
from journals import read_all

from pipeline.budget import Budget
from pipeline.doorman import Doorman, Limits, Ticket
from pipeline.health import Health, StopRules
from pipeline.journal import Journal
from pipeline.ledger import loading
from pipeline.records import Attempt, Failure, ModelSpec, Outcome, Reply, Request, Usage
from pipeline.retry import RetryPolicy
from pipeline.runners._ahead import Ahead
from pipeline.runners._desk import Arrival, Desk
from pipeline.runners._oddities import COUNTED_OTHERWISE
from pipeline.runners.attempt import Again, Done
from pipeline.runners.tally import Tally

COST = Decimal("0.001")
WORST = Decimal("0.01")
NO_TEXT = "\ud83d"
"""Half of a surrogate pair: no line can hold it."""


class Judge:
    """In an exchanger's place: every exchange ends its row, but some show a bug, or bring what no line can hold."""

    spec, meter = ModelSpec("stub", "m", max_tokens=50), SimpleNamespace(is_free=False, charged=False)
    policy, provider = RetryPolicy(attempts=1), SimpleNamespace(tells_costs=False)

    def __init__(self, *, bug=(), no_line=(), alone=()):
        self.bug, self.no_line, self.alone = bug, no_line, alone
        self.wait = 5.0

    def next_step(self, ticket, attempt, result, **more):
        if attempt.key in self.bug:
            raise AssertionError("a bug of our own")
        if isinstance(result, Failure) and result.closes_door:
            alone = attempt.key in self.alone
            return Again(ticket, self.wait, shuts_door=not alone, queue="own" if alone else "first")
        error = NO_TEXT if attempt.key in self.no_line else None
        return Done(Outcome(attempt.key, "ok", 1, 7, 1, 50, error=error))


class Loader:
    broken = None


class Booth:
    """A desk and what it told; `arrive` lets exchanges come home in one turn of the loop."""

    def __init__(self, folder, judge):
        self.journal = Journal(folder, "ledger")
        self.budget, self.tally = Budget(Decimal(1)), Tally()
        self.door = Doorman(Limits(concurrency=8), self.budget)
        self.judge, self.told, self.stopped, self.failed = judge, [], [], []
        self.desk = Desk(
            door=self.door, health=Health(StopRules(), model="m", concurrency=8, most_open=16), budget=self.budget,
            exchanger=judge, journal=self.journal, loader=Loader(), tally=self.tally, ahead=Ahead(),
            notify=self.told.append, stop=self.stopped.append, fail=self.failed.append, proven=False,
        )  # fmt: skip

    async def send(self, *keys):
        tickets = [Ticket(Request(key, ()), WORST, 60, 10, "exact") for key in keys]
        await self.door.offer(tickets)
        for _ in tickets:
            await self.door.next()
        return tickets

    async def arrive(self, *results, usage=None):
        await self.come_home(await self.send(*(key for key, _ in results)), *results, usage=usage)

    async def come_home(self, tickets, *results, usage=None):
        for ticket, (key, result) in zip(tickets, results, strict=True):
            said = result.text if isinstance(result, Reply) else None
            attempt = Attempt(
                key=key, attempt=1, kind="first", result="ok" if said else result.result, sent_at=time.time(),
                latency_ms=1.0, reserved_usd=WORST, computed_usd=COST, http_status=200, output=said, usage=usage,
                error=None if said else result.message,
            )  # fmt: skip
            self.desk.arrive(Arrival(ticket, attempt, result, 0))
        await asyncio.sleep(0)

    def lines(self):
        return Counter((line.kind, line.fields["key"]) for line in read_all(self.journal.path, dead=False)
                       if line.kind != "header")  # fmt: skip


def answer(text="an answer"):
    return Reply(text, "stop", "stop", None)


@pytest.fixture
def booth(tmp_path):
    booths = []

    def make(**more):
        booths.append(Booth(tmp_path / str(len(booths)), Judge(**more)))
        return booths[-1]

    yield make
    for each in booths:
        each.journal.close()


async def test_answers_that_come_home_together_are_on_file_with_their_outcomes(booth):
    desk = booth()
    await desk.arrive(("a", answer()), ("b", answer()))
    assert desk.lines() == {(kind, key): 1 for kind in ("attempt", "outcome") for key in "ab"}
    assert (desk.budget.spent, desk.door.in_flight) == (2 * COST, 0)
    assert not desk.failed


async def test_an_answer_that_no_line_can_hold_costs_the_others_nothing(booth):
    desk = booth()
    await desk.arrive(("a", answer()), ("b", answer(NO_TEXT)), ("c", answer()))
    assert desk.lines() == {(kind, key): 1 for kind in ("attempt", "outcome") for key in "ac"}
    assert (desk.budget.spent, desk.door.in_flight) == (2 * COST + WORST, 0)
    assert desk.failed, "a bug of our own shows"


async def test_an_answer_is_kept_though_its_outcome_can_not_be_written(booth):
    desk = booth(no_line="b")
    await desk.arrive(("a", answer()), ("b", answer()))
    assert desk.lines() == {("attempt", "a"): 1, ("outcome", "a"): 1, ("attempt", "b"): 1}
    assert (desk.budget.spent, desk.door.in_flight) == (2 * COST, 0)
    assert desk.failed


async def test_an_answer_is_kept_though_judging_it_shows_a_bug(booth):
    desk = booth(bug="b")
    await desk.arrive(("a", answer()), ("b", answer()), ("c", answer()))
    assert desk.lines()["attempt", "b"] == 1
    assert desk.lines()["outcome", "b"] == 0
    assert desk.lines()["outcome", "c"] == 1
    assert (desk.budget.spent, desk.door.in_flight) == (3 * COST, 0)
    assert [str(error) for error in desk.failed] == ["a bug of our own"]
    ends = loading.LooseEnds()
    ends.hear_rest(desk.journal.path)
    assert [fields["key"] for fields in ends.unended if not fields.get("held")] == ["b"], "loading books its row"


async def test_a_request_of_which_nobody_knows_what_became_counts_at_its_worst_case(booth):
    desk = booth()
    (ticket,) = await desk.send("a")
    desk.desk.lost(ticket)
    assert (desk.budget.spent, desk.desk.unknown, desk.desk.unbounded) == (WORST, 1, 0)
    assert desk.desk.home.is_set()


async def test_the_door_hears_how_many_tokens_an_answer_used(booth, monkeypatch):
    desk, heard = booth(), []
    monkeypatch.setattr(desk.door, "back", lambda ticket, **more: heard.append(more))
    await desk.arrive(("a", answer()), usage=Usage(10, 5))
    assert heard == [{"cost": COST, "used_tokens": 15}]


@pytest.mark.parametrize(("output", "pauses"), [(50, []), (50 + COUNTED_OTHERWISE, []), (53, ["bill"])])
async def test_an_answer_longer_than_max_tokens_pauses_unless_it_is_a_matter_of_counting(booth, output, pauses):
    desk = booth()
    await desk.arrive(("a", answer()), usage=Usage(10, output))
    assert [pause.kind for pause in desk.stopped] == pauses


LIMITED = Failure("retry", "rate_limited", "rate_limit_exceeded", "slow down", 429, closes_door=True)


async def test_a_429_shuts_the_door_for_everybody_or_is_counted_as_one_rows_own(booth):
    desk = booth(alone="b")
    await desk.arrive(("b", LIMITED))
    assert (desk.tally.rate_limited, desk.tally.limited_alone, desk.door.shut_seconds) == (0, 1, 0.0)
    await desk.arrive(("a", LIMITED))
    assert (desk.tally.rate_limited, desk.tally.limited_alone) == (1, 1)
    assert desk.tally.shut_seconds == pytest.approx(5.0, abs=0.5)
    assert desk.door.shut_seconds > 4.0


async def test_the_providers_words_say_why_nothing_goes_out_for_long(booth):
    desk = booth()
    tickets = await desk.send(*"abcd")
    for ticket, wait, tells in zip(tickets, (5.0, 90.0, 100.0, 7200.0), (0, 1, 1, 2), strict=True):
        desk.judge.wait = wait
        await desk.come_home([ticket], (ticket.request.key, LIMITED))
        assert len(desk.told) == tells, wait
    assert desk.told == [
        "a rate limit keeps everything back for 1 min 30 s; the provider says: slow down",
        "a rate limit keeps everything back for 2 h 00 min; the provider says: slow down",
    ]


DOWN = Failure("retry", "unavailable", "http_500", "Internal Server Error (HTTP 500)", 500)


async def test_a_rows_last_failure_is_booked_against_it_when_something_else_has_come_back(booth):
    desk = booth()
    await desk.arrive(("a", DOWN), ("b", DOWN))
    held = [line.fields.get("held") for line in read_all(desk.journal.path, dead=False) if line.kind != "header"]
    assert held == [True, True], "whoever finds the journal books no outcome either"
    await desk.arrive(("c", answer()))
    assert desk.lines() == {(kind, key): 1 for kind in ("attempt", "outcome") for key in "abc"}


async def test_rows_whose_last_try_failed_with_all_others_go_out_again(booth):
    desk = booth()
    await desk.arrive(("a", answer()))
    await desk.arrive(*((f"k{n}", DOWN) for n in range(8)))
    again = []
    for _ in range(7):  # one at a time: the provider is down
        again.append(await desk.door.next())
        desk.door.back(again[-1], cost=Decimal(0), used_tokens=None)
    assert {ticket.request.key for ticket in again} == {f"k{n}" for n in range(7)}
    assert {(ticket.attempt, ticket.kind) for ticket in again} == {(2, "retry")}
    assert desk.lines()["outcome", "k0"] == 0


async def test_a_failure_that_could_not_be_judged_is_not_held_against_its_row(booth):
    desk = booth(bug="a")
    await desk.arrive(("a", Failure("reject", "rejected", "bad", "no such thing", http_status=400)))
    (line,) = [line for line in read_all(desk.journal.path, dead=False) if line.kind == "attempt"]
    assert line.fields["held"], "its row stays pending"
