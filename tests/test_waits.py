"""How long a server asked us to wait: the vectors of docs and of servers seen, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.providers._waits import parse_wait, wait_from

NOW = 1795392000.0  # 2026-11-23T00:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m0s", 360),
        ("1s", 1),
        ("120ms", 0.12),
        ("12ms", 0.012),
        ("2m52.8s", 172.8),
        ("33.023s", 33.023),
        ("1h30m", 5400),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("64", 64),
        ("0", 0),
        ("0.5", 0.5),
        (" 7 ", 7),
        ("1e1", 10),
        ("-5", 0),
        ("-5s", 0),
        ("2026-11-23T00:00:32Z", 32),
        ("2026-11-23T00:00:32.5Z", 32.5),
        ("2026-11-23T01:00:32+01:00", 32),
        ("2026-11-23T00:00:32", 32),
        ("2026-11-22T23:00:00Z", 0),
        ("Mon, 23 Nov 2026 00:01:00 GMT", 60),
        ("Sun, 22 Nov 2026 00:01:00 GMT", 0),
        ("1795392042", 42),
        ("1795392042000", 42),
        ("1795391000", 0),
    ],
)
def test_a_wait_is_read_in_every_notation(text, expected):
    assert parse_wait(text, NOW) == pytest.approx(expected)


DATE = {"date": "Mon, 23 Nov 2026 00:00:00 GMT"}


@pytest.mark.parametrize("ours", [-2400, -1, 0, 1.9, 600])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"retry-after": "Mon, 23 Nov 2026 00:00:20 GMT"}, None),
        ({"retry-after": "2026-11-23T00:00:20Z"}, None),
        ({}, {"retry_after": NOW + 20}),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{NOW + 20:.0f}"}, None),
    ],
    ids=["HTTP date", "RFC 3339", "epoch in the body", "epoch of a reset"],
)
def test_a_moment_is_held_against_the_servers_clock_if_ours_is_another(headers, body, ours):
    wait = wait_from(headers | DATE, body, NOW + ours)
    assert wait == pytest.approx(20 - ours if abs(ours) < 2 else 20)


@pytest.mark.parametrize("date", ["", "today", "Mon, 23 Nov 2026 99:00:00 GMT"])
def test_without_a_readable_date_our_clock_is_all_there_is(date):
    assert wait_from({"retry-after": "Mon, 23 Nov 2026 00:00:20 GMT", "date": date}, None, NOW - 100) == 120


def test_seconds_mean_the_same_on_any_clock():
    assert wait_from({"retry-after": "20"} | DATE, None, NOW - 2400) == 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "inf",
        "-inf",
        "nan",
        "1_000",
        "١٢",
        "5 s",
        "5d",
        "s",
        "m5",
        "1e400",
        "9" * 400,
        "0x10",
        "None",
        "[]",
    ],
)
def test_what_names_no_time_is_unknown_and_not_zero(text):
    assert parse_wait(text, NOW) is None


@pytest.mark.parametrize("text", ["999999999", "90000h", "1e13", "2099-01-01T00:00:00Z", "99999999999999999"])
def test_a_wait_of_more_than_a_year_is_a_misunderstanding(text):
    assert parse_wait(text, NOW) is None


@given(st.text())
def test_no_text_can_break_the_reader(text):
    wait = parse_wait(text, NOW)
    assert wait is None or 0 <= wait <= 366 * 86400


RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, None, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, {"retry_after": 30}, 1.5),
        ({"retry-after-ms": "1795392042000", "retry-after": "9"}, None, 9),
        ({"retry-after-ms": "soon", "retry-after": "9"}, None, 9),
        ({"retry-after": "9"}, {"retry_after": 30}, 9),
        ({"retry-after": "0"}, {"retry_after": 30}, 0),
        ({"retry-after": "later"}, {"retry_after": 30}, 30),
        ({}, {"status": "error", "messege": "x", "retry_after": 30}, 30),
        ({}, {"retry_after": "30"}, 30),
        ({}, {"error": {"retry_after": 12.5}}, 12.5),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": [1]}, None),
        ({}, {"error": "x"}, None),
        ({}, [1], None),
        ({}, [], None),
        ({}, [{"retry_after": 30}], 30),
        # Gemini
        ({}, [{"error": {"details": [{"@type": "x"}, {"@type": RETRY_INFO, "retryDelay": "46s"}]}}], 46),
        ({}, {"error": {"details": [{"retryDelay": "1.5s"}]}}, 1.5),
        ({}, {"error": {"retry_after": 3, "details": [{"retryDelay": "46s"}]}}, 3),
        ({"retry-after": "9"}, {"error": {"details": [{"retryDelay": "46s"}]}}, 9),
        ({}, {"error": {"details": [{"retryDelay": "soon"}, {"retryDelay": True}, {"retryDelay": "7s"}]}}, 7),
        ({}, {"error": {"details": [{"retryDelay": "90000h"}]}}, None),
        ({}, {"error": {"details": {"retryDelay": "46s"}}}, None),
        ({}, {"error": {"details": [1, None, {"retryDelay": None}]}}, None),
    ],
)
def test_the_more_exact_word_wins(headers, body, expected):
    assert wait_from(headers, body, NOW) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Rate limit reached for m in organization o: Limit 3, Used 3. Please try again in 1.2s. Visit ...", 1.2),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 20ms", 0.02),
        ("Please try again in 1h2m3.5s.", 3723.5),
        (
            "You exceeded your current quota.\n* Quota exceeded for metric: x, limit: 5\nPlease retry in 46.194s.",
            46.194,
        ),
        ("Try again in 5 minutes", None),
        ("Please try again in 5min", None),
        ("Please try again in 20", None),
        ("Please try again in -5s", None),
        ("Please try again in 90000h", None),
        ("Please try again in " + "9" * 400 + "s", None),
        ("Please try again in " + "1s" * 200, None),
        ("Please try again later", None),
        ('Slow down: your last text was "try again in 5h"', None),
        ("", None),
    ],
)
def test_without_another_sign_the_words_of_the_message_count(words, expected):
    assert wait_from({}, None, NOW, words) == expected
    for headers in ({"retry-after": "9"}, limits(requests=("0", "9s"))):
        assert wait_from(headers, None, NOW, words) == 9


@pytest.mark.parametrize("piece", ["1", "1s", "1.", "retry in 1", "try again in 1m"])
def test_reading_the_words_takes_time_in_proportion_to_them(piece):
    wait_from({}, None, NOW, "retry in " + piece * 100_000 + "x")


def limits(*, requests=None, tokens=None, plain=None):
    headers = {}
    for suffix, pair in (("-requests", requests), ("-tokens", tokens), ("", plain)):
        if pair is not None:
            headers |= {f"x-ratelimit-remaining{suffix}": pair[0], f"x-ratelimit-reset{suffix}": pair[1]}
    return headers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (limits(requests=("0", "2m"), tokens=("500", "1h")), 120),
        (limits(requests=("12", "2m"), tokens=("0", "33.023s")), 33.023),
        (limits(requests=("0", "2s"), tokens=("0", "7s")), 7),
        (limits(requests=("0", "5s"), tokens=("-3", "7s")), 7),
        (limits(requests=("12", "2m"), tokens=("500", "1h")), None),
        (limits(plain=("0", "1795392042000")), 42),
        (limits(plain=("3", "1795392042000")), None),
        (limits(requests=("0", "soon")), None),
        (limits(requests=("none", "2m")), None),
        (limits(requests=("-1", "2m")) | {"x-ratelimit-limit-requests": "-1"}, None),
        (limits(requests=("0", "2m")) | {"retry-after": "5"}, 5),
        ({"x-ratelimit-reset-requests": "2m"}, None),
    ],
)
def test_without_a_named_wait_the_later_reset_of_a_limit_that_is_used_up_counts(headers, expected):
    assert wait_from(headers, None, NOW) == expected
