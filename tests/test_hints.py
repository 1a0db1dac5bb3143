"""What headers say about limits: the shapes of docs and of servers seen, as tables."""

import orjson
import pytest

from pipeline.providers._hints import rate_hint
from pipeline.providers.openai import PROVIDER
from pipeline.records import Allowance, RateHint, Reply, WireReply

NOW = 1795392000.0  # 2026-11-23T00:00:00Z
OPENAI = {
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-tokens": "150000",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-23T00:00:32Z",
    "anthropic-ratelimit-tokens-limit": "10000",
    "anthropic-ratelimit-tokens-remaining": "9000",
    "anthropic-ratelimit-tokens-reset": "2026-11-23T00:00:32Z",
}
SPLIT = {
    "anthropic-ratelimit-input-tokens-limit": "50000",
    "anthropic-ratelimit-input-tokens-remaining": "40000",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-23T00:00:10Z",
    "anthropic-ratelimit-output-tokens-limit": "10000",
    "anthropic-ratelimit-output-tokens-remaining": "9000",
    "anthropic-ratelimit-output-tokens-reset": "2026-11-23T00:00:32Z",
}


def test_most_answers_say_nothing():
    assert rate_hint({"content-type": "application/json", "x-request-id": "1"}, NOW) is None


def test_the_usual_headers_are_read():
    assert rate_hint(OPENAI, NOW) == RateHint(Allowance(5000, 0.012, 4999), Allowance(160_000, 360, 150_000))


def test_anthropics_headers_are_read():
    assert rate_hint(ANTHROPIC, NOW) == RateHint(Allowance(50, 32, 49), Allowance(10_000, 32, 9000))


def test_a_reset_is_held_against_the_servers_clock_if_ours_is_another():
    assert rate_hint(ANTHROPIC | {"date": "Mon, 23 Nov 2026 00:00:00 GMT"}, NOW - 900) == rate_hint(ANTHROPIC, NOW)


def test_limits_of_input_and_output_are_one_limit_of_both():
    hint = rate_hint(ANTHROPIC | SPLIT, NOW)
    assert hint.tokens == Allowance(60_000, 32, 49_000)


@pytest.mark.parametrize("limit", ["-1", "0", "", "many", "1e3", "nan", "inf", "9" * 400, "٣"])
def test_a_limit_that_is_no_number_is_no_limit(limit):
    assert rate_hint(OPENAI | {"x-ratelimit-limit-requests": limit}, NOW).requests is None


@pytest.mark.parametrize("reset", ["", "soon", "inf"])
def test_a_limit_without_a_reset_is_no_limit(reset):
    assert rate_hint(OPENAI | {"x-ratelimit-reset-tokens": reset}, NOW).tokens is None


def test_headers_that_hold_no_limit_at_all_are_no_hint():
    assert rate_hint({"x-ratelimit-limit-requests": "-1", "x-ratelimit-limit-tokens": "-1"}, NOW) is None


def test_what_remains_may_be_unknown_or_negative():
    assert rate_hint(OPENAI | {"x-ratelimit-remaining-tokens": "-5"}, NOW).tokens.remaining == -5
    assert rate_hint(OPENAI | {"x-ratelimit-remaining-tokens": "?"}, NOW).tokens.remaining is None


def test_answers_and_failures_carry_the_hint():
    body = orjson.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]})
    reply = PROVIDER.decode(WireReply(200, OPENAI, body), now=NOW)
    assert isinstance(reply, Reply)
    assert reply.hint == rate_hint(OPENAI, NOW)
    assert PROVIDER.decode(WireReply(503, OPENAI, b""), now=NOW).hint == rate_hint(OPENAI, NOW)


@pytest.mark.parametrize(
    ("status", "message", "at_once"),
    [
        (429, "Rate limit exceeded. Maximum 5 queued requests allowed.", True),
        (429, "Too many concurrent requests", True),
        (429, "Concurrency limit reached", True),
        (429, "Rate limit reached for requests per min (RPM)", None),
        (500, "too many concurrent requests", None),
    ],
)
def test_a_429_may_say_that_it_is_about_requests_at_once(status, message, at_once):
    body = orjson.dumps({"status": "error", "message": message, "retry_after": 30})
    hint = PROVIDER.decode(WireReply(status, {}, body), now=NOW).hint
    assert (hint and hint.at_once) == at_once
