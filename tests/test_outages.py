"""A provider that goes down, on a virtual clock: door, desk, health and retries together, at any rate."""

import asyncio
import random
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import pytest
from virtual_clock import run

from pipeline.budget import Budget
from pipeline.doorman import Doorman, Limits, Ticket
from pipeline.health import Health, StopRules
from pipeline.journal import Journal
from pipeline.providers import find
from pipeline.records import ModelSpec, Request, WireReply
from pipeline.retry import RetryPolicy
from pipeline.runners._ahead import Ahead
from pipeline.runners._connection import Remote
from pipeline.runners._desk import Arrival, Desk
from pipeline.runners._tally import Tally
from pipeline.runners.attempt import Exchanger

ANSWER = WireReply(
    200,
    {},
    b'{"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": "fine"}}],'
    b' "usage": {"prompt_tokens": 10, "completion_tokens": 2}}',
)
DOWN = WireReply(503, {}, b'{"error": {"message": "no"}}')
NEVER = float("inf")


class Server:
    """Answers, but from `down` until `back` with a 503, so of rows in `bad` whenever they come, and now and then."""

    def __init__(self, *, down=NEVER, back=NEVER, bad=(), latency=0.2, slow=None, flaky=0.0, flapping=(NEVER, 0.0)):
        self.down, self.back, self.bad, self.latency, self.slow = down, back, bad, latency, slow or {}
        self.flaky, self.chance = flaky, random.Random(7)
        self.up, self.off = flapping
        self.sent = Counter()

    async def post(self, url, headers, body):
        loop = asyncio.get_running_loop()
        row = next(key for key in body.decode().split('"') if key.startswith("row "))
        self.sent[row] += 1
        await asyncio.sleep(self.slow.get(row, self.latency))
        flapped = self.off and loop.time() % (self.up + self.off) >= self.up
        if row in self.bad or flapped or self.down <= loop.time() < self.back or self.chance.random() < self.flaky:
            return DOWN
        return ANSWER


class Night:
    """A run of so many rows."""

    def __init__(self, folder, server, *, attempts=6, rules=None, answered_before=False, outage_minutes=5.0, **limits):
        self.server, self.paused, self.told = server, None, []
        self.limits = Limits(**limits)
        self.budget, self.tally = Budget(), Tally()
        self.door = Doorman(self.limits, self.budget)
        self.health = Health(
            StopRules(outage_minutes=outage_minutes) if rules is None else rules,
            model="m",
            concurrency=self.limits.concurrency,
            most_open=self.limits.most_open,
            answered_before=answered_before,
        )
        self.exchanger = Exchanger(
            run_id=7,
            spec=ModelSpec("any", "m", base_url="http://127.0.0.1:1/v1", max_tokens=50),
            provider=find("any", base_url="http://127.0.0.1:1/v1", dialect=None, options={}),
            connection=Remote("http://127.0.0.1:1/v1", None),
            wire=server,
            meter=SimpleNamespace(is_free=False, charged=False, price_at=lambda sent_at: None, price=None),
            policy=RetryPolicy(attempts=attempts),
        )
        self.journal = Journal(folder, "ledger")
        self.desk = Desk(
            door=self.door, health=self.health, budget=self.budget, exchanger=self.exchanger, journal=self.journal,
            loader=SimpleNamespace(broken=None), tally=self.tally, ahead=Ahead(), notify=self.told.append,
            stop=self.stop, fail=self.fail, proven=False,
        )  # fmt: skip

    def stop(self, pause):
        self.paused = self.paused or pause
        self.door.stop()

    def fail(self, error):
        raise error

    async def exchange(self, ticket):
        epoch = self.health.epoch
        attempt, result = await self.exchanger.send(ticket)
        self.desk.arrive(Arrival(ticket, attempt, result, epoch))

    async def run(self, rows):
        tickets = [
            Ticket(Request(f"k{n}", ({"role": "user", "content": f"row {n}"},)), Decimal(0), 60, 10, "exact")
            for n in range(rows)
        ]
        for ticket in tickets:
            self.tally.row(ticket.request.key, None)
        bringing = asyncio.create_task(self.bring(tickets))
        exchanges = set()
        while (ticket := await self.door.next()) is not None:
            exchanges.add(asyncio.create_task(self.exchange(ticket)))
        await asyncio.gather(*exchanges)
        await asyncio.sleep(0)
        bringing.cancel()
        if self.paused is None:
            self.desk.book_held()
        self.journal.close()
        return +self.tally.statuses

    async def bring(self, tickets):
        await self.door.offer(tickets)
        self.door.no_more()


@pytest.fixture
def night(tmp_path):
    def begin(rows, server, **more):
        random.seed(4)
        begun = Night(tmp_path, server, **more)
        begun.statuses = run(begun.run(rows))
        return begun

    return begin


RATES = [(1, 1), (1, 20), (1, 600), (4, 6), (32, 1), (32, 20), (32, 60), (32, 600), (256, 20), (256, None)]


@pytest.mark.parametrize(("concurrency", "per_minute"), RATES)
def test_in_an_outage_no_row_is_given_up_at_any_rate(night, concurrency, per_minute):
    per_second = (per_minute or 60_000) / 60
    held = night(1000, Server(down=5 / per_second + 1), concurrency=concurrency, requests_per_minute=per_minute)
    assert held.statuses["failed"] == 0
    assert "no row is given up for that" in held.paused.why


@pytest.mark.parametrize(("concurrency", "per_minute"), RATES)
@pytest.mark.parametrize("minutes", [0.2, 2, 20])
def test_after_an_outage_all_rows_are_answered(night, concurrency, per_minute, minutes):
    down = max(300 / (per_minute or 60_000), 0.5)
    server = Server(down=down, back=down + 60 * minutes)
    held = night(200, server, concurrency=concurrency, requests_per_minute=per_minute, outage_minutes=60)
    assert (held.statuses, held.paused) == ({"ok": 200}, None)


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_few_attempts_give_no_row_up_in_an_outage_either(night, concurrency, attempts):
    server = Server(down=3.0, back=63.0)
    held = night(300, server, concurrency=concurrency, requests_per_minute=120, attempts=attempts)
    assert (held.statuses, held.paused) == ({"ok": 300}, None)


def test_an_outage_under_a_low_rate_is_told_after_a_minute_however_many_slots_there_are(night):
    held = night(1000, Server(down=15.0), concurrency=256, requests_per_minute=20, outage_minutes=0)
    assert "no row is given up for that" in held.paused.why
    assert sum(held.server.sent.values()) <= 5 + 21 + 2


@pytest.mark.parametrize(("concurrency", "per_minute"), RATES)
def test_a_bad_row_among_good_ones_fails_alone_after_its_attempts(night, concurrency, per_minute):
    held = night(60, Server(bad={"row 3"}), concurrency=concurrency, requests_per_minute=per_minute)
    assert (held.statuses, held.paused) == ({"ok": 59, "failed": 1}, None)
    assert held.server.sent["row 3"] == 6


@pytest.mark.parametrize(("concurrency", "per_minute"), RATES)
def test_two_bad_rows_at_a_datasets_end_are_no_outage(night, concurrency, per_minute):
    held = night(30, Server(bad={"row 28", "row 29"}), concurrency=concurrency, requests_per_minute=per_minute)
    assert (held.statuses, held.paused) == ({"ok": 28, "failed": 2}, None)
    assert held.server.sent["row 28"] == held.server.sent["row 29"] == 6


def bad_rows(*numbers):
    return {f"row {n}" for n in numbers}


@pytest.mark.parametrize(("concurrency", "per_minute"), [(4, 600), (8, None), (32, 600), (64, None)])
@pytest.mark.parametrize("first", [20, 60, 200])
def test_bad_rows_in_a_row_hold_no_other_up_and_fail(night, concurrency, per_minute, first):
    server = Server(bad=bad_rows(*range(first, first + 30)))
    held = night(600, server, concurrency=concurrency, requests_per_minute=per_minute)
    assert (held.statuses, held.paused) == ({"ok": 570, "failed": 30}, None)
    assert sum(server.sent[row] for row in server.bad) <= 30 * 12


@pytest.mark.parametrize("concurrency", [4, 8, 32])
@pytest.mark.parametrize("attempts", [3, 6])
def test_bad_rows_among_good_ones_end_failed_and_pause_nothing(night, concurrency, attempts):
    server = Server(bad=bad_rows(*random.Random(1).sample(range(900), 180)))
    held = night(1000, server, concurrency=concurrency, attempts=attempts)
    assert (held.statuses, held.paused) == ({"ok": 820, "failed": 180}, None)


@pytest.mark.parametrize("concurrency", [1, 4, 8, 64])
@pytest.mark.parametrize("first", [150, 170])
def test_bad_rows_in_a_row_near_the_end_hold_no_other_up(night, concurrency, first):
    held = night(200, Server(bad=bad_rows(*range(first, first + 30))), concurrency=concurrency)
    assert held.statuses["ok"] == 170
    assert held.statuses["failed"] == 30 or "--set stop.outage_rows=0" in held.paused.why


@pytest.mark.parametrize("answered_before", [False, True])
def test_bad_rows_at_the_beginning_hold_up_a_new_job_only(night, answered_before):
    held = night(200, Server(bad=bad_rows(*range(20))), concurrency=8, answered_before=answered_before)
    if answered_before:
        assert (held.statuses, held.paused) == ({"ok": 180, "failed": 20}, None)
    else:
        assert "the first 8 rows all failed" in held.paused.why


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("answered_before", [False, True])
def test_where_nothing_else_is_left_the_pause_names_what_ends_the_bad_rows(night, concurrency, answered_before):
    """Nobody can tell then whose fault it is."""
    everything = Server(bad=bad_rows(*range(12)))
    held = night(12, everything, concurrency=concurrency, answered_before=answered_before)
    assert held.statuses["failed"] == 0
    assert "--set stop.outage_rows=0 lets those use up their attempts and end as failed" in held.paused.why
    rules = StopRules(outage_rows=0)
    held = night(12, everything, concurrency=concurrency, answered_before=answered_before, rules=rules)
    assert (held.statuses, held.paused) == ({"failed": 12}, None)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("minutes", [0.5, 3])
def test_a_provider_that_often_fails_costs_no_row_its_outage_either(night, concurrency, minutes):
    server = Server(flaky=0.2, down=5.0, back=5.0 + 60 * minutes)
    held = night(1000, server, concurrency=concurrency, requests_per_minute=1200, attempts=12)
    assert (held.statuses, held.paused) == ({"ok": 1000}, None)


@pytest.mark.parametrize("flapping", [(3.0, 20.0), (5.0, 60.0), (10.0, 120.0), (30.0, 30.0), (10.0, 10.0)], ids=str)
@pytest.mark.parametrize(("concurrency", "per_minute"), [(4, None), (8, 240), (32, 600), (64, None)])
@pytest.mark.parametrize("attempts", [3, 6])
def test_a_provider_that_comes_and_goes_costs_no_more_rows_than_the_last_few(
    night, flapping, concurrency, per_minute, attempts
):
    server = Server(flapping=flapping, latency=1.0)
    held = night(600, server, concurrency=concurrency, requests_per_minute=per_minute, attempts=attempts)
    assert held.paused is None
    assert held.statuses["failed"] < StopRules().outage_rows, "so few at the end are no outage"
    assert held.statuses["ok"] + held.statuses["failed"] == 600


@pytest.mark.parametrize("attempts", [1, 2, 6])
def test_nothing_is_kept_of_rows_that_have_ended(night, attempts):
    held = night(2000, Server(flaky=0.2), concurrency=16, attempts=attempts)
    assert held.statuses["ok"] + held.statuses["failed"] == 2000
    assert held.health._failed == {}


def test_a_bad_row_fails_while_the_last_answers_take_long(night):
    slow = {f"row {n}": 120.0 for n in range(20, 29)}
    held = night(30, Server(bad={"row 29"}, slow=slow), concurrency=16)
    assert (held.statuses, held.paused) == ({"ok": 29, "failed": 1}, None)
    assert held.server.sent["row 29"] == 6


def test_an_outage_at_a_datasets_end_is_one(night):
    held = night(40, Server(down=2.0, back=90.0, latency=1.5), concurrency=20)
    assert (held.statuses, held.paused) == ({"ok": 40}, None)
    assert any("the provider is back" in notice for notice in held.told)
