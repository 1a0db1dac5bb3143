"""Promise: a stated limit is kept without one 429 and used to 99 %; one that isn't stated is found, at little waste.

Each server is a function on a virtual clock (`rate_servers`): an hour of its limits takes a moment. The last tests
run the command against a real server.
"""

import random
from itertools import pairwise

import pytest
from project import Project, texts
from rate_servers import (
    AtOnce,
    Both,
    Bucket,
    Changing,
    Dice,
    Never,
    Outage,
    Refunding,
    Server,
    Window,
    send_all,
    tickets,
)
from stub import StubServer

from pipeline.doorman import OPEN_PER_SLOT
from pipeline.records import Allowance, RateHint

MANY = 4000
"""Slots that never run out."""


# -- stated limits: no 429, and at least 99 % over 30 s -----------------------------------------------


@pytest.mark.parametrize("per_minute", [600, 1200, 6000, 60_000, 300_000])
@pytest.mark.parametrize(
    "limit",
    [
        lambda n: Bucket(n / 60, max(1, n / 600)),
        lambda n: Window(n, began=13.3),
        lambda n: Window(n, began=59.9),
        lambda n: Window(n / 60, seconds=1.0, began=0.45),
    ],
    ids=["bucket of a tenth of a second", "minutes", "minutes, one of which ends at once", "seconds"],
)
def test_a_stated_request_limit_brings_no_429_and_is_used(per_minute, limit):
    seconds = {60_000: 12, 300_000: 4}.get(per_minute, 30)  # nothing changes in what is left, but it takes long
    record = send_all(
        Server(limit(per_minute), latency=0.2),
        int(1.1 * per_minute / 60 * seconds),
        requests_per_minute=per_minute,
        concurrency=MANY,
        until=seconds,
    )
    assert record.refused == []
    assert record.accepted_between(0, seconds) >= 0.995 * per_minute / 60 * seconds


def test_a_stated_request_limit_is_kept_for_minutes_whatever_the_network_does():
    """Every request arrives up to 100 ms late, so two may come closer than they were sent."""
    dice = random.Random(4)

    class Late(Window):
        def admit(self, now, ticket, in_flight):
            return super().admit(now + dice.random() * 0.1, ticket, in_flight)

    record = send_all(Server(Late(6000, began=20)), 18_100, requests_per_minute=6000, concurrency=MANY, until=180)
    assert record.refused == []
    assert len(record.accepted) >= 0.99 * 18_000


TOKENS = [(60_000, (1000,)), (60_000, (1300,)), (600_000, (100, 700, 3000)), (6_000_000, (100, 700, 3000))]


@pytest.mark.parametrize(("per_minute", "sizes"), TOKENS)
@pytest.mark.parametrize(
    "limit",
    [
        lambda n, largest: Bucket(n / 60, largest + n / 600, tokens=True),
        lambda n, largest: Window(n, began=13.3, tokens=True),
    ],
    ids=["bucket", "minutes"],
)
def test_a_stated_token_limit_brings_no_429_and_is_used(per_minute, sizes, limit):
    dice, seconds = random.Random(3), 90
    rows = tickets(per_minute // 500 + 100, lambda n: dice.choice(sizes))
    record = send_all(
        Server(limit(per_minute, max(sizes)), latency=0.5),
        rows,
        tokens_per_minute=per_minute,
        concurrency=MANY,
        until=seconds,
    )
    assert record.refused == []
    sent = sum(tokens for when, tokens in record.accepted if when < 30)
    assert sent >= 0.99 * per_minute / 2 - max(sizes)


def test_tokens_that_were_not_used_are_sent_again_where_the_server_gives_them_back_too():
    """It admits with the worst case, and counts what was used once the answer is there."""
    limit = Refunding(600_000, tokens=True, began=17)
    record = send_all(
        Server(limit, latency=2.0, used=lambda ticket: 250),
        tickets(10_000, 1000),
        tokens_per_minute=600_000,
        concurrency=MANY,
        until=120,
    )
    assert record.refused == []
    in_flight_at_worst = 2.0 * 10_000 * 750 / 250
    assert 250 * record.accepted_between(60, 120) >= 0.98 * (600_000 - in_flight_at_worst)


@pytest.mark.parametrize("limit", [Window(600_000, tokens=True, began=20), Bucket(10_000, 60_000, tokens=True)])
def test_a_server_that_gives_no_tokens_back_says_so_once(limit):
    rows = tickets(2000, 1000)
    record = send_all(Server(limit, latency=0.5, used=lambda t: 250), rows, tokens_per_minute=600_000, concurrency=MANY)
    assert record.lost == 0
    assert len(record.refused) <= 20, "one closing, and what was on its way"
    assert [when for when in record.refused if when > record.refused[0] + 1] == []


# -- limits that nobody stated --------------------------------------------------------------------------


def silent(limit, **more):
    return Server(limit, says_when=False, **more)


class Rounded(Bucket):
    """Its `retry-after` is a whole second, as most servers say it."""

    def admit(self, now, ticket, in_flight):
        return None if super().admit(now, ticket, in_flight) is None else 1.0


UNSTATED = {
    "20/s, burst 2, 5 ms": (lambda: silent(Bucket(20, 2), latency=0.005), 300, 15),
    "20/s, burst 2, 50 ms": (lambda: silent(Bucket(20, 2), latency=0.05, refusal=0.05), 300, 15),
    "20/s, burst 2, 1 s": (lambda: silent(Bucket(20, 2), latency=1.0, refusal=0.05), 300, 16),
    "20/s, burst 2, 0.2 to 1.5 s": (lambda: silent(Bucket(20, 2), latency=lambda d: d.uniform(0.2, 1.5)), 300, 16),
    "20/s, burst 2, says when": (lambda: Server(Bucket(20, 2)), 300, 15),
    "20/s, burst 2, says 1 s": (lambda: Server(Rounded(20, 2)), 1200, 60),
    "20/s, burst 20, 5 ms": (lambda: silent(Bucket(20, 20), latency=0.005), 300, 14),
    "20/s, burst 20, 50 ms": (lambda: silent(Bucket(20, 20), latency=0.05, refusal=0.05), 300, 14),
    "20/s, burst 20, 1 s": (lambda: silent(Bucket(20, 20), latency=1.0, refusal=0.05), 300, 15),
    "20/s, burst 20, says 1 s": (lambda: Server(Rounded(20, 20)), 300, 14),
    "20 in each second": (lambda: silent(Window(20, 1.0)), 300, 15),
    "1,000/s, burst 100": (lambda: silent(Bucket(1000, 100), latency=0.02, refusal=0.02), 30_000, 30),
    "600/min, says when": (lambda: Server(Window(600, began=17), refusal=0.02), 6000, 43 + 8 * 60),
    "600/min, silent": (lambda: silent(Window(600, began=17), refusal=0.02), 6000, 43 + 8 * 60),
    "600/min, silent, 1 s": (lambda: silent(Window(600, began=17), latency=1.0), 6000, 43 + 8 * 60 + 18),
    "6,000/min, silent": (lambda: silent(Window(6000, began=20), refusal=0.02), 40_000, 40 + 5 * 60 + 6),
    "600k tokens/min, bucket": (lambda: silent(Bucket(10_000, 10_000, tokens=True), latency=0.5), 3000, 300),
    "600k tokens/min, says when": (lambda: Server(Window(600_000, began=10, tokens=True)), 6000, 50 + 8 * 60),
    "600k tokens/min, silent": (lambda: silent(Window(600_000, began=10, tokens=True)), 6000, 50 + 8 * 60),
    "5 at once, 1 s": (lambda: Server(AtOnce(5, 1.0), latency=1.0, at_once=True), 300, 60),
    "5 at once, come back in 5 s": (lambda: Server(AtOnce(5, 5.0), latency=1.0, at_once=True), 600, 120),
    "5 at once, come back in 30 s": (lambda: Server(AtOnce(5, 30.0), latency=1.0, at_once=True), 2000, 400),
    "5 at once, uneven answers": (
        lambda: Server(AtOnce(5, 30.0), latency=lambda d: d.uniform(0.3, 1.7), at_once=True), 2000, 400,
    ),
    "5 at once, doesn't say what it limits": (lambda: Server(AtOnce(5, 30.0), latency=1.0), 2000, 400),
}  # fmt: skip
"""What the server does; rows; the shortest time in which anybody could send them, in seconds."""


@pytest.mark.parametrize("name", UNSTATED)
def test_an_unstated_limit_is_found_with_few_calls_wasted_and_little_time(name):
    server, rows, ideal = UNSTATED[name]
    many = tickets(rows, 1000 if "tokens" in name else 100)
    record = send_all(server(), many, seed=1, concurrency=32)
    assert record.lost == 0
    assert record.waste < 0.05
    assert record.seconds < 1.2 * ideal


BY_CHANCE = {None: 120, 1.0: 120, 5.0: 1900}
"""The wait that each 429 names; the most seconds that a run may be longer than without any."""


@pytest.mark.parametrize("wait", BY_CHANCE, ids=lambda wait: f"says {wait} s")
@pytest.mark.parametrize("share", [0.002, 0.02, 0.1])
@pytest.mark.parametrize(("limits", "seed"), [({}, 1), ({"requests_per_minute": 6000}, 2)], ids=["unstated", "stated"])
def test_refusals_that_come_by_chance_do_not_slow_a_run_down_for_long(limits, seed, share, wait):
    """Slowing down would help nobody; a rate learned from them once fell to a few requests a minute."""
    server = Server(Dice(share, seed, wait=wait or 0.01), says_when=wait is not None, refusal=0.05)
    record = send_all(server, 2000, seed=seed, concurrency=32, **limits)
    ideal = 20 if limits else 2000 * 0.05 / 32
    assert record.lost == 0
    assert record.waste < 1.4 * share
    assert record.seconds < ideal + BY_CHANCE[wait]


def test_an_outage_when_429s_came_by_chance_leaves_the_rate_as_it_was():
    """Its probes, each refused right after the pause, were once taken for chance, and the rate sank to nothing."""
    chance = Changing([(12.0, Dice(0.03, 2)), (600, Outage(1e9)), (1e9, Bucket(1e9, 1e9))])
    record = send_all(Server(chance, latency=0.1, refusal=0.02, says_when=False), 2000, seed=2, concurrency=8)
    assert record.lost == 0
    assert record.accepted_between(600, 660) > 500
    assert len(record.refused) < 100


def test_a_row_that_is_refused_by_chance_waits_as_long_as_the_server_says():
    server = Server(Dice(0.02, wait=5.0), refusal=0.05)
    record = send_all(server, 20_000, concurrency=32)
    waits = [again - before for times in record.tries.values() for before, again in pairwise(times)]
    assert len(waits) > 300
    assert min(waits) >= 5.0


def test_a_limit_that_comes_when_429s_came_by_chance_is_found_within_a_few_calls():
    record = send_all(silent(Changing([(60, Dice(0.02)), (1e9, Bucket(50, 10))])), 32_000, concurrency=32)
    assert record.lost == 0
    after = [when for when in record.refused if when >= 60]
    assert len([when for when in after if when < 63]) < 60
    assert len([when for when in after if when >= 63]) < 0.02 * record.accepted_between(63, record.seconds)
    assert record.accepted_between(70, 100) >= 0.8 * 50 * 30


def test_a_limit_is_found_again_beside_429s_that_come_by_chance():
    """Its rate was once taken from the one that chance had taught before: a twentieth of it."""
    record = send_all(silent(Both((Dice(0.02), Bucket(200, 50)))), 20_000, concurrency=32)
    assert record.lost == 0
    assert record.waste < 0.05
    assert record.seconds < 500


@pytest.mark.parametrize("seed", range(5))
def test_sizes_of_any_kind_share_an_unstated_token_limit(seed):
    dice = random.Random(seed)
    sizes = [dice.choice((300, 500, 1500, 4000)) for _ in range(2000)]
    record = send_all(silent(Window(600_000, began=10, tokens=True)), tickets(2000, lambda n: sizes[n]), concurrency=32)
    assert record.lost == 0
    assert record.waste < 0.05
    assert record.seconds < 1.2 * (50 + 5 * 60)


@pytest.mark.parametrize("latency", [0.05, 1.0])
@pytest.mark.parametrize(
    ("limit", "hint"),
    [
        (lambda: Window(600, began=17), RateHint(requests=Allowance(600, 43.0))),
        (lambda: Window(60_000, began=17, tokens=True), RateHint(tokens=Allowance(60_000, 43.0))),
    ],
    ids=["requests", "tokens"],
)
def test_a_limit_that_headers_name_is_kept_without_a_429(limit, hint, latency):
    record = send_all(Server(limit(), latency=latency, hint=lambda now: hint), 3000, concurrency=32)
    assert record.refused == []
    assert record.seconds < 1.03 * 300
    assert record.learned == pytest.approx(600, rel=0.01) or hint.requests is None


def test_a_limit_that_changes_during_the_run_is_found_again():
    limit = Changing([(60, Bucket(20, 2)), (120, Bucket(10, 2)), (1e9, Bucket(20, 2))])
    record = send_all(silent(limit), 3000, concurrency=32)
    assert record.waste < 0.02
    assert record.accepted_between(65, 120) >= 0.9 * 550
    assert record.accepted_between(150, 160) >= 0.9 * 200, "half a minute after it doubled"


# -- no limit at all -------------------------------------------------------------------------------------


def test_a_server_without_a_limit_gets_5000_requests_a_second_after_two_seconds():
    record = send_all(Server(None, latency=0.02), 30_000, concurrency=256)
    assert record.accepted_between(2.0, 3.0) >= 5000
    assert record.learned is None
    assert record.seconds < 5


def test_few_slots_need_no_ramp():
    record = send_all(Server(None, latency=0.1), 400, concurrency=4)
    assert record.seconds == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    "server",
    [lambda: Server(None, latency=300.0), lambda: Server(Window(5, 600.0))],
    ids=["slow answers", "a long wait named"],
)
@pytest.mark.parametrize("rows", [6, 100])
def test_a_server_that_takes_minutes_to_say_anything_ends_no_run(server, rows):
    record = send_all(server(), rows, concurrency=8)
    assert (record.lost, record.paused) == (0, None)


# -- long outages ----------------------------------------------------------------------------------------


def test_an_hour_of_429s_costs_few_calls_and_little_memory_and_no_row():
    hour = Both((Outage(3620.0, start=20.0), Bucket(20, 2)))
    record = send_all(silent(hour), 1000, concurrency=32)
    during = [when for when in record.refused if 20 <= when < 3620]
    assert record.lost == 0
    assert len(during) < 150
    assert record.most_waiting <= OPEN_PER_SLOT * 32
    assert record.seconds < 3620 + 90 + 40, "it asks once a minute, and knows the rate from before"
    assert len([when for when in record.refused if when >= 3620]) < 15, "about one wrong guess, after 600 requests"


def test_after_an_outage_the_slots_do_not_all_run_into_the_wall_at_once():
    record = send_all(silent(Outage(600.0), refusal=0.02), 500, concurrency=256)
    assert sum(when < 1.0 for when in record.refused) < 12
    assert len(record.refused) < 60
    assert record.lost == 0


def test_tickets_that_wait_for_their_retry_are_bounded_by_four_per_slot():
    """Every answer is a 429 that takes a minute to come, so that all slots are in the air when the door shuts."""
    record = send_all(silent(Outage(3600.0), refusal=60.0), 5000, concurrency=50)
    assert record.most_waiting <= OPEN_PER_SLOT * 50
    assert record.lost == 0


# -- rows that never pass ----------------------------------------------------------------------------------


def some(count, rows):
    return frozenset(f"k{n}" for n in random.Random(count).sample(range(rows), count))


NEVER = {
    "64/s, silent": lambda: silent(Never(some(3, 5000), Bucket(64, 6)), latency=0.2),
    "64/s, says when": lambda: Server(Never(some(3, 5000), Bucket(64, 6)), latency=0.2),
    "3,840/min, silent": lambda: silent(Never(some(3, 5000), Window(3840, began=17)), latency=0.2),
    "384k tokens/min, silent": lambda: silent(Never(some(3, 5000), Window(384_000, began=17, tokens=True))),
    "16 at once": lambda: Server(Never(some(3, 5000), AtOnce(16, 1.0)), latency=0.25, at_once=True),
    "no limit": lambda: silent(Never(some(3, 5000), None), latency=0.5),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_row_that_never_passes_delays_nobody_and_is_given_up(name):
    """The shortest time for all others is 78 seconds; three such rows once stopped a run for ever."""
    record = send_all(NEVER[name](), 5000, concurrency=32, until=7200)
    assert set(record.given_up) == some(3, 5000)
    assert record.lost == 0
    assert record.seconds < 1.3 * 78
    assert record.waste < 0.05
    assert record.ended_at < 78 + 1200


def test_a_stated_limit_is_used_although_rows_never_pass():
    server = silent(Never(some(3, 5000), Window(3840, began=17)), latency=0.2)
    record = send_all(server, 5000, requests_per_minute=3840, concurrency=32, until=7200)
    assert set(record.given_up) == some(3, 5000)
    assert record.lost == 0
    assert len(record.refused) < 3 * 30, "nobody else is refused"
    assert record.seconds < 1.3 * 78


def test_rows_larger_than_a_quota_delay_nobody_for_long():
    """Nothing of their size passes, so that a limit for everybody looks the same until small ones are let ahead."""
    large = some(5, 5000)
    rows = tickets(5000, lambda n: 400_000 + n if f"k{n}" in large else 100)
    server = silent(Never(large, Window(384_000, began=17, tokens=True)), latency=0.2)
    record = send_all(server, rows, concurrency=32, until=7200)
    assert set(record.given_up) == large
    assert record.lost == 0
    assert record.seconds < 78 + 240


def test_rows_that_never_pass_may_come_first():
    first = frozenset(f"k{n}" for n in range(20))
    record = send_all(silent(Never(first, Bucket(64, 6)), latency=0.2), 5000, concurrency=32, until=3 * 3600)
    assert set(record.given_up) == first
    assert record.lost == 0


def test_if_nothing_but_refused_rows_is_left_and_nobody_knows_why_the_run_pauses():
    record = send_all(silent(Never(frozenset({"k99"}), Bucket(64, 6))), 100, concurrency=32, until=4 * 3600)
    assert len(record.outcomes) == 99
    assert record.given_up == {}
    assert "everything else is done, and for 2.0 hours a rate limit has refused the rows that are left" in record.paused


@pytest.mark.parametrize(
    "server",
    [
        lambda: silent(Window(1, began=17)),
        lambda: Server(Window(1, began=17)),
        lambda: silent(Window(1, began=17), latency=1.0, refusal=1.0),
        lambda: silent(Window(5, began=17)),
        lambda: silent(Bucket(1 / 60, 1)),
        lambda: silent(Both((Outage(3620.0, start=20.0), Window(5, began=17)))),
        lambda: silent(Both((Outage(3 * 3600.0, start=200.0), Window(5, began=17)))),
    ],
    ids=["1/min", "1/min, says when", "1/min, slowly", "5/min", "1/min, even", "an hour of nothing", "three hours"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_tight_limit_or_an_outage_gives_no_row_up(server, seed):
    record = send_all(server(), 100, seed=seed, concurrency=32)
    assert len(record.outcomes) == 100
    assert record.given_up == {}
    assert record.paused is None
    assert len(record.suspected) <= 2


@pytest.mark.parametrize("largest", [4000, 10_000, 59_000])
@pytest.mark.parametrize("limit", [Window, Bucket], ids=["minutes", "bucket"])
def test_large_rows_under_a_small_token_limit_are_not_given_up(limit, largest):
    """They are refused while small ones pass, again and again, and fit all the same."""
    dice = random.Random(3)
    sizes = [dice.choice((300, 500, 1500, largest)) if dice.random() < 0.2 else 300 for _ in range(500)]
    server = silent(Window(60_000, tokens=True) if limit is Window else Bucket(1000, 60_000, tokens=True))
    record = send_all(server, tickets(500, lambda n: sizes[n]), concurrency=32)
    assert record.given_up == {}
    assert len(record.outcomes) == 500


# -- a real server ---------------------------------------------------------------------------------------


@pytest.fixture
def limited(request):
    with StubServer(requests_per_second=request.param) as stub:
        yield stub


@pytest.fixture
def project(tmp_path, limited):
    return Project(tmp_path, limited.base_url)


@pytest.mark.parametrize("limited", [100], indirect=True)
def test_a_real_server_with_a_stated_limit_sends_no_429(project, limited):
    project.rows(texts(200))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes", "--set", "limits.requests_per_minute=6000")
    assert limited.calls == 200
    assert project.value("select count(*) from results where status = 'ok'") == 200


@pytest.mark.parametrize("limited", [50], indirect=True)
def test_a_real_server_with_an_unstated_limit_loses_no_row_and_few_calls(project, limited):
    project.rows(texts(200))
    project.job(concurrency=32)
    project.run("run", "job.toml", "--yes")
    assert project.value("select count(*) from results where status = 'ok'") == 200
    assert limited.calls - 200 <= 20
