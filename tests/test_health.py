"""When a run should not go on: pure decisions, each exchange told by hand."""

import re

import pytest

from pipeline.health import (
    LATE_REJECTIONS,
    LEAST_ANSWERS,
    LEAST_CROWD,
    OUTAGE_SECONDS,
    RECENT_ANSWERS,
    ROWS_OWN,
    Health,
    StopRules,
)
from pipeline.records import Failure, Reply

ANSWER = Reply("fine", "stop", "stop", None, "m-1")
DOWN = Failure("retry", "unavailable", "http_503", "Service Unavailable (HTTP 503)", 503)
NOBODY = Failure("retry", "unavailable", "connect", "no connection to host:1", not_sent=True)
LIMITED = Failure("retry", "rate_limited", "rate_limit_exceeded", "slow down", 429, closes_door=True)
WRONG = Failure("reject", "rejected", "bad_request", "no such parameter (HTTP 400)", 400)
TOO_LONG = Failure("reject", "rejected", "context_length_exceeded", "too long (HTTP 400)", 400)
REFUSED = Failure("reject", "refused", "content_filter", "flagged", 400)


class Run:
    """Tells a Health what came back, one exchange after the other, each of another row unless named."""

    def __init__(self, *, model="m", concurrency=4, **rules):
        self.health = Health(StopRules(**rules), model=model, concurrency=concurrency, most_open=4 * concurrency)
        self.rows = 0
        self.now = 100.0

    def hear(self, result, *, key=None, began=None, **more):
        self.rows += 1
        began = self.health.epoch if began is None else began
        return self.health.heard(key or f"k{self.rows}", result, self.now, began=began, **more)

    def hear_all(self, *results):
        return [self.hear(result) for result in results]

    def outage(self):
        """An outage after a first answer; the Heard that says so."""
        self.hear(ANSWER)
        return self.hear_all(*[DOWN] * StopRules().outage_rows)[-1]


# -- the provider is down ---------------------------------------------------------------------------


@pytest.mark.parametrize(("failure", "says"), [(DOWN, "is down"), (NOBODY, "can't be reached")])
def test_a_provider_that_never_answered_pauses_the_run_when_the_first_rows_all_fail(failure, says):
    *before, last = Run().hear_all(*[failure] * StopRules().outage_rows)
    assert not any(heard.pause for heard in before)
    assert says in last.pause.why
    assert failure.message in last.pause.why


def test_a_provider_that_had_answered_is_probed_instead():
    run = Run()
    heard = run.outage()
    assert (heard.pause, heard.outage, run.health.down) == (None, 1, True)
    assert "trying one at a time" in heard.notice


def test_many_failures_among_answers_are_told_once_with_what_may_help():
    run = Run()
    told = [heard.notice for _ in range(400) for heard in run.hear_all(ANSWER, DOWN, ANSWER)]
    (notice,) = [each for each in told if each is not None]
    assert told.index(notice) in range(LEAST_CROWD - 1, LEAST_CROWD + 2)
    assert re.match(r"6\d of 20\d requests so far failed at the server while others passed\. If it has no room", notice)
    assert "a lower [limits] concurrency helps (now 4)" in notice


@pytest.mark.parametrize("rules", [{"outage_rows": 0}, {"outage_rows": 500}])
def test_failures_with_no_answer_behind_them_are_no_crowd(rules):
    run = Run(concurrency=8, **rules)
    run.hear_all(*[ANSWER] * 50)
    assert not any("room" in (heard.notice or "") for heard in run.hear_all(*[DOWN] * 400))


def test_where_one_request_goes_out_at_a_time_no_lower_number_is_named():
    run = Run(concurrency=1)
    assert not any(heard.notice for _ in range(400) for heard in run.hear_all(ANSWER, DOWN, ANSWER))


def test_few_failures_among_answers_are_not_worth_a_word():
    run = Run()
    assert not any(heard.notice for _ in range(400) for heard in run.hear_all(*[ANSWER] * 9, DOWN))


def test_one_row_that_fails_again_and_again_is_no_outage():
    run = Run()
    heard = [run.hear(DOWN, key="the same") for _ in range(100)]
    assert not any(one.outage or one.pause for one in heard)


@pytest.mark.parametrize(("concurrency", "rows"), [(1, 4), (2, 8), (8, 8), (256, 256)])
def test_how_many_different_rows_must_fail_follows_the_slots(concurrency, rows):
    run = Run(concurrency=concurrency)
    run.hear(ANSWER)
    *before, last = run.hear_all(*[DOWN] * rows)
    assert not any(heard.outage for heard in before)
    assert last.outage


@pytest.mark.parametrize(("concurrency", "rows"), [(1, 4), (2, 8), (256, 8)])
def test_of_a_provider_that_never_answered_a_few_rows_are_enough(concurrency, rows):
    *before, last = Run(concurrency=concurrency).hear_all(*[DOWN] * rows)
    assert not any(heard.pause for heard in before)
    assert last.pause


def test_a_few_rows_are_enough_when_nothing_else_has_come_back_for_a_minute():
    run = Run(concurrency=256)
    run.hear(ANSWER)
    run.hear_all(*[DOWN] * 8)
    run.now += OUTAGE_SECONDS
    assert run.hear(DOWN).outage


def test_a_few_rows_are_enough_when_one_would_have_to_be_given_up():
    run = Run(concurrency=256)
    run.hear(ANSWER)
    run.hear_all(*[DOWN] * 7)
    assert run.hear(DOWN, last=True).outage


def test_fewer_rows_may_be_to_blame_themselves_and_nobody_knows_until_something_else_comes_back():
    run = Run(concurrency=256)
    run.hear(ANSWER)
    heard = [run.hear(DOWN, last=last) for last in (False, True, True)]
    assert [(one.doubt, one.outage) for one in heard] == [(False, 0), (True, 0), (True, 0)]
    assert [run.hear(sign).alive for sign in (ANSWER, LIMITED, TOO_LONG, REFUSED)] == [True] * 4


@pytest.mark.parametrize("between", [ANSWER, LIMITED, TOO_LONG, REFUSED])
def test_whatever_else_the_provider_says_ends_the_streak(between):
    run = Run()
    heard = run.hear_all(*[DOWN] * 7, between, *[DOWN] * 7)
    assert not any(one.outage for one in heard)


@pytest.mark.parametrize("sign", [ANSWER, LIMITED, TOO_LONG, REFUSED])
def test_an_outage_is_over_with_the_first_sign_of_life(sign):
    run = Run()
    run.outage()
    run.now += 90
    assert run.hear(sign).notice == "the provider is back after 90 s"
    assert not run.health.down
    assert run.hear(DOWN).outage == 0


def test_probes_are_counted_but_not_what_was_on_its_way_when_the_outage_was_seen():
    run = Run()
    run.hear(ANSWER)
    before = run.health.epoch
    run.hear_all(*[DOWN] * StopRules().outage_rows)
    assert [run.hear(DOWN, began=before).outage for _ in range(5)] == [1] * 5
    assert [run.hear(DOWN).outage for _ in range(3)] == [2, 3, 4]


def test_failures_of_one_epoch_count_as_one_probe():
    run = Run()
    run.outage()
    began = run.health.epoch
    assert [run.hear(DOWN, began=began).outage for _ in range(6)] == [2] * 6


def test_an_outage_pauses_the_run_when_it_has_lasted_too_long():
    run = Run(outage_minutes=5)
    run.outage()
    run.now += 299
    assert run.hear(DOWN).pause is None
    run.now += 1
    assert "no answer for 5 minutes" in run.hear(DOWN).pause.why


def test_without_patience_an_outage_pauses_at_once():
    assert Run(outage_minutes=0).outage().pause


# -- a rate limit refuses everybody -----------------------------------------------------------------


def limited_for(run, hours):
    """A 429 a minute; what was told."""
    told = []
    for _ in range(int(hours * 60)):
        run.now += 60
        told.append(run.hear(LIMITED).notice)
    return [notice for notice in told if notice]


def test_a_rate_limit_that_refuses_everybody_for_an_hour_is_told_once_and_waited_for():
    run = Run()
    run.hear(ANSWER)
    assert limited_for(run, 0.9) == []
    (notice,) = limited_for(run, 30)
    assert "for 1.0 hours a rate limit has refused every request" in notice
    assert LIMITED.message in notice
    run.hear(ANSWER)
    assert len(limited_for(run, 3)) == 1


@pytest.mark.parametrize("between", [ANSWER, TOO_LONG])
def test_one_that_lets_anything_through_is_no_news(between):
    run = Run()
    for _ in range(10):
        assert limited_for(run, 0.9) == []
        run.hear(between)


# -- the job is wrong -------------------------------------------------------------------------------


def test_equal_rejections_from_the_start_are_held_back_and_then_blamed_on_the_job():
    *before, last = Run(same_rejections=10).hear_all(*[WRONG] * 10)
    assert all(heard.hold and not heard.pause for heard in before)
    assert last.hold
    assert "the job is to blame" in last.pause.why
    assert WRONG.message in last.pause.why


@pytest.mark.parametrize("code", ["ERR-{:x}7", "req_{}", "6b1f9c2e-aaaa-bbbb-cccc-{:012x}", "{}"])
def test_codes_that_name_the_request_are_one_reason(code):
    *_, last = Run(same_rejections=10).hear_all(*[WRONG._replace(error_type=code.format(n * 1001)) for n in range(10)])
    assert "the job is to blame" in last.pause.why


def test_those_still_on_their_way_are_held_back_too():
    run = Run(same_rejections=3, concurrency=8)
    run.hear_all(*[WRONG] * 3)
    assert run.hear(WRONG).hold


@pytest.mark.parametrize("other", [ANSWER, TOO_LONG, REFUSED])
def test_anything_else_releases_them(other):
    run = Run(same_rejections=10)
    run.hear_all(*[WRONG] * 9)
    assert run.hear(other).release
    for _ in range(10):
        assert not any(heard.pause for heard in run.hear_all(*[WRONG] * (LATE_REJECTIONS - 1)))
        assert run.hear(other).release


@pytest.mark.parametrize("other", [ANSWER, REFUSED])
def test_many_equal_rejections_in_a_row_after_answers_are_the_servers(other):
    """It began anew, with another template or a shorter context."""
    run = Run(same_rejections=10)
    run.hear(other)
    *before, last = run.hear_all(*[WRONG] * LATE_REJECTIONS)
    assert all(heard.hold and not heard.pause for heard in before)
    assert last.hold
    assert "it seems that the server has changed, and the rows stay pending" in last.pause.why
    assert WRONG.message in last.pause.why


@pytest.mark.parametrize("stated", [{"same_rejections": 10, "concurrency": 200}, {"same_rejections": 400}])
def test_of_many_slots_or_where_more_is_stated_more_are_waited_for(stated):
    run = Run(**stated)
    run.hear(ANSWER)
    assert not any(heard.pause for heard in run.hear_all(*[WRONG] * 399))
    assert run.hear(WRONG).pause


@pytest.mark.parametrize("error_type", sorted(ROWS_OWN))
def test_rows_that_are_too_long_may_stand_together(error_type):
    """A dataset may be sorted by length."""
    run = Run(same_rejections=10)
    run.hear(ANSWER)
    too_long = TOO_LONG._replace(error_type=error_type)
    assert not any(heard.hold or heard.pause for heard in run.hear_all(*[too_long] * 1000))


def test_rejections_that_differ_are_the_rows_own():
    run = Run(same_rejections=10)
    run.hear(ANSWER)
    for _ in range(200):
        first, second = run.hear_all(WRONG, WRONG._replace(error_type="another"))
        assert (first.pause, first.release, second.pause, second.release) == (None, True, None, True)


def test_a_model_that_is_still_loading_is_waited_for():
    run = Run(outage_minutes=5)
    loading = DOWN._replace(message="Loading model (HTTP 503)")
    *before, last = run.hear_all(*[loading] * StopRules().outage_rows)
    assert not any(heard.pause for heard in [*before, last])
    assert last.outage
    run.now += 200
    assert run.hear(loading).pause is None
    assert run.hear(ANSWER).notice == "the provider is back after 200 s"


@pytest.mark.parametrize("other", [DOWN, LIMITED])
def test_failures_that_say_nothing_of_the_job_neither_release_nor_count(other):
    run = Run(same_rejections=2)
    run.hear(WRONG)
    heard = run.hear(other)
    assert (heard.release, heard.hold) == (False, False)
    assert run.hear(WRONG).pause


def test_a_job_that_had_good_rows_before_is_not_blamed():
    run = Run(same_rejections=2)
    heard = [run.hear(WRONG, proven=True) for _ in range(5)]
    assert not any(one.hold or one.pause for one in heard)


def test_same_rejections_0_blames_every_row():
    assert not any(heard.hold for heard in Run(same_rejections=0).hear_all(*[WRONG] * 50))


# -- the answers are worth nothing ------------------------------------------------------------------


def ended(run, **counts):
    """Tell how rows ended, mixed evenly; the first pause and after how many answers."""
    order = sorted((n / count, status) for status, count in counts.items() for n in range(count))
    for number, (_, status) in enumerate(order, 1):
        pause = run.health.ended(status)
        if pause:
            return number, pause
    return None


def test_no_share_is_taken_of_a_few_answers():
    assert ended(Run(), invalid=LEAST_ANSWERS - 1) is None


def test_a_share_above_the_limit_pauses():
    number, pause = ended(Run(), invalid=30, truncated=20)
    assert number == LEAST_ANSWERS
    assert "of the last 50 answers 30 invalid and 20 truncated" in pause.why


@pytest.mark.parametrize(
    ("counts", "pauses"),
    [
        ({"ok": 5200, "invalid": 4800}, False),
        ({"ok": 490, "truncated": 510}, True),
        ({"ok": 400, "refused": 1000, "rejected": 1000, "failed": 1000, "invalid": 100}, False),
    ],
    ids=["just below the share", "above it", "other endings don't count"],
)
def test_only_invalid_and_truncated_answers_count_among_answers(counts, pauses):
    assert (ended(Run(), **counts) is not None) == pauses


def test_answers_that_turn_bad_after_a_good_night_are_noticed():
    run = Run()
    assert ended(run, ok=100_000) is None
    number, _ = ended(run, invalid=10_000)
    assert number == RECENT_ANSWERS // 2 + 1


def test_a_share_of_1_never_pauses():
    assert ended(Run(invalid_share=1), invalid=5000) is None


# -- another model answers --------------------------------------------------------------------------


def answer_by(model):
    return Reply("fine", "stop", "stop", None, model)


@pytest.mark.parametrize(
    ("asked", "returned"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        ("llama3-8b-instruct", "Meta-Llama-3-8B-Instruct"),
        ("meta-llama/llama-3-8b-instruct:free", "llama-3-8b-instruct"),
        ("mistral-small-latest", "mistral-small-2506"),
        ("gemini-flash-latest", "gemini-2.5-flash"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("/models/qwen/", "qwen"),
        ("m", None),
    ],
)
def test_other_names_of_the_model_asked_for_are_no_news(asked, returned):
    assert Run(model=asked).hear(answer_by(returned)).notice is None


@pytest.mark.parametrize(
    ("asked", "returned"), [("gpt-4.1", "qwen2.5-7b"), ("gpt-4.1-mini", "gpt-4.1"), ("gpt-4.1", "gpt-4.1-mini-2025")]
)
def test_a_first_answer_of_another_model_than_asked_for_is_told_once(asked, returned):
    first, second = Run(model=asked).hear_all(*[answer_by(returned)] * 2)
    assert first.notice.startswith(f"{asked} was asked for, and the provider answers with {returned}: ")
    assert (first.release, second.notice) == (True, None)


def test_another_model_is_told_once():
    run = Run()
    told = [run.hear(answer_by(m)).notice for m in (None, "m-1", None, "m-1", "m-2", "m-1", "m-3")]
    (notice,) = [text for text in told if text]
    assert told.index(notice) == 4
    assert "m-2 instead of m-1" in notice
