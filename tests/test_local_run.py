"""What a run counts while it goes on, apart from its stations."""

from pipeline.budget import Budget
from pipeline.doorman import Limits
from pipeline.records import Failure, Reply
from pipeline.runners._tally import Tally
from pipeline.runners.local import LocalRun

LIMITED = Failure("retry", "rate_limited", "rate_limit_exceeded", "slow down", closes_door=True)
REFUSED = Failure("retry", "unavailable", "connect", "nobody there", not_sent=True)
ANSWER = Reply("fine", "stop", "stop", None)


def a_run():
    return LocalRun(planner=None, limits=Limits(), budget=Budget(), exchanger=None, journal=None, loader=None)


def test_of_requests_let_out_together_only_the_first_429_lengthens_the_pause():
    run = a_run()
    together = run._closings
    for _ in range(16):
        run._count_streaks(LIMITED, together)
    assert run._limited_in_a_row == 1
    run._count_streaks(LIMITED, run._closings)
    assert run._limited_in_a_row == 2, "a request let out after the pause was limited again"


def test_an_answer_to_a_request_from_before_the_pause_says_nothing_about_it():
    run = a_run()
    before = run._closings
    run._count_streaks(LIMITED, before)
    run._count_streaks(ANSWER, before)
    assert run._limited_in_a_row == 1
    run._count_streaks(ANSWER, run._closings)
    assert run._limited_in_a_row == 0


def test_any_connection_ends_the_streak_of_none():
    run = a_run()
    for result in (REFUSED, REFUSED, LIMITED, REFUSED):
        run._count_streaks(result, run._closings)
    assert run._unconnected_in_a_row == 1


def test_rows_with_one_key_end_together_whether_they_come_before_or_after_its_outcome():
    tally = Tally()
    tally.row("a", None)
    tally.row("a", None)
    tally.ended("a", "ok")
    tally.row("a", None)
    tally.row("b", "failed")
    assert (tally.done, tally.bad, dict(tally.statuses)) == (4, 1, {"ok": 3, "failed": 1})
