"""A provider that goes down, on a virtual clock: door, desk, health and retries together, at any rate."""

import asyncio
import random
from functools import partial

import pytest
from nights import DOWN, NEVER, Server, hold, lognormal

from pipeline.errors import WireError
from pipeline.health import OUTAGES_TOLD, StopRules


@pytest.fixture
def night(tmp_path):
    return partial(hold, tmp_path)


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


def test_only_the_first_outages_are_told(night):
    held = night(2000, Server(flapping=(3.0, 20.0), latency=1.0), concurrency=8)
    back = [notice for notice in held.told if "the provider is back after" in notice]
    assert len(back) == OUTAGES_TOLD
    assert ["further outages of this run are not told" in notice for notice in back] == [False] * 9 + [True]
    assert sum("trying one at a time" in notice for notice in held.told) == OUTAGES_TOLD


# -- rows that a server breaks off at, or something before it refuses --------------------------------


@pytest.mark.parametrize("concurrency", [8, 32, 128])
@pytest.mark.parametrize("bad", [1, 2])
def test_rows_that_crash_the_server_take_no_others_with_them(night, concurrency, bad):
    crashing = {f"row {100 + 37 * n}" for n in range(bad)}
    held = night(500, Server(crashing=crashing, latency=lognormal(0.5)), concurrency=concurrency)
    assert held.paused is None
    assert held.statuses["ok"] + held.statuses["failed"] == 500
    assert held.statuses["failed"] <= bad


@pytest.mark.parametrize("restart", [2.0, 60.0])
@pytest.mark.parametrize("crashing", [(50, 60), (50, 150, 250), (397, 398, 399)])
def test_several_rows_that_crash_a_server_that_is_slow_to_begin_anew_fail_alone(night, crashing, restart):
    server = Server(crashing={f"row {n}" for n in crashing}, crashes=(0.2, restart), latency=lognormal(1.0))
    held = night(400, server, concurrency=32)
    assert (held.statuses, held.paused) == ({"ok": 400 - len(crashing), "failed": len(crashing)}, None)


def test_rows_that_break_off_each_for_itself_are_soon_sent_alone_no_more(night):
    class Breaks(Server):
        async def post(self, url, headers, body):
            answer = await super().post(url, headers, body)
            if answer is DOWN:
                raise WireError("broken", "the connection was cut", maybe_sent=True)
            return answer

    bad = {f"row {n}" for n in range(0, 4000, 10)}
    held = night(4000, Breaks(bad=bad, latency=lognormal(1.0)), concurrency=32)
    assert (held.statuses, held.paused) == ({"ok": 3600, "failed": 400}, None)
    assert max(held.server.sent[row] for row in bad) == 7, "six attempts, and one alone"
    assert held.seconds < 1.4 * 1.083 * (3600 + 6 * 400) / 32


@pytest.mark.parametrize("rows", [40, 60])
def test_a_server_that_begins_anew_near_the_end_costs_no_row_and_no_pause(night, rows):
    class Gone(Server):
        async def post(self, url, headers, body):
            if 0.9 <= asyncio.get_running_loop().time() < 20.0:
                self.up_again = 20.0
            return await super().post(url, headers, body)

    held = night(rows, Gone(), concurrency=8)
    assert (held.statuses, held.paused) == ({"ok": rows}, None)


@pytest.mark.parametrize("rows", [3, 100])
def test_a_server_that_was_never_there_pauses_the_run_soon(night, rows):
    server = Server()
    server.up_again = NEVER
    held = night(rows, server, concurrency=8)
    assert (held.statuses, held.paused.kind) == ({}, "unavailable")
    assert held.seconds < 60


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("answered_before", [True, False])
def test_a_firewall_that_dislikes_a_text_has_that_row_rejected(night, concurrency, answered_before):
    forbidden = {"row 100", "row 101", "row 900"} | ({"row 0"} if answered_before else set())
    held = night(1000, Server(forbidden=forbidden), concurrency=concurrency, answered_before=answered_before)
    assert (held.statuses, held.paused) == ({"ok": 1000 - len(forbidden), "rejected": len(forbidden)}, None)
    assert sum(held.server.sent.values()) == 1000


@pytest.mark.parametrize("concurrency", [1, 32])
def test_a_key_that_is_refused_from_some_moment_on_costs_few_calls_and_no_row(night, concurrency):
    held = night(2000, Server(forbidden={f"row {n}" for n in range(1000, 2000)}), concurrency=concurrency)
    assert (held.statuses, held.paused.kind) == ({"ok": 1000}, "key")
    assert sum(held.server.sent.values()) <= 1010 + concurrency
    assert "--set stop.same_rejections=0 rejects them" in held.paused.why


@pytest.mark.parametrize("answered_before", [True, False])
def test_the_last_rows_that_a_status_alone_speaks_against_stay_pending(night, answered_before):
    """Nobody knows whether it is theirs: nothing was answered that was sent later."""
    server = Server(forbidden={f"row {n}" for n in range(92, 100)})
    held = night(100, server, concurrency=8, answered_before=answered_before)
    assert (held.statuses, held.paused.kind) == ({"ok": 92}, "key")
    assert "8 requests got this" in held.paused.why
    rules = StopRules(same_rejections=0)
    held = night(100, server, concurrency=8, answered_before=True, rules=rules)
    assert (held.statuses, held.paused) == ({"ok": 92, "rejected": 8}, None)


def test_the_first_403_of_a_job_pauses_it(night):
    held = night(100, Server(forbidden={f"row {n}" for n in range(100)}), concurrency=8)
    assert (held.statuses, held.paused.kind) == ({}, "key")
    assert sum(held.server.sent.values()) <= 8


def test_time_outs_are_called_so_and_not_an_outage(night):
    class Slow(Server):
        async def post(self, url, headers, body):
            await asyncio.sleep(2)
            raise WireError("timeout", "no complete answer within 2 s", maybe_sent=True)

    held = night(100, Slow(), concurrency=8)
    assert held.paused.kind == "unavailable"
    assert "a larger [limits] timeout_seconds helps" in held.paused.why
    assert "outage_rows" not in held.paused.why
