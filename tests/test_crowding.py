"""Servers that turn requests away with a 503 when they have no room for more, on a virtual clock."""

import asyncio
import random
from functools import partial

import pytest
from nights import ANSWER, NEVER, Server, hold, lognormal

from pipeline.crowding import Crowding
from pipeline.errors import WireError
from pipeline.records import WireReply
from pipeline.slots import Sent

ROOM = "the server has room for about"


@pytest.fixture
def night(tmp_path):
    return partial(hold, tmp_path)


def learned(held):
    """Which numbers were told."""
    return [int(notice.removeprefix(ROOM).split()[0]) for notice in held.told if notice.startswith(ROOM)]


ROOMS = [
    (16, 32, 1.0),
    (4, 32, 10.0),
    (2, 32, 5.0),
    (1, 8, 3.0),
    (30, 32, 1.0),
    (100, 256, 1.0),
    (16, 32, 0.1),
    (4, 32, 60.0),
]


@pytest.mark.parametrize(("room", "concurrency", "seconds"), ROOMS)
@pytest.mark.parametrize("even", [True, False])
def test_a_server_with_less_room_than_slots_costs_no_row_and_little_time(night, room, concurrency, seconds, even):
    server = Server(room=room, latency=seconds if even else lognormal(seconds))
    rows = 60 * room if room > 2 else 200
    held = night(rows, server, concurrency=concurrency)
    assert (held.statuses, held.paused) == ({"ok": rows}, None)
    assert held.seconds < 1.15 * rows * seconds * (1 if even else 1.083) / room + 5 * seconds, "the mean of a lognormal"
    assert server.turned_away < 4 * concurrency + 10
    (told,) = learned(held)
    assert abs(told - room) <= max(1, room // 20)


@pytest.mark.parametrize("attempts", [2, 3])
def test_few_attempts_are_enough(night, attempts):
    held = night(1000, Server(room=16, latency=lognormal(1.0)), concurrency=32, attempts=attempts)
    assert held.statuses == {"ok": 1000}


def test_a_stated_rate_changes_nothing(night):
    server = Server(room=16, latency=lognormal(1.0))
    held = night(1000, server, concurrency=64, requests_per_minute=2000)
    assert (held.statuses, learned(held)) == ({"ok": 1000}, [16])


@pytest.mark.parametrize("share", [0.1, 0.25])
@pytest.mark.parametrize("concurrency", [8, 32])
def test_errors_by_chance_are_no_lack_of_room(night, share, concurrency):
    held = night(2000, Server(moody=share, latency=lognormal(1.0)), concurrency=concurrency, attempts=12)
    assert (held.statuses, learned(held)) == ({"ok": 2000}, [])
    assert held.seconds < 1.15 * 2000 * 1.083 / concurrency + 10


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_errors_that_take_as_long_as_answers_are_no_lack_of_room(night, share):
    held = night(2000, Server(flaky=share, latency=lognormal(1.0)), concurrency=32, attempts=12)
    assert (held.statuses, learned(held)) == ({"ok": 2000}, [])


def test_a_server_that_gets_more_room_is_used(night):
    server = Server(room=lambda now: 16 if now < 20 else 40, latency=lognormal(1.0))
    held = night(6000, server, concurrency=64)
    assert held.statuses == {"ok": 6000}
    assert held.seconds < 1.4 * 6000 * 1.083 / 40 + 60


def test_a_server_that_gets_less_room_costs_no_row(night):
    server = Server(room=lambda now: 40 if now < 60 else 10, latency=lognormal(1.0))
    held = night(3000, server, concurrency=64)
    assert (held.statuses, held.paused) == ({"ok": 3000}, None)
    assert server.turned_away < 1000


def test_a_room_shared_with_others_costs_no_row(night):
    server = Server(room=lambda now: 20 - random.Random(int(now / 5)).randint(0, 10), latency=lognormal(1.0))
    held = night(2000, server, concurrency=64)
    assert (held.statuses, held.paused) == ({"ok": 2000}, None)


@pytest.mark.parametrize("room", [1, 4])
def test_a_server_that_loses_nearly_all_its_room_costs_no_row(night, room):
    server = Server(room=lambda now: 64 if now < 200 else room, latency=lognormal(10.0))
    held = night(1500, server, concurrency=128)
    assert (held.statuses, held.paused) == ({"ok": 1500}, None)


def test_a_room_that_never_stays_the_same_costs_no_row(night):
    server = Server(room=lambda now: random.Random(int(now / 15)).choice([1, 2, 4, 8, 16, 128]), latency=lognormal(3.0))
    held = night(1500, server, concurrency=128)
    assert (held.statuses, held.paused) == ({"ok": 1500}, None)


def test_requests_that_are_turned_away_by_chance_cost_few_rows_where_they_are_many(night):
    held = night(1500, Server(room=8, moody=0.4, latency=lognormal(1.0)), concurrency=32)
    assert held.statuses["ok"] > 1470, "without this 55 fail"


def test_a_row_that_fails_as_slowly_as_others_are_answered_has_no_more_tries(night):
    server = Server(room=16, bad={"row 500"}, latency=lognormal(1.0))
    held = night(1000, server, concurrency=32)
    assert held.statuses == {"ok": 999, "failed": 1}
    assert server.sent["row 500"] == 6, "an error that takes as long as an answer is the row's own"


def test_rows_that_are_turned_away_themselves_soon_fail_where_others_are_not(night):
    server = Server(refused={f"row {n}" for n in range(0, 2000, 100)}, room=16, latency=lognormal(1.0))
    held = night(2000, server, concurrency=32)
    assert held.statuses == {"ok": 1980, "failed": 20}
    assert max(server.sent[row] for row in server.refused) < 40
    assert held.seconds < 300


@pytest.mark.parametrize("concurrency", [8, 32])
@pytest.mark.parametrize("share", [0.25, 0.4])
def test_many_rows_that_are_always_turned_away_hold_the_others_up_little(night, concurrency, share):
    chance = random.Random(3)
    refused = {f"row {n}" for n in range(1500) if chance.random() < share}
    held = night(1500, Server(refused=refused, latency=lognormal(1.0)), concurrency=concurrency)
    assert (held.statuses, held.paused) == ({"ok": 1500 - len(refused), "failed": len(refused)}, None)
    assert held.seconds < 2 * (1500 - len(refused)) * 1.083 / concurrency + 60


def test_rows_at_the_end_that_are_always_turned_away_end_in_minutes(night):
    refused = {f"row {n}" for n in range(1440, 1500)}
    held = night(1500, Server(refused=refused, latency=lognormal(1.0)), concurrency=32)
    assert held.statuses == {"ok": 1440, "failed": 60}
    assert held.seconds < 180


def test_an_outage_is_told_from_a_lack_of_room(night):
    server = Server(room=16, down=50.0, back=110.0, latency=lognormal(1.0))
    held = night(1500, server, concurrency=32)
    assert (held.statuses, held.paused, learned(held)) == ({"ok": 1500}, None, [16])


def test_rows_that_always_fail_are_told_from_a_lack_of_room(night):
    bad = {f"row {n}" for n in range(300, 340)}
    held = night(1000, Server(room=16, bad=bad, latency=lognormal(1.0)), concurrency=32)
    assert (held.statuses, held.paused, learned(held)) == ({"ok": 960, "failed": 40}, None, [16])


def test_a_new_jobs_first_refusals_pause_nothing_while_others_are_worked_on(night):
    """Eight are turned away before the first answer can be there: the provider is not down."""
    held = night(100, Server(room=2, latency=20.0), concurrency=16)
    assert (held.statuses, held.paused) == ({"ok": 100}, None)


def test_a_new_job_whose_every_request_fails_pauses_at_once(night):
    held = night(100, Server(down=0.0, latency=0.1), concurrency=16)
    assert "the first 8 rows all failed" in held.paused.why
    assert (held.statuses, held.seconds) == ({}, pytest.approx(0.1, abs=0.5))


def test_a_new_job_pauses_when_the_last_one_that_spoke_for_the_provider_has_failed_too(night):
    slow = {"row 0": 30.0}
    held = night(100, Server(down=0.0, latency=0.1, slow=slow), concurrency=16)
    assert "whatever was sent failed" in held.paused.why
    assert (held.statuses, held.seconds) == ({}, pytest.approx(30.0, abs=5.0))


def test_one_slot_has_nobody_beside_it():
    crowding = Crowding(1)
    assert crowding.turned_away(Sent(0.0, 1, 1), 0.1, older=0) is None
    assert not crowding.watches


QUEUES = [
    (32, {"workers": 1, "seconds": 30.0, "patience": 300.0}),
    (32, {"workers": 1, "seconds": 60.0, "patience": 300.0}),
    (64, {"workers": 4, "seconds": 20.0, "patience": 120.0}),
    (16, {"workers": 2, "seconds": 100.0, "patience": 300.0}),
    (256, {"workers": 8, "seconds": 5.0, "patience": 60.0}),
]


@pytest.mark.parametrize(("concurrency", "queue"), QUEUES)
@pytest.mark.parametrize("even", [True, False])
def test_requests_that_wait_for_each_other_for_too_long_cost_no_row(night, concurrency, queue, even):
    workers, seconds, patience = queue.values()
    server = Server(workers=workers, latency=seconds if even else lognormal(seconds), patience=patience)
    held = night(300, server, concurrency=concurrency)
    assert (held.statuses, held.paused) == ({"ok": 300}, None)
    assert server.timed_out < 6 * concurrency
    assert held.seconds < 1.5 * 300 * seconds / workers + 3 * patience


def test_a_queue_of_few_long_answers_is_known_though_nobody_is_answered_for_most_of_a_wait(night):
    held = night(300, Server(workers=1, latency=lognormal(60.0), patience=200.0), concurrency=4)
    assert held.statuses == {"ok": 300}


def test_a_few_answers_that_never_come_are_no_queue(night):
    slow = {f"row {n}": 10_000.0 for n in range(0, 1000, 200)}

    class Forgetful(Server):
        async def post(self, url, headers, body):
            try:
                async with asyncio.timeout(60.0):
                    return await super().post(url, headers, body)
            except TimeoutError:
                raise WireError("timeout", "no answer", maybe_sent=True) from None

    held = night(1000, Forgetful(slow=slow, latency=lognormal(1.0)), concurrency=32, attempts=2)
    assert (held.statuses, learned(held)) == ({"ok": 995, "failed": 5}, [])


class Gateway(Server):
    """Answers for another one, for a share of the requests, that no answer came in time; between two moments."""

    def __init__(self, share, seconds, between=(0.0, NEVER), **more):
        super().__init__(**more)
        self.share, self.seconds, self.between, self.mood = share, seconds, between, random.Random(5)

    async def post(self, url, headers, body):
        start, end = self.between
        if start <= asyncio.get_running_loop().time() < end and self.mood.random() < self.share:
            await asyncio.sleep(self.seconds)
            return WireReply(504, {}, b'{"error": {"message": "gateway"}}')
        return await super().post(url, headers, body)


GATEWAYS = [(0.2, 0.05, (0.0, NEVER)), (0.5, 5.0, (0.0, NEVER)), (0.5, 1.0, (100.0, 120.0))]


@pytest.mark.parametrize(("share", "seconds", "between"), GATEWAYS)
def test_time_outs_that_come_sooner_than_answers_are_no_queue(night, share, seconds, between):
    server = Gateway(share, seconds, between, latency=lognormal(10.0))
    held = night(1500, server, concurrency=32, attempts=14)
    assert (held.statuses, learned(held)) == ({"ok": 1500}, [])
    assert held.seconds < 1.2 * 1500 * (10.83 + seconds * share / (1 - share)) / 32 + 250


class Stalling(Server):
    """Stands still between two moments; whoever waits for longer than `patience` seconds gives up."""

    def __init__(self, start, end, patience, **more):
        super().__init__(**more)
        self.start, self.end, self.patience = start, end, patience

    async def post(self, url, headers, body):
        now, seconds = asyncio.get_running_loop().time(), self.latency(self.chance)
        if now < self.end and now + seconds > self.start:
            seconds += self.end - max(self.start, now)
        if seconds > self.patience:
            await asyncio.sleep(self.patience)
            raise WireError("timeout", "no answer", maybe_sent=True)
        await asyncio.sleep(seconds)
        return ANSWER


@pytest.mark.parametrize(
    ("concurrency", "seconds", "stall", "patience"),
    [
        (32, 10.0, (200.0, 320.0), 60.0),
        (32, 60.0, (600.0, 900.0), 300.0),
        (8, 1.0, (10.0, 55.0), 10.0),
        (16, 1.0, (10.0, 16.0), 5.0),
        (32, 1.0, (10.0, 22.0), 5.0),
        (64, 5.0, (30.0, 300.0), 60.0),
    ],
)
def test_a_server_that_stands_still_for_a_while_is_used_as_before(night, concurrency, seconds, stall, patience):
    """Or a network that is gone, a laptop that slept: that is no question of room, and no advice is given."""
    rows = 60 * concurrency
    held = night(rows, Stalling(*stall, patience, latency=lognormal(seconds)), concurrency=concurrency)
    assert (held.statuses, held.paused, learned(held)) == ({"ok": rows}, None, [])
    assert held.seconds < 1.1 * 60 * 1.083 * seconds + (stall[1] - stall[0])


class Far(Server):
    """Requests take up to so many seconds on their way, and come in another order than they went out."""

    def __init__(self, jitter, **more):
        super().__init__(**more)
        self.jitter, self.way = jitter, random.Random(9)

    async def post(self, url, headers, body):
        await asyncio.sleep(self.way.random() * self.jitter)
        return await super().post(url, headers, body)


@pytest.mark.parametrize(
    ("jitter", "room", "seconds"), [(0.1, 16, 20.0), (0.2, 4, 20.0), (0.5, 16, 20.0), (0.2, 16, 2.0)]
)
def test_a_way_of_changing_length_hides_no_room(night, jitter, room, seconds):
    held = night(300, Far(jitter, room=room, latency=lognormal(seconds)), concurrency=32)
    assert held.statuses == {"ok": 300}
    (told,) = learned(held)
    assert abs(told - room) <= 1
    assert held.seconds < 1.3 * 300 * 1.083 * seconds / room


@pytest.mark.parametrize("share", [0.25, 0.4])
def test_of_two_slots_one_is_not_given_up_for_errors_by_chance(night, share):
    held = night(1000, Server(moody=share, latency=lognormal(1.0)), concurrency=2, attempts=14)
    assert held.statuses == {"ok": 1000}
    assert held.seconds < 1.25 * 1000 * 1.083 / 2 + 60
