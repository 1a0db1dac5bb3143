"""What is learned about a server's limits: facts with their times in, rates out."""

import pytest

from pipeline.minute import Minute
from pipeline.pace import BACK_TO, FULL_RAMP, MARGIN, START, Pace, lowest, paced
from pipeline.records import Allowance, RateHint


def sends(pace, count, per_second, start=0.0, in_flight=1):
    """So many requests, evenly; the last one's `Sent`."""
    return [pace.sent(start + n / per_second, in_flight) for n in range(count)][-1]


def limited_at(pace, count=101, per_second=20.0, start=0.0, shut=0.2):
    """Let all but the last request pass, and open again after a short pause; the moment of reopening."""
    last = sends(pace, count, per_second, start)
    pace.limited(last.at + 0.01, last)
    pace.shut(last.at + shut)
    pace.sent(last.at + shut, 1)
    return last.at + shut


def test_nothing_known_is_a_ramp_that_doubles_and_ends():
    pace = Pace(ramps=True)
    assert pace.requests_per_second(99) == START, "it starts with the first request, not with the clock"
    pace.sent(100.0, 1)
    assert pace.requests_per_second(100.0) == START
    assert pace.requests_per_second(100.5) == pytest.approx(4 * START)
    assert pace.requests_per_second(102.0) >= 5000
    assert pace.requests_per_second(103.0) is None
    assert pace.requests_per_second(103.1) is None, "for good"
    assert START * 2 ** (3.0 / 0.25) > FULL_RAMP


def test_a_ramp_that_nobody_looked_at_for_hours_is_over():
    pace = Pace(ramps=True)
    pace.sent(100.0, 1)
    assert pace.requests_per_second(100.0 + 86_400) is None


def test_a_ramp_that_nobody_looked_at_for_hours_is_over_for_a_429_of_then_too():
    pace = Pace(ramps=True)
    pace.sent(100.0, 1)
    pace.limited(86_400.1, pace.sent(86_400.0, 2))
    pace.sent(86_401.0, 1)
    assert pace.requests_per_second(86_401.0) > 0


def test_without_a_ramp_nothing_known_is_no_limit():
    pace = Pace(ramps=False)
    assert pace.requests_per_second(0.0) is None
    assert pace.learned_per_second(0.0) is None


def test_a_ramp_is_not_knowledge():
    assert Pace(ramps=True).learned_per_second(0.0) is None


def test_after_a_429_the_rate_starts_below_the_last_good_one_comes_back_stays_and_probes():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    good = 0.7 * 20
    assert pace.requests_per_second(opened) == pytest.approx(BACK_TO * good, rel=0.02)
    rates = [pace.requests_per_second(opened + seconds) for seconds in (2.5, 5.0, 7.5, 15.0)]
    assert rates == sorted(rates)
    assert rates[1] == pytest.approx(good, rel=0.02)
    assert rates[2] == pytest.approx(good, rel=0.03)
    assert rates[3] > 1.5 * good


def test_the_second_estimate_is_what_was_let_through_since_the_first():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    again = limited_at(pace, 100, 13.0, start=opened + 0.05)
    assert pace.requests_per_second(again) / BACK_TO == pytest.approx(13, rel=0.02), "no guess any more"


def test_of_the_requests_sent_together_only_the_first_429_counts():
    one, many = Pace(ramps=False), Pace(ramps=False)
    for pace, refused in ((one, 1), (many, 30)):
        sends(pace, 100, 20.0)
        late = [pace.sent(5.0 + n / 1000, n + 1) for n in range(30)]
        for sent in late[:refused]:
            pace.limited(5.1, sent)
        pace.shut(5.3)
        pace.sent(5.3, 1)
    assert many.closed_in_a_row == one.closed_in_a_row == 1
    assert many.requests_per_second(5.3) == pytest.approx(one.requests_per_second(5.3))


def test_a_429_that_comes_back_first_but_went_out_later_does_not_hide_the_earlier_one():
    pace = Pace(ramps=False)
    sends(pace, 50, 20.0)
    early, late = pace.sent(2.5, 1), pace.sent(2.55, 2)
    pace.limited(2.6, late)
    pace.limited(2.61, early)
    assert pace._closing.number == early.number
    assert pace._closing.accepted == 50


def test_few_requests_that_slip_through_during_a_pause_do_not_end_it_in_whatever_order_their_429s_come():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    closing = pace._closing
    together = [pace.sent(opened + 0.2, n + 2) for n in range(6)]
    pace.limited(opened + 0.21, together[4])
    pace.limited(opened + 0.21, together[0])
    assert pace._closing is closing
    assert closing.accepted == 101, "the one that went out first after the pause"


def test_a_server_that_refuses_from_the_start_teaches_nothing_but_patience():
    pace = Pace(ramps=True)
    first, second = pace.sent(0.0, 1), pace.sent(0.01, 2)
    pace.limited(0.1, second)
    pace.limited(0.1, first)
    pace.shut(30.0)
    pace.sent(30.0, 1)
    assert pace.requests_per_second(30.0) == START
    assert pace.learned_per_second(30.0) is None


def test_a_429_to_a_request_from_before_the_pause_says_nothing_about_it():
    pace = Pace(ramps=False)
    sends(pace, 50, 20.0)
    early, first = pace.sent(2.5, 1), pace.sent(2.51, 2)
    pace.limited(2.6, first)
    pace.shut(2.8)
    pace.sent(2.8, 1)
    before = pace.requests_per_second(3.0)
    pace.limited(3.0, early)
    assert pace.requests_per_second(3.0) == before
    assert pace.closed_in_a_row == 1


def test_closings_in_a_row_are_counted_until_the_server_lets_something_through():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    for n in range(3):
        probe = pace.sent(opened + n + 1, 1) if n else pace.sent(opened, 1)
        pace.limited(probe.at + 0.01, probe)
    assert pace.closed_in_a_row >= 3
    start = opened + 10
    last = sends(pace, 20, 20.0, start)
    pace.limited(last.at + 0.01, last)
    assert pace.closed_in_a_row == 1


def test_after_a_pause_the_first_request_goes_alone_as_long_as_a_429_takes():
    pace = Pace(ramps=False)
    sends(pace, 50, 20.0)
    refused = pace.sent(2.5, 1)
    pace.limited(2.9, refused)
    pace.shut(3.0)
    assert pace.alone_until() == 0.0
    pace.sent(3.0, 1)
    assert 3.2 < pace.alone_until() <= 4.0
    pace.sent(pace.alone_until(), 2)
    assert pace.alone_until() == 0.0


def test_a_server_that_counts_by_the_minute_is_taken_at_its_word_over_the_whole_minute():
    pace = Pace(ramps=False)
    last = sends(pace, 601, 500.0)
    pace.limited(last.at + 0.01, last)
    pace.shut(60.0)
    pace.sent(60.0, 1)
    assert pace.requests_per_second(60.0) == pytest.approx(BACK_TO * 600 / 58.5, rel=0.01)


def test_an_outage_does_not_make_the_server_slow():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    rate = pace.requests_per_second(opened)
    probe = pace.sent(opened, 1)
    pace.limited(opened + 0.01, probe)
    pace.shut(opened + 3600)
    pace.sent(opened + 3600, 1)
    assert pace.requests_per_second(opened + 3600) >= 0.6 * rate


def test_a_rate_that_is_not_used_does_not_grow_without_bounds():
    pace = Pace(ramps=False)
    opened = limited_at(pace)
    sends(pace, 600, 5.0, start=opened + 0.1)
    assert pace.requests_per_second(opened + 120) <= 14


# -- how many at once ----------------------------------------------------------------------------------


AT_ONCE = RateHint(at_once=True)


def crowd(pace, start, most, count=20):
    """Requests go out one after the other until `most` are on the wire; the next one is refused."""
    for n in range(count):
        pace.sent(start + n / 100, min(n + 1, most))
    return pace.sent(start + count / 100, most + 1)


def test_a_server_that_says_how_it_limits_gets_so_many_at_once_and_no_slower_rate():
    pace = Pace(ramps=True)
    pace.limited(0.3, crowd(pace, 0.0, 5), AT_ONCE)
    assert pace.slots == 5
    pace.shut(30.0)
    pace.sent(30.0, 1)
    assert pace.requests_per_second(33.0) is None


def test_two_429s_at_the_same_number_show_it_too():
    pace = Pace(ramps=True)
    pace.limited(0.3, crowd(pace, 0.0, 5))
    assert pace.slots is None
    pace.shut(1.0)
    pace.limited(1.5, crowd(pace, 1.0, 5))
    assert pace.slots == 5


def test_a_number_that_was_passed_in_between_is_not_the_limit():
    pace = Pace(ramps=True)
    pace.limited(0.3, crowd(pace, 0.0, 5))
    pace.shut(1.0)
    crowd(pace, 1.0, 9)
    pace.limited(1.9, pace.sent(1.8, 6))
    assert pace.slots is None


def test_a_server_that_refuses_below_the_number_it_speaks_of_is_not_believed_for_long():
    pace = Pace(ramps=True)
    for start, most in ((0.0, 5), (10.0, 3), (20.0, 2)):
        pace.limited(start + 0.3, crowd(pace, start, most), AT_ONCE)
        pace.shut(start + 1.0)
        pace.sent(start + 1.0, 1)
    assert pace.slots is None
    assert pace.learned_per_second(30.0) is not None, "so it is the rate"


def test_learned_slots_grow_after_a_while_and_each_failed_try_makes_the_next_one_later():
    pace = Pace(ramps=True)
    pace.limited(0.3, crowd(pace, 0.0, 5), AT_ONCE)
    pace.shut(1.0)
    pace.sent(1.0, 5)
    pace.sent(30.0, 5)
    assert pace.slots == 5
    pace.sent(32.0, 5)
    assert pace.slots == 6
    pace.limited(32.1, pace.sent(32.1, 6), AT_ONCE)
    assert pace.slots == 5
    pace.shut(33.0)
    pace.sent(33.0, 5)
    pace.sent(80.0, 5)
    assert pace.slots == 5, "a minute this time"
    pace.sent(94.0, 5)
    assert pace.slots == 6


# -- what headers say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "resets", "expected"),
    [
        (600, [30.0], MARGIN * 10),
        (600, [0.012], MARGIN * 600),
        (600, [0.012, 7.0], MARGIN * 10),
        (600, [7.0, 0.012], MARGIN * 10),
        (600, [60.4], MARGIN * 10),
        (14_400, [179.0], None),
        (14_400, [80_000.0], None),
        (14_400, [10**7], None),
    ],
    ids=["a minute", "a second", "a longer one", "stays", "rounded", "an hour", "a day", "longer"],
)
def test_the_window_of_a_limit_follows_from_the_longest_reset_seen(limit, resets, expected):
    pace = Pace(ramps=False)
    for reset in resets:
        pace.heard(RateHint(Allowance(limit, reset), Allowance(limit, reset)))
    assert pace.requests_per_second(0.0) == (None if expected is None else pytest.approx(expected))
    assert pace.tokens_per_second == pace.requests_per_second(0.0)
    assert pace.learned_per_second(0.0) == pace.requests_per_second(0.0)


def test_a_changed_limit_is_followed():
    pace = Pace(ramps=False)
    pace.heard(RateHint(requests=Allowance(600, 30.0)))
    pace.heard(RateHint(requests=Allowance(300, 1.0)))
    assert pace.requests_per_second(0.0) == pytest.approx(MARGIN * 5)


@pytest.mark.parametrize(
    ("remaining", "reset", "to_spare"),
    [(60, 20, True), (49, 20, False), (80, 50, False), (90, 50, True), (None, 50, True)],
)
def test_unused_tokens_are_kept_where_few_are_left(remaining, reset, to_spare):
    pace = Pace(ramps=False)
    pace.heard(RateHint(tokens=Allowance(100, reset, remaining)))
    assert pace.tokens_to_spare is to_spare


# -- stated limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_minute", "expected"), [(6, 0.999), (600, 0.999), (1200, 0.998), (300_000, 0.998)])
def test_a_stated_rate_is_kept_a_hair_below(per_minute, expected):
    assert paced(per_minute) == pytest.approx(expected * per_minute / 60)


def test_no_stated_rate_is_no_rate():
    assert paced(None) is None
    assert lowest(None, None) is None
    assert lowest(None, 3.0, 2.0) == 2.0


def test_a_minute_holds_no_more_than_its_limit_wherever_it_starts():
    minute, now, sent = Minute(1000), 0.0, []
    for n in range(200):
        amount = (n * 37) % 300 + 1
        now += minute.wait_seconds(now, amount) + 0.01
        minute.add(now, amount)
        sent.append((now, amount))
    for start, _ in sent:
        assert sum(amount for when, amount in sent if start <= when < start + 60) <= 1000
    assert sum(amount for _, amount in sent) / (now / 60) > 800


def test_a_request_that_fills_the_minute_waits_for_the_last_one_to_be_a_minute_old():
    minute = Minute(1000)
    assert minute.wait_seconds(5.0, 1000) == 0
    minute.add(5.0, 1000)
    assert minute.wait_seconds(15.0, 1000) == pytest.approx(50.1, abs=0.06)
    assert minute.wait_seconds(66.0, 1000) == 0


def test_tokens_given_back_make_room_in_their_minute_only():
    minute = Minute(1000)
    minute.add(0.0, 1000)
    minute.give_back(0.0, 600)
    assert minute.wait_seconds(1.0, 600) == 0
    assert minute.wait_seconds(1.0, 601) > 50
    minute.wait_seconds(70.0, 1)
    minute.give_back(0.0, 400)
    minute.add(70.0, 1000)
    assert minute.wait_seconds(71.0, 1) > 50
