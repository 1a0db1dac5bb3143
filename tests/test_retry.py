"""When a request goes out again: a table of failures, counts and jitters."""

import math

import pytest

from pipeline.records import Failure
from pipeline.retry import RetryPolicy

POLICY = RetryPolicy()
LAST = math.nextafter(1, 0)


def failure(wait=None, *, door=False):
    return Failure(
        action="retry", result="unavailable", error_type="x", message="x", wait_seconds=wait, closes_door=door
    )


@pytest.mark.parametrize(
    ("tries", "jitter", "expected"),
    [
        (1, 0, 0.25),
        (1, 0.5, 0.375),
        (1, LAST, 0.5),
        (2, 0, 0.5),
        (3, 0, 1.0),
        (4, 0, 2.0),
        (5, 0, 4.0),
        (5, LAST, 8.0),
    ],
)
def test_our_own_wait_doubles_with_each_try_and_is_spread_over_its_upper_half(tries, jitter, expected):
    assert POLICY.wait_before(tries, failure(), jitter) == pytest.approx(expected)


@pytest.mark.parametrize("tries", [8, 20, 5000])
def test_our_own_wait_never_passes_the_cap(tries):
    policy = RetryPolicy(attempts=10_000)
    assert policy.wait_before(tries, failure(), LAST) == pytest.approx(60)
    assert policy.wait_before(tries, failure(), 0) == 30


@pytest.mark.parametrize(("attempts", "tries", "again"), [(6, 5, True), (6, 6, False), (1, 1, False), (2, 1, True)])
def test_the_number_of_tries_includes_the_first(attempts, tries, again):
    assert (RetryPolicy(attempts=attempts).wait_before(tries, failure(), 0) is not None) is again


@pytest.mark.parametrize(
    ("wait", "jitter", "expected"),
    [(30, 0, 30), (30, 0.5, 31.5), (30, LAST, 33), (600, 0, 600), (1.5, 0, 1.5), (0.5, 0, 0.5)],
)
def test_a_wait_the_server_named_is_kept_in_full_plus_up_to_a_tenth_whatever_the_cap(wait, jitter, expected):
    assert POLICY.wait_before(1, failure(wait=wait), jitter) == pytest.approx(expected)
    assert POLICY.wait_for_door(9, failure(wait=wait, door=True), jitter) == pytest.approx(expected)


@pytest.mark.parametrize("streak", [1, 5, 9])
def test_a_server_that_names_no_time_at_all_is_still_not_hammered(streak):
    own = POLICY.wait_for_door(streak, failure(door=True), 0)
    assert POLICY.wait_for_door(streak, failure(wait=0.0, door=True), 0) == own > 0


@pytest.mark.parametrize(
    ("probe", "unknown", "longest"), [(5, False, 4), (100, False, 4), (101, False, 60), (5, True, 8), (20, True, 60)]
)
def test_a_provider_that_is_down_is_asked_often_at_first_if_that_costs_nothing(probe, unknown, longest):
    down = failure()._replace(cost_unknown=unknown)
    assert POLICY.wait_for_probe(probe, down, LAST) == pytest.approx(longest)


@pytest.mark.parametrize(("streak", "expected"), [(1, 0.125), (2, 0.16875), (5, 0.4151883), (1000, 30.0)])
def test_the_door_stays_closed_longer_with_each_closing_in_a_row(streak, expected):
    assert POLICY.wait_for_door(streak, failure(door=True), 0) == pytest.approx(expected)
