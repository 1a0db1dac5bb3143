"""The doorman, on a clock that is turned by hand: rates, order, slots, pauses, budget and the ways to stop."""

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from decimal import Decimal

import pytest
from virtual_clock import StandstillError, run, settle

from pipeline.budget import Budget
from pipeline.doorman import OPEN_PER_SLOT, QUEUED_LEAST, Doorman, Limits, Ticket
from pipeline.errors import BudgetExhausted
from pipeline.pace import NO_RAMP_UP_TO
from pipeline.records import Failure, Reply, Request
from pipeline.taps import LAPSE_SECONDS, TOKEN_SECONDS

MANY = 10**6
DOWN = Failure("retry", "unavailable", "http_503", "Service Unavailable (HTTP 503)", 503)
FINE = Reply("fine", "stop", "stop", None)


def ticket(n, *, tokens=100, reserve=None, **more):
    return Ticket(
        Request(f"k{n}", ()), None if reserve is None else Decimal(reserve), tokens, tokens // 2, "exact", **more
    )


def door_with(cap=None, **limits):
    budget = Budget(None if cap is None else Decimal(cap))
    return Doorman(Limits(**limits), budget), budget


class Street:
    """What is beyond the door: every ticket comes home after a while, and each going out is written down."""

    def __init__(self, door, *, latency=0.0, used=None, cost=lambda t: t.reserve_usd):
        self.door, self.latency, self.used, self.cost = door, latency, used, cost
        self.out = []
        self.most_in_flight = 0

    @property
    def times(self):
        return [when for when, _ in self.out]

    @property
    def order(self):
        return [t.request.key for _, t in self.out]

    def home(self, t):
        self.door.back(t, cost=self.cost(t), used_tokens=t.tokens if self.used is None else self.used(t))
        self.door.ended(t.request.key)

    async def watch(self, until=float("inf")):
        """Let tickets out until the door closes or the clock shows `until`."""
        loop = asyncio.get_running_loop()
        while loop.time() < until and (t := await self.door.next()) is not None:
            self.out.append((loop.time(), t))
            self.most_in_flight = max(self.most_in_flight, self.door.in_flight)
            if self.latency:
                loop.call_later(self.latency, self.home, t)
            else:
                self.home(t)


def send_for(seconds, *, tickets, latency=0.0, used=None, **limits):
    """Let these tickets out for so many virtual seconds; the street has what happened."""

    async def day():
        door, _ = door_with(**{"concurrency": MANY, **limits})
        street = Street(door, latency=latency, used=used)
        door._fresh.extend(tickets)
        door.no_more()
        await street.watch(until=seconds)
        return street

    return run(day())


def busiest(events, seconds):
    """The most weight in any window of this length: (when, weight) in order of time."""
    times = [when for when, _ in events]
    sums = [0]
    for _, weight in events:
        sums.append(sums[-1] + weight)
    ends = (bisect_left(times, when + seconds) for when in times)
    return max(sums[end] - sums[start] for start, end in enumerate(ends))


# -- rates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_minute", [6, 60, 600, 6000, 15_000])
def test_requests_keep_to_the_stated_rate_and_reach_it(per_minute):
    street = send_for(60, tickets=[ticket(n) for n in range(per_minute * 2)], requests_per_minute=per_minute)
    events = [(when, 1) for when in street.times if when < 60]
    assert 0.99 * per_minute <= len(events) <= max(1.01 * per_minute, per_minute + 1)
    assert busiest(events, 1) <= 1.05 * per_minute / 60 + 1


def groups_of(door, seconds, *, dawdle=0.0):
    """Let tickets out for so many seconds as the dispatcher does: [(when, how many together)]."""

    async def day():
        loop, groups = asyncio.get_running_loop(), []
        while loop.time() < seconds:
            together = [await door.next()]
            await asyncio.sleep(dawdle)
            together += door.more()
            groups.append((loop.time(), len(together)))
            for each in together:
                door.back(each, cost=None, used_tokens=each.tokens)
                door.ended(each.request.key)
        return groups

    return run(day())


def full_door(**limits):
    door, _ = door_with(**{"concurrency": MANY, **limits})
    door._fresh.extend(ticket(n) for n in range(50_000))
    return door


@pytest.mark.parametrize(("per_minute", "together"), [(12_000, 1), (60_000, 4), (300_000, 24)])
def test_at_fast_rates_five_milliseconds_worth_goes_out_together(per_minute, together):
    groups = groups_of(full_door(requests_per_minute=per_minute), 5)
    assert max(size for _, size in groups) == together
    assert sum(size for _, size in groups) == pytest.approx(per_minute / 12, rel=0.01)
    assert busiest(groups, 1) <= 1.01 * per_minute / 60


def test_where_tokens_are_limited_too_each_request_waits_for_its_own():
    groups = groups_of(full_door(requests_per_minute=60_000, tokens_per_minute=3_000_000), 5)
    assert {size for _, size in groups} == {1}


def test_what_was_drawn_long_ago_has_lapsed():
    groups = groups_of(full_door(requests_per_minute=60_000), 2, dawdle=LAPSE_SECONDS + 0.01)
    assert {size for _, size in groups} == {1}


def test_a_shut_door_holds_what_is_drawn_already():
    async def day():
        door = full_door(requests_per_minute=60_000)
        await door.next()
        door.shut_for(1.0)
        return door.more()

    assert run(day()) == []


def test_of_what_is_drawn_nothing_passes_that_the_budget_does_not_allow():
    async def day():
        door, budget = door_with("2.5", concurrency=MANY, requests_per_minute=300_000)
        door._fresh.extend(ticket(n, reserve="1") for n in range(9))
        together = [await door.next(), *door.more()]
        return [each.request.key for each in together], budget.left, door._retries[0]

    keys, left, waiting = run(day())
    assert (keys, left, waiting.request.key) == (["k0", "k1"], Decimal("0.5"), "k2")


@pytest.mark.parametrize(("per_minute", "size"), [(60_000, 100), (60_000, 900), (600_000, 1300), (6_000_000, 700)])
def test_tokens_keep_to_the_stated_rate_and_reach_it(per_minute, size):
    street = send_for(
        60, tickets=[ticket(n, tokens=size) for n in range(per_minute * 2 // size)], tokens_per_minute=per_minute
    )
    events = [(when, size) for when in street.times if when < 60]
    total = size * len(events)
    assert 0.99 * per_minute - size <= total <= max(1.01 * per_minute, per_minute + size)
    assert busiest(events, 1) <= 1.05 * per_minute / 60 + size


@pytest.mark.parametrize(
    ("tokens_per_minute", "expected"),
    [(1_200_000, 600), (300_000, 240)],
    ids=["requests are short", "tokens are short"],
)
def test_of_two_limits_the_shorter_one_holds_and_is_reached(tokens_per_minute, expected):
    tickets = [ticket(n, tokens=1250) for n in range(1000)]
    street = send_for(60, tickets=tickets, requests_per_minute=600, tokens_per_minute=tokens_per_minute)
    assert 0.99 * expected <= sum(when < 60 for when in street.times) <= 1.01 * expected + 1


def test_with_two_limits_and_mixed_sizes_neither_is_exceeded():
    """And neither is quite reached when they are about equally short: what a large one owes adds to the next wait."""
    sizes = [50, 50, 50, 4850]
    tickets = [ticket(n, tokens=sizes[n % 4]) for n in range(1000)]
    street = send_for(60, tickets=tickets, requests_per_minute=600, tokens_per_minute=1_200_000)
    per_four = 3 * 60 / 600 + 60 * 4850 / 1_200_000 - TOKEN_SECONDS
    assert sum(when < 60 for when in street.times) == pytest.approx(4 * 60 / per_four, rel=0.03)


def test_without_limits_a_few_slots_wait_for_nobody():
    street = send_for(1, tickets=[ticket(n) for n in range(5000)], concurrency=NO_RAMP_UP_TO)
    assert street.times[-1] < 0.001
    assert len(street.out) == 5000


def test_without_limits_many_slots_ramp_up_and_then_wait_for_nobody():
    street = send_for(60, tickets=[ticket(n) for n in range(50_000)])
    assert bisect_right(street.times, 0.25) <= 8
    second = [(when, 1) for when in street.times if when < 2.25]
    assert busiest(second, 0.25) > 0.2 * 5000
    assert street.times[-1] < 3


def test_after_an_idle_hour_there_is_no_burst():
    async def day():
        door, _ = door_with(requests_per_minute=600, concurrency=MANY)
        street = Street(door)
        watching = asyncio.create_task(street.watch())
        await asyncio.sleep(3600)
        await door.offer([ticket(n) for n in range(100)])
        door.no_more()
        await watching
        return street

    street = run(day())
    assert busiest([(when, 1) for when in street.times], 1) <= 11
    assert street.times[-1] == pytest.approx(3600 + 9.9, abs=0.2)


def test_tickets_go_out_in_the_order_they_came():
    tickets = [ticket(n, tokens=(n * 7919) % 3000) for n in range(300)]
    street = send_for(MANY, tickets=tickets, requests_per_minute=6000, tokens_per_minute=600_000)
    assert street.order == [f"k{n}" for n in range(300)]


def test_a_large_request_never_starves_behind_small_ones():
    tickets = [ticket(n, tokens=50_000 if n % 50 == 25 else 10) for n in range(500)]
    street = send_for(MANY, tickets=tickets, tokens_per_minute=60_000)
    assert len(street.out) == 500
    first_large = next(when for when, t in street.out if t.tokens == 50_000)
    assert first_large == pytest.approx(0.25, rel=0.02), "it waits for those before it, not for itself"


def test_a_request_of_exactly_the_minutes_limit_passes_in_a_minute():
    assert Limits(tokens_per_minute=1000).never_fits(1000) is None
    street = send_for(MANY, tickets=[ticket(0, tokens=1000), ticket(1, tokens=1000)], tokens_per_minute=1000)
    assert street.times == pytest.approx([0, 60], abs=0.2)


def test_a_request_above_the_minutes_limit_is_told_apart_before_it_comes():
    said = Limits(tokens_per_minute=1000).never_fits(1001)
    assert "1,001 tokens" in said
    assert "1,000 tokens per minute" in said
    assert Limits().never_fits(MANY) is None


def test_unused_tokens_are_spent_again_and_the_used_ones_keep_to_the_rate():
    street = send_for(
        150,
        tickets=[ticket(n, tokens=1000) for n in range(2000)],
        latency=2.0,
        used=lambda _: 250,
        tokens_per_minute=60_000,
    )
    used = [(when, 250) for when, _ in street.out]
    assert busiest(used, 60) <= 1.01 * 60_000 + 1000
    last_minute = [weight for when, weight in used if when >= 90]
    in_flight_at_worst = 2.0 * 1000 * 750 / 250
    assert sum(last_minute) >= 0.99 * (60_000 - in_flight_at_worst), "unused tokens must not be lost"


def test_an_exchange_of_unknown_use_gives_no_tokens_back():
    async def day():
        door, _ = door_with(tokens_per_minute=6000)
        door._fresh.extend([ticket(0, tokens=100), ticket(1, tokens=100)])
        first = await door.next()
        door.back(first, cost=None, used_tokens=None)
        await door.next()
        return asyncio.get_running_loop().time()

    assert run(day()) == pytest.approx(1.0, abs=0.05)


# -- slots and queues ---------------------------------------------------------------------------------


def test_slots_are_never_exceeded_and_all_are_used():
    street = send_for(MANY, tickets=[ticket(n) for n in range(1000)], latency=1.0, concurrency=7)
    assert street.most_in_flight == 7
    flights = [(when, 1) for when in street.times]
    assert busiest(flights, 0.999) == 7
    assert street.times[-1] == pytest.approx(1000 // 7, abs=0.25)


def test_at_most_four_requests_per_slot_are_open():
    async def day():
        door, open_ones, watching = await _without_outcomes(100, concurrency=2)
        assert len(open_ones) == OPEN_PER_SLOT * 2
        for _ in range(3):
            door.ended(open_ones.pop(0))
        await settle()
        assert len(open_ones) == OPEN_PER_SLOT * 2
        watching.cancel()

    run(day())


async def _without_outcomes(rows, *, concurrency):
    """A door, the keys that it has let out, and the task that lets them out: their rows stay open."""
    door, _ = door_with(concurrency=concurrency)
    door._fresh.extend(ticket(n) for n in range(rows))
    open_ones = []
    watching = asyncio.create_task(_never_ending(door, open_ones))
    await settle()
    return door, open_ones, watching


async def _never_ending(door, open_ones):
    """Exchanges come home, but no request gets its outcome."""
    while True:
        t = await door.next()
        open_ones.append(t.request.key)
        door.back(t, cost=None, used_tokens=None)


def test_a_retry_may_go_out_when_no_fresh_row_may():
    async def day():
        door, open_ones, watching = await _without_outcomes(10, concurrency=1)
        assert open_ones == ["k0", "k1", "k2", "k3"]
        door.again(ticket(2, attempt=2, kind="retry"), 0.0)
        await asyncio.sleep(0.1)
        assert open_ones == ["k0", "k1", "k2", "k3", "k2"]
        watching.cancel()

    run(day())


def test_rows_that_wait_for_themselves_alone_keep_no_fresh_row_from_going_out():
    async def day():
        door, open_ones, watching = await _without_outcomes(10, concurrency=1)
        for n in range(3):
            door.again_by_itself(ticket(n, attempt=2, kind="retry"), 5.0)
        door.ended("k3")
        assert door.waiting_alone == (3, 5.0)
        await asyncio.sleep(0.1)
        assert open_ones[4:] == ["k4", "k5", "k6", "k7"], (
            "one for the row that has ended, and three for those that wait"
        )
        await asyncio.sleep(5.0)
        assert sorted(open_ones[8:]) == ["k0", "k1", "k2"]
        assert door.waiting_alone == (0, 0.0)
        watching.cancel()

    run(day())


def test_when_only_refused_rows_are_left_those_apart_have_their_turn():
    async def day():
        door, open_ones, watching = await _without_outcomes(3, concurrency=1)
        door.no_more()
        door.again_apart(ticket(0, attempt=2, kind="retry"), 0.0)
        await asyncio.sleep(0.1)
        assert open_ones[3:] == ["k0"], "nothing else is left"
        for _ in range(4):
            door.shut_for(10.0)
            for n in (1, 2):
                door.again(ticket(n, attempt=2, kind="retry"), 0.0)
            door.again_apart(ticket(0, attempt=2, kind="retry"), 5.0)
            await asyncio.sleep(11.0)
        assert open_ones[4:].count("k0") == 4
        assert open_ones.index("k0", 4) < len(open_ones) - 6, "in between, and not after all the others"
        watching.cancel()

    run(day())


def test_retries_go_ahead_of_fresh_rows_and_sleep_outside():
    async def day():
        door, _ = door_with(requests_per_minute=60, concurrency=MANY)
        street = Street(door)
        door._fresh.extend(ticket(n) for n in range(20))
        door.again(ticket("late", kind="retry"), 5.5)
        door.again(ticket("soon", kind="retry"), 2.5)
        door.no_more()
        await street.watch()
        return street

    order = run(day()).order
    assert [k for k in order if k not in {"klate", "ksoon"}] == [f"k{n}" for n in range(20)]
    # k3 and k6 stood at the limiter already when the retries became ready
    assert order.index("ksoon") == 4
    assert order.index("klate") == 7


@pytest.mark.parametrize("sign", [None, FINE])
def test_a_row_that_failed_goes_behind_fresh_ones_as_long_as_nothing_else_comes_back(sign):
    async def day():
        door, _ = door_with(concurrency=8)
        door._fresh.extend(ticket(n) for n in range(4))
        door.no_more()
        failed, passed = await door.next(), await door.next()
        door.heard(failed, DOWN)
        door.back(failed, cost=None, used_tokens=None)
        door.again(failed._replace(attempt=2, tries=1, kind="retry"), 0.0)
        await settle()
        if sign:
            door.heard(passed, sign)
        return [(await door.next()).request.key for _ in range(3)]

    assert run(day()) == (["k0", "k2", "k3"] if sign else ["k2", "k3", "k0"])


def test_whoever_offers_waits_until_there_is_room():
    async def day():
        door, _ = door_with(requests_per_minute=600, concurrency=1)
        street = Street(door)
        await asyncio.wait_for(door.offer(ticket(n) for n in range(QUEUED_LEAST)), 1)
        offering = asyncio.create_task(door.offer(ticket(QUEUED_LEAST + n) for n in range(100)))
        await settle()
        assert not offering.done()
        watching = asyncio.create_task(street.watch())
        await offering
        assert len(street.out) == pytest.approx(100, abs=2)
        door.stop()
        watching.cancel()

    run(day())


def test_next_returns_none_only_when_everything_let_out_has_ended():
    async def day():
        door, _ = door_with()
        await door.offer([ticket(0)])
        out = await door.next()
        door.no_more()
        waiting = asyncio.create_task(door.next())
        await settle()
        door.back(out, cost=None, used_tokens=None)
        await settle()
        assert not waiting.done(), "its retry may still come"
        door.again(ticket(0, attempt=2), 3.0)
        again = await waiting
        assert again.attempt == 2
        waiting = asyncio.create_task(door.next())
        door.back(again, cost=None, used_tokens=None)
        door.ended("k0")
        assert await waiting is None

    run(day())


def test_an_empty_input_ends_at_once():
    async def day():
        door, _ = door_with()
        waiting = asyncio.create_task(door.next())
        await settle()
        door.no_more()
        assert await waiting is None

    run(day())


# -- pauses -----------------------------------------------------------------------------------------


def test_a_shut_door_stops_everybody_until_its_time():
    async def day():
        door, _ = door_with(concurrency=MANY)
        street = Street(door)
        door._fresh.extend(ticket(n) for n in range(10))
        door.again(ticket("retry"), 0.0)
        door.shut_for(30)
        assert door.shut_seconds == pytest.approx(30)
        door.no_more()
        await street.watch()
        return street

    times = run(day()).times
    assert times[0] == pytest.approx(30.0)
    assert len(times) == 11


def test_a_longer_pause_stays_when_a_shorter_one_comes():
    async def day():
        door, _ = door_with()
        street = Street(door)
        door._fresh.append(ticket(0))
        door.no_more()
        door.shut_for(30)
        door.shut_for(5)
        asyncio.get_running_loop().call_later(20, door.shut_for, 40)  # while it waits: now until 60
        await street.watch()
        return street

    assert run(day()).times == pytest.approx([60.0])


def test_a_door_shut_while_a_ticket_waits_for_its_slot_or_its_rate_holds_that_ticket_too():
    async def day(**limits):
        door, _ = door_with(**limits)
        street = Street(door, latency=10.0)
        door._fresh.extend([ticket(0), ticket(1)])
        door.no_more()
        asyncio.get_running_loop().call_later(5, door.shut_for, 30)
        await street.watch()
        return street.times

    assert run(day(concurrency=1)) == pytest.approx([0, 35], abs=1e-3)
    assert run(day(requests_per_minute=6)) == pytest.approx([0, 35], abs=1e-3)


# -- budget -----------------------------------------------------------------------------------------


def test_the_budget_is_never_exceeded_and_its_unused_part_is_used():
    async def day():
        door, budget = door_with("1.00", concurrency=50)
        street = Street(door, latency=1.0, cost=lambda _: Decimal("0.03"))
        door._fresh.extend(ticket(n, reserve="0.10") for n in range(100))
        door.no_more()
        with pytest.raises(BudgetExhausted, match=r"may cost up to \$0\.10, but \$0\.\d+ of the budget of \$1\.00"):
            await street.watch()
        return street, budget

    street, budget = run(day())
    assert street.most_in_flight == 10, "ten worst cases fit at once"
    assert len(street.out) == 31  # 31 x 0.03 = 0.93, and 0.10 does not fit into the rest
    assert budget.spent == Decimal("0.93")


def test_a_budget_that_earlier_runs_have_passed_is_told_without_an_amount_below_zero():
    async def day():
        door = Doorman(Limits(), Budget(Decimal("0.30"), Decimal("0.63")))
        await door.offer([ticket(0, reserve="0.10")])
        await door.next()

    with pytest.raises(BudgetExhausted, match=r"\$0\.10, but \$0\.63 is spent already, and the budget is \$0\.30;"):
        run(day())


def test_a_ticket_that_does_not_fit_waits_for_what_is_in_flight():
    async def day():
        door, _ = door_with("0.15")
        street = Street(door, latency=7.0, cost=lambda _: Decimal("0.05"))
        door._fresh.extend([ticket(0, reserve="0.10"), ticket(1, reserve="0.10")])
        door.no_more()
        await street.watch()
        return street.times

    assert run(day()) == pytest.approx([0, 7], abs=1e-3)


def test_unknown_costs_count_at_their_worst_case():
    async def day():
        door, budget = door_with("0.25")
        street = Street(door, cost=lambda _: None)
        door._fresh.extend(ticket(n, reserve="0.10") for n in range(5))
        with pytest.raises(BudgetExhausted):
            await street.watch()
        return len(street.out), budget.spent

    assert run(day()) == (2, Decimal("0.20"))


def test_without_a_price_nothing_is_reserved_and_everything_passes():
    street = send_for(1, tickets=[ticket(n, reserve=None) for n in range(10)])
    assert len(street.out) == 10


# -- stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "shut"),
    [
        ({"requests_per_minute": 1}, 0),
        ({"tokens_per_minute": 100}, 0),
        ({"concurrency": 1}, 0),
        ({}, 100),
    ],
    ids=["at the request limiter", "at the token limiter", "for a slot", "before a shut door"],
)
def test_stop_and_cancel_end_next_wherever_it_waits_and_give_the_reservation_back(limits, shut):
    async def day():
        door, budget = door_with("10", **limits)
        door._fresh.extend([ticket(0, reserve="1"), ticket(1, reserve="1")])
        out = await door.next()
        door.shut_for(shut)
        waiting = asyncio.create_task(door.next())
        await settle()
        assert not waiting.done()
        assert budget.left == 8
        door.stop()
        waiting.cancel()
        assert (await asyncio.gather(waiting, return_exceptions=True))[0] is None or waiting.cancelled()
        assert budget.left == 9, "only what is in flight stays reserved"
        assert door.in_flight == 1
        door.back(out, cost=Decimal("0.5"), used_tokens=None)
        assert budget.left == Decimal("9.5")

    run(day())


def test_stop_alone_ends_a_wait_for_the_budget_without_blaming_the_budget():
    async def day():
        door, _ = door_with("0.15")
        door._fresh.extend([ticket(0, reserve="0.10"), ticket(1, reserve="0.10")])
        out = await door.next()
        waiting = asyncio.create_task(door.next())
        await settle()
        door.stop()
        assert await waiting is None
        door.back(out, cost=None, used_tokens=None)
        assert await door.next() is None

    run(day())


def test_stop_frees_whoever_offers():
    async def day():
        door, _ = door_with(concurrency=1)
        offering = asyncio.create_task(door.offer(ticket(n) for n in range(1000)))
        await settle()
        assert not offering.done()
        door.stop()
        await offering
        assert await door.next() is None

    run(day())


# -- the clock itself -------------------------------------------------------------------------------


def test_a_standstill_fails_instead_of_hanging():
    async def day():
        door, _ = door_with()
        await door.next()

    with pytest.raises(StandstillError):
        run(day())


def test_a_mixed_night_keeps_every_promise_at_once():
    """Rates, slots, retries and pauses together: every key ends once, in bounds."""

    async def night():
        door, budget = door_with("2.00", requests_per_minute=1200, tokens_per_minute=240_000, concurrency=16)
        loop, out, tries, most = asyncio.get_running_loop(), [], Counter(), 0

        def home(t):
            door.back(t, cost=Decimal("0.001"), used_tokens=t.tokens // 2)
            tries[t.request.key] += 1
            if tries[t.request.key] < 1 + int(t.request.key[1:]) % 3:
                if tries[t.request.key] == 2:
                    door.shut_for(3)
                door.again(t, 1.5)
            else:
                door.ended(t.request.key)

        async def bring():
            for start in range(0, 600, 50):
                await door.offer(ticket(n, tokens=200, reserve="0.002") for n in range(start, start + 50))
            door.no_more()

        bringing = asyncio.create_task(bring())
        while (t := await door.next()) is not None:
            most = max(most, door.in_flight)
            assert budget.left >= 0
            out.append(loop.time())
            loop.call_later(0.4, home, t)
        await bringing
        return out, tries, most, budget.spent

    out, tries, most, spent = run(night())
    assert tries == Counter({f"k{n}": 1 + n % 3 for n in range(600)})
    assert most <= 16
    assert spent == Decimal("1.200")
    assert busiest([(when, 1) for when in out], 1) <= 21 + 1
    assert out == sorted(out)
    assert bisect_right(out, 60.0) <= 1212
