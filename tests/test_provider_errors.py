"""What each failure means: one table of real error bodies, and what may never stand in a message."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import providers
from pipeline.errors import WireError
from pipeline.providers._errors import failure_from
from pipeline.providers._json import load
from pipeline.providers._redact import clean, redact
from pipeline.records import Usage, WireReply

NOW = 1795392000.0  # 2026-11-23T00:00:00Z


def reply(status, body=b"", **headers):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return WireReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def failure_of(answer, **more):
    return failure_from(answer, NOW, body=load(answer.body), **more)


def classify(status, body=b"", **headers):
    return failure_of(reply(status, body, **headers))


def openai(code=None, kind=None, message="Words.", param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


RETRY, DOOR, REJECT, REFUSE, PAUSE = (
    ("retry", "unavailable", False),
    ("retry", "rate_limited", True),
    ("reject", "rejected", False),
    ("reject", "refused", False),
    ("pause", "fatal", False),
)


@pytest.mark.parametrize(
    ("status", "expected", "cost_unknown"),
    [
        (301, PAUSE, False),
        (308, PAUSE, False),
        (400, REJECT, False),
        (401, PAUSE, False),
        (402, PAUSE, False),
        (403, PAUSE, False),
        (404, PAUSE, False),
        (405, PAUSE, False),
        (407, PAUSE, False),
        (408, RETRY, True),
        (409, RETRY, False),
        (410, PAUSE, False),
        (413, REJECT, False),
        (418, REJECT, False),
        (422, REJECT, False),
        (424, RETRY, False),
        (425, RETRY, False),
        (429, DOOR, False),
        (498, DOOR, False),
        (499, RETRY, False),
        (500, RETRY, False),
        (502, RETRY, False),
        (503, RETRY, False),
        (504, RETRY, True),
        (520, RETRY, False),
        (521, RETRY, False),
        (522, RETRY, True),
        (523, RETRY, False),
        (524, RETRY, True),
        (529, RETRY, False),
        (599, RETRY, False),
        (999, RETRY, False),
        (100, RETRY, False),
    ],
)
def test_a_status_alone_decides_when_nothing_else_is_said(status, expected, cost_unknown):
    failure = classify(status)
    assert (failure.action, failure.result, failure.closes_door) == expected
    assert failure.cost_unknown is cost_unknown
    assert providers.may_be_billed(failure.http_status, failure.error_type) is cost_unknown
    assert failure.http_status == status
    assert failure.error_type == f"http_{status}"
    assert f"HTTP {status}" in failure.message
    assert failure.not_sent is False


QUOTA = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
]


GOOGLE = "type.googleapis.com/google.rpc.ErrorInfo"


def gemini(message, reason=None, status=400):
    details = [{"@type": GOOGLE, "reason": reason, "domain": "googleapis.com"}]
    error = {"code": status, "message": message, "status": "INVALID_ARGUMENT"}
    return {"error": error | ({} if reason is None else {"details": details})}


FIREWORKS_SUSPENDED = {
    "error": {
        "message": "Account acme is suspended, possibly due to reaching the monthly spending limit or failure to pay"
        " past invoices. Please go to https://fireworks.ai/account/billing for more information.",
        "param": None,
        "code": "PRECONDITION_FAILED",
        "type": "error",
    },
    "request_id": "chatcmpl-1",
}
DASHSCOPE_ARREARS = {
    "error": {
        "code": "Arrearage",
        "type": "Arrearage",
        "param": None,
        "message": "Access denied, please make sure your account is in good standing.",
    },
    "request_id": "r",
}
XAI = "Some resource has been exhausted"


def xai(words):
    return {"code": XAI, "error": words}


XAI_SPENT = xai(
    "Your team 16f2151a-40f4-4a80-8ad0-cae00c27e8dd has either used all available credits or reached its monthly"
    " spending limit. To continue making API requests, please purchase more credits or raise your spending limit."
)
MOONSHOT_SUSPENDED = {
    "error": {
        "message": "Your account org-1<ak-2> is suspended, please check your plan and billing details",
        "type": "exceeded_current_quota_error",
    }
}
ZHIPU_BROKE = {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}}
GEMINI_QUOTA = "You exceeded your current quota, please check your plan and billing details."
XAI_WRONG_KEY = {
    "code": "Client specified an invalid argument",
    "error": "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.",
}


@pytest.mark.parametrize(
    ("status", "body", "expected", "error_type"),
    [
        # the code wins over the status
        *[(429, openai(code, "insufficient_quota"), PAUSE, code) for code in QUOTA],
        (429, openai(None, "insufficient_quota"), PAUSE, "insufficient_quota"),
        (
            429,
            {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
            PAUSE,
            "enforced_spend_limit_reached",
        ),
        (
            429,
            {"error": {"type": "rate_limit_error", "details": {"code": "contract_spend_limit_reached"}}},
            PAUSE,
            "contract_spend_limit_reached",
        ),
        # a dead account, said with a 429
        (
            429,
            xai("Your newly created team doesn't have any credits or licenses yet. You can purchase ..."),
            PAUSE,
            XAI,
        ),
        (429, XAI_SPENT, PAUSE, XAI),
        (429, MOONSHOT_SUSPENDED, PAUSE, "exceeded_current_quota_error"),
        (429, ZHIPU_BROKE, PAUSE, "http_429"),
        (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, PAUSE, "http_429"),
        (429, {"error": ZHIPU_BROKE["error"] | {"type": "rate_limit_error"}}, PAUSE, "rate_limit_error"),
        # ... and the limit of a minute
        (429, [gemini(GEMINI_QUOTA, status=429)], DOOR, "http_429"),
        (429, [gemini(GEMINI_QUOTA, "RATE_LIMIT_EXCEEDED", status=429)], DOOR, "RATE_LIMIT_EXCEEDED"),
        (
            429,
            xai("Too many requests for team x and model y. Your team's rate limit is 8 requests per second."),
            DOOR,
            XAI,
        ),
        (
            429,
            openai(None, "rate_limit_reached_error", "Your account a is over its quota"),
            DOOR,
            "rate_limit_reached_error",
        ),
        (
            429,
            openai(message="Slow down: the last text was 'Insufficient balance or no resource package'"),
            DOOR,
            "http_429",
        ),
        (429, openai("rate_limit_exceeded", "tokens"), DOOR, "rate_limit_exceeded"),
        (429, openai("slow_down"), DOOR, "slow_down"),
        (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, DOOR, "rate_limit_error"),
        (429, {"error": {"type": "ramp_limit_exceeded"}}, DOOR, "ramp_limit_exceeded"),
        (
            429,
            openai("rate_limit_exceeded", "tokens", "Request too large for m in org o: Limit 100, Requested 200"),
            REJECT,
            "rate_limit_exceeded",
        ),
        (429, {"error": "Request too large"}, REJECT, "http_429"),
        (429, openai(None, None, "resource unavailable"), DOOR, "http_429"),
        (498, openai("capacity_exceeded"), DOOR, "capacity_exceeded"),
        (400, openai("context_length_exceeded", "invalid_request_error"), REJECT, "context_length_exceeded"),
        (400, openai("rate_limit_exceeded"), DOOR, "rate_limit_exceeded"),
        (400, openai("model_not_found", "invalid_request_error"), PAUSE, "model_not_found"),
        (400, openai(None, "invalid_request_error", param="service_tier"), PAUSE, "invalid_request_error"),
        (
            400,
            openai(None, "invalid_request_error", "Your credit balance is too low to access the API."),
            PAUSE,
            "invalid_request_error",
        ),
        (
            400,
            openai(None, "invalid_request_error", "You have reached your specified API usage limits."),
            PAUSE,
            "invalid_request_error",
        ),
        (400, openai(None, "invalid_request_error", "Invalid value: 'billing'"), REJECT, "invalid_request_error"),
        # a dead account or a wrong key, said with a 400 or 412
        (412, FIREWORKS_SUSPENDED, PAUSE, "PRECONDITION_FAILED"),
        (400, DASHSCOPE_ARREARS, PAUSE, "Arrearage"),
        (400, gemini("API key expired. Please renew the API key.", "API_KEY_INVALID"), PAUSE, "API_KEY_INVALID"),
        (400, [gemini("API key not valid. Please pass a valid API key.", "API_KEY_INVALID")], PAUSE, "API_KEY_INVALID"),
        (400, [gemini("API key not valid. Please pass a valid API key.")], PAUSE, "http_400"),
        (400, [gemini("Missing or invalid Authorization header.")], PAUSE, "http_400"),
        (400, XAI_WRONG_KEY, PAUSE, "Client specified an invalid argument"),
        # ... and rows that only speak of one
        (412, openai("PRECONDITION_FAILED", message="The deployment was changed."), REJECT, "PRECONDITION_FAILED"),
        (412, openai(message='Unknown tool in "Account acme is suspended, possibly due to ..."'), REJECT, "http_412"),
        (400, openai(message='Invalid JSON: "API key expired. Please renew the API key."'), REJECT, "http_400"),
        (400, [gemini("The request has a bad image.", "INVALID_IMAGE")], REJECT, "INVALID_IMAGE"),
        (400, {"error": {"message": "x", "details": [1, {"reason": "API_KEY_INVALID"}]}}, REJECT, "http_400"),
        (400, {"error": {"message": "x", "details": [{"@type": GOOGLE, "reason": ["y"]}]}}, REJECT, "http_400"),
        (400, openai("content_filter"), REFUSE, "content_filter"),
        (400, openai("content_policy_violation"), REFUSE, "content_policy_violation"),
        (400, openai("invalid_prompt", "invalid_request_error"), REFUSE, "invalid_prompt"),
        # the type says less than the status
        (401, openai(None, "invalid_request_error", "You didn't provide an API key."), PAUSE, "invalid_request_error"),
        (401, openai("invalid_api_key", "invalid_request_error"), PAUSE, "invalid_api_key"),
        (404, openai(None, "invalid_request_error", "Invalid URL"), PAUSE, "invalid_request_error"),
        (
            404,
            {
                "object": "error",
                "message": "The model `x` does not exist.",
                "type": "NotFoundError",
                "param": None,
                "code": 404,
            },
            PAUSE,
            "NotFoundError",
        ),
        (
            400,
            {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
            REJECT,
            "BadRequestError",
        ),
        (402, {"error": {"code": 402, "message": "Insufficient credits"}}, PAUSE, "http_402"),
        (
            403,
            {"error": {"code": 403, "message": "x", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}},
            REFUSE,
            "http_403",
        ),
        (403, {"error": {"code": 403, "message": "Input was flagged"}}, REFUSE, "http_403"),
        # words of moderation mean nothing with another status
        (429, {"error": {"message": "the moderation service is overloaded"}}, DOOR, "http_429"),
        (500, {"error": {"message": "the moderation service is overloaded"}}, RETRY, "http_500"),
        # xAI: the key is as good as ever
        (
            403,
            {
                "code": "The caller does not have permission to execute the specified operation",
                "error": "Content violates usage guidelines. Team: x, API key ID: y, Model: z, Failed check:"
                " SAFETY_CHECK_TYPE_BIO",
            },
            REFUSE,
            "The caller does not have permission to execute the specified operation",
        ),
        (
            403,
            {"code": "permission-denied", "error": "Content violates usage guidelines. "},
            REFUSE,
            "permission-denied",
        ),
        (403, {"code": "permission-denied", "error": "Your team was blocked. "}, PAUSE, "permission-denied"),
        (403, {"error": {"type": "permission_error", "message": "x"}}, PAUSE, "permission_error"),
        (413, {"error": {"type": "request_too_large", "message": "x"}}, REJECT, "request_too_large"),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            RETRY,
            "overloaded_error",
        ),
        (504, {"type": "error", "error": {"type": "timeout_error", "message": "x"}}, RETRY, "timeout_error"),
        (
            429,
            {"status": "error", "message": "Maximum 5 queued requests allowed.", "retry_after": 30},
            DOOR,
            "http_429",
        ),
        (402, {"status": "error", "messege": "out of credits"}, PAUSE, "http_402"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, REJECT, "http_422"),
        (500, {"detail": "Internal Server Error"}, RETRY, "http_500"),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", RETRY, "http_502"),
        (503, b"", RETRY, "http_503"),
        (400, [{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}], REJECT, "http_400"),
        # errors inside a 200
        (200, {"error": {"code": 502, "message": "upstream"}}, RETRY, "undecodable_answer"),
        (200, {"error": {"code": 429, "message": "slow"}}, DOOR, "undecodable_answer"),
        (200, {"error": {"code": "429", "message": "slow"}}, DOOR, "undecodable_answer"),
        (200, {"error": {"code": 402, "message": "no credit"}}, PAUSE, "undecodable_answer"),
        (200, {"object": "error", "message": "x", "type": "NotFoundError", "code": 404}, PAUSE, "NotFoundError"),
        (200, {"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, REJECT, "BadRequestError"),
        (200, openai("insufficient_quota"), PAUSE, "insufficient_quota"),
        (200, openai("rate_limit_exceeded"), DOOR, "rate_limit_exceeded"),
        (200, openai(None, "invalid_request_error"), REJECT, "invalid_request_error"),
        (200, openai(None, "server_error"), RETRY, "server_error"),
        (200, {"status": "error", "message": "Invalid API key"}, PAUSE, "undecodable_answer"),
        (200, {"status": "error", "messege": "Not enough credits"}, PAUSE, "undecodable_answer"),
        (200, {"status": "error", "message": "Rate limit: maximum 5 queued requests"}, DOOR, "undecodable_answer"),
        (200, {"status": "error", "message": "something"}, RETRY, "undecodable_answer"),
        (200, {"error": "text"}, RETRY, "undecodable_answer"),
        (200, b'{"choices": [{"mess', RETRY, "undecodable_answer"),
        (200, b"", RETRY, "undecodable_answer"),
    ],
)
def test_every_known_error_body_is_understood(status, body, expected, error_type):
    failure = classify(status, body)
    assert (failure.action, failure.result, failure.closes_door) == expected
    assert failure.error_type == error_type
    assert failure.cost_unknown is (status in {200, 504})


@pytest.mark.parametrize(
    ("status", "body", "order", "expected"),
    [
        (400, b"", "true", RETRY),
        (404, b"", "True", RETRY),
        (429, b"", "true", DOOR),
        (500, b"", "false", REJECT),
        (429, b"", "false", REJECT),
        (401, b"", "false", PAUSE),
        (400, b"", "false", REJECT),
        (429, openai("insufficient_quota"), "true", PAUSE),
        (400, openai("content_filter"), "true", REFUSE),
        (500, b"", "perhaps", RETRY),
    ],
)
def test_the_servers_order_to_retry_wins_over_the_status_but_not_over_a_code(status, body, order, expected):
    failure = classify(status, body, x_should_retry=order)
    assert (failure.action, failure.result, failure.closes_door) == expected


@pytest.mark.parametrize(
    ("status", "body", "pause"),
    [
        *[(429, openai(code), "credit") for code in QUOTA],
        (402, b"", "credit"),
        (403, openai("billing_not_active"), "credit"),
        (400, openai(None, "invalid_request_error", "Your credit balance is too low"), "credit"),
        (200, openai(None, None, "out of funds"), "credit"),
        (400, openai("insufficient_balance"), "credit"),
        (403, openai(None, None, "Insufficient balance"), "credit"),
        (403, openai(None, None, "Your team has used all credits or reached its monthly spending limit"), "credit"),
        (401, openai(None, "authentication_error", "you are out of credits"), "credit"),
        (412, FIREWORKS_SUSPENDED, "credit"),
        (400, DASHSCOPE_ARREARS, "credit"),
        (400, gemini("API key expired. Please renew the API key.", "API_KEY_INVALID"), "key"),
        (400, [gemini("API key not valid. Please pass a valid API key.")], "key"),
        (400, XAI_WRONG_KEY, "key"),
        (429, xai("Your newly created team doesn't have any credits or licenses yet."), "credit"),
        (403, xai("Your newly created team doesn't have any credits or licenses yet."), "credit"),
        (403, xai("Your newly created teams doesn't have any credits yet."), "credit"),
        (429, XAI_SPENT, "credit"),
        (429, MOONSHOT_SUSPENDED, "credit"),
        (429, ZHIPU_BROKE, "credit"),
        (404, openai(None, "not_found_error", "no model of a spend limit"), "fatal"),
        (401, b"", "key"),
        (403, b"", "key"),
        (401, openai("invalid_api_key", "invalid_request_error"), "key"),
        (400, openai("account_deactivated"), "key"),
        (200, openai(None, None, "Incorrect API key provided"), "key"),
        (200, openai(None, "PermissionDeniedError"), "key"),
        (404, openai("model_not_found", "invalid_request_error"), "fatal"),
        (403, openai("model_not_found"), "fatal"),
        (200, openai(None, "NotFoundError"), "fatal"),
        (404, b"", "fatal"),
        (302, b"", "fatal"),
        (407, b"", "fatal"),
    ],
)
def test_a_pause_says_whether_credit_or_key_is_to_blame(status, body, pause):
    failure = classify(status, body)
    assert (failure.action, failure.pause) == ("pause", pause)


@pytest.mark.parametrize(
    ("message", "helps"),
    [
        ("response_format json_schema is not supported", True),
        ("Unknown parameter: 'response_format'", True),
        ("This model's structured outputs are unavailable", True),
        ("JSON schema conversion failed:\nPattern must start with '^' and end with '$'", True),
        ('Grammar error: Unimplemented keys: ["uniqueItems"]', True),
        ("failed to parse grammar", True),
        ("'messages' must contain the word 'json' to use 'response_format' of type 'json_object'", False),
        ("Invalid schema for response_format 'answer': 'additionalProperties' is required", False),
        ("Unrecognized request argument supplied: foo. Known: response_format", False),
        ("maximum context length is 8192 tokens; your json_schema and messages are 9000 tokens", False),
    ],
)
def test_a_server_without_structured_output_is_told_from_a_wrong_schema(message, helps):
    assert ("structured_output" in classify(400, openai(None, None, message)).message) is helps


OTHERWISE = "Unsupported parameter: '{}' is not supported with this model. Use '{}' instead."


@pytest.mark.parametrize(
    ("message", "other"),
    [
        (OTHERWISE.format("max_tokens", "max_completion_tokens"), "max_completion_tokens"),
        (OTHERWISE.format("max_completion_tokens", "max_tokens"), "max_tokens"),
        ("Unrecognized request argument supplied: max_completion_tokens", "max_tokens"),
        ("property 'max_completion_tokens' is unsupported", "max_tokens"),
        ("`max_tokens` is not supported, use `max_completion_tokens`", "max_completion_tokens"),
        ("Unknown parameter of this completion: max_tokens", "max_completion_tokens"),
        ("max_tokens is too large: 200000. This model supports at most 16384 completion tokens", None),
        ("Invalid value for 'max_tokens': must be at least 1", None),
        ("Unsupported value: 'temperature' does not support 0 with this model. max_tokens", None),
    ],
)
def test_a_server_that_calls_the_limit_otherwise_names_the_setting_that_helps(message, other):
    for status in (400, 422):
        said = classify(status, openai("unsupported_parameter", "invalid_request_error", message)).message
        assert said.endswith(f'; set [model] max_tokens_field = "{other}")' if other else f"(HTTP {status})")


def test_credit_that_is_being_topped_up_closes_the_door_instead_of_pausing():
    failure = classify(402, b"", retry_after="20")
    assert (failure.action, failure.closes_door, failure.wait_seconds) == ("retry", True, 20)


@pytest.mark.parametrize(
    ("status", "headers", "action"),
    [
        (429, {"retry_after": "1800"}, "retry"),
        (429, {"retry_after": "1801"}, "pause"),
        (503, {"retry_after": "7200"}, "pause"),
        (429, {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "5h0m0s"}, "pause"),
        (400, {"retry_after": "7200"}, "reject"),
    ],
)
def test_a_wait_of_more_than_half_an_hour_pauses_the_run_and_names_the_time(status, headers, action):
    failure = classify(status, b"", **headers)
    assert failure.action == action
    if action == "pause":
        assert failure.result == "fatal"
        assert not failure.closes_door
        again = {1801: "2026-11-23 00:30 UTC", 7200: "2026-11-23 02:00 UTC", 18000: "2026-11-23 05:00 UTC"}
        assert again[failure.wait_seconds] in failure.message


def test_the_wait_of_a_vendor_that_names_it_in_the_body_is_kept():
    failure = classify(429, {"status": "error", "message": "Maximum 5 queued requests allowed.", "retry_after": 30})
    assert failure.wait_seconds == 30


def test_the_wait_that_gemini_names_among_its_details_or_in_words_is_kept():
    body = gemini(f"{GEMINI_QUOTA}\nPlease retry in 46.19s.", status=429)
    assert classify(429, [body]).wait_seconds == 46.19
    body["error"]["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"}]
    assert classify(429, [body]).wait_seconds == 46


def test_a_day_that_is_used_up_in_words_pauses_the_run():
    message = "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200. Please try again in 7h12m0s."
    failure = classify(429, openai("rate_limit_exceeded", "requests", message))
    assert (failure.action, failure.pause, failure.wait_seconds) == ("pause", "rate_limited", 25920)


def test_a_wait_that_a_provider_behind_openrouter_names_in_words_is_not_for_all():
    assert openrouter(429, raw='{"error": {"message": "Please try again in 40s."}}').wait_seconds is None


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("https://login.example/v2?token=abc", "https://login.example/v2"),
        ("https://jane:hunter2@login.example:8443/", "https://login.example:8443/"),
        ("/v2/chat", "/v2/chat"),
        ("http://[::bad", "another address"),
        ("", "another path"),
    ],
)
def test_a_redirect_names_the_address_and_what_to_set(location, place):
    failure = classify(307, b"", location=location)
    assert f"redirects to {place} " in failure.message
    assert "abc" not in failure.message
    assert "base_url" in failure.message
    assert "hunter2" not in failure.message


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (429, openai("slow_down", message="Too\n fast,\tplease\x00 wait"), "Too fast, please wait (HTTP 429)"),
        (502, b"<html><head><title>502 Bad\nGateway</title></head><body>x</body></html>", "502 Bad Gateway (HTTP 502)"),
        (502, b"<p>upstream <b>down</b></p>", "upstream down (HTTP 502)"),
        (500, b"plain words", "plain words (HTTP 500)"),
        (500, b"\xff\xfe", "\ufffd\ufffd (HTTP 500)"),
        (503, b"", "Service Unavailable (HTTP 503)"),
        (599, b"", "the server gave no reason (HTTP 599)"),
        (
            401,
            openai(message="No."),
            "No. (HTTP 401; no key was sent: behind base_url name its variable in [model] api_key_env)",
        ),
        (422, {"detail": [{"msg": "field required"}]}, "field required (HTTP 422)"),
        (200, openai(message="x") | {"error": {"code": 503, "message": "busy"}}, "busy (HTTP 200, 503 inside)"),
        (200, {"a": 1}, "the answer holds neither choices nor an error (HTTP 200)"),
        (200, b'{"choices": [{"message": {"content": "half of a pri', "the answer is not JSON (HTTP 200)"),
    ],
)
def test_a_message_is_one_line_with_the_servers_words_and_a_hint(status, body, message):
    assert classify(status, body).message == message


def test_a_long_message_is_cut():
    failure = classify(400, openai(message="a b " * 5000))
    assert len(failure.message) < 350
    assert "…" in failure.message


KEY = "Zt9-my.own/key+with=signs"


@pytest.mark.parametrize(
    "body",
    [
        openai("invalid_api_key", message=f"Incorrect API key provided: {KEY}."),
        openai(message=f"{'x ' * 120}{KEY} and more"),
        openai(code=f"bad_{KEY}"),
        openai(kind=KEY),
        {"error": KEY},
        {"status": "error", "messege": f"key {KEY}{KEY} is blocked"},
        {"detail": f"got body {{'key': '{KEY}', 'model_id': 'm'}}"},
        f"<title>{KEY}</title>".encode(),
        KEY.encode(),
        (" " * 19_990 + KEY).encode(),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 500, 200])
def test_the_key_is_never_in_a_failure_wherever_the_server_echoes_it(status, body):
    failure = failure_of(reply(status, body), secrets=(f"{KEY}\n",))
    shown = f"{failure.error_type} {failure.message}"
    assert KEY not in shown
    assert KEY[:9] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-abc***xyz. Find it at https://x.example/keys.",
        "Incorrect API key provided: mykey123.",
        "key sk-proj-abcdefgh is disabled",
        "header 'authorization: Bearer abc.def'",
        "api_key=abcdef is wrong",
        'invalid api-key: "abcdef"',
        '{"key": "abcdef", "model_id": "m"}',
        "{'key': 'abcdef'}",
        "gsk_abcdefgh1234 expired",
        "token eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2lnbmF0dXJl refused",
        "AIzaSyA1234567890abcdef refused",
        "proxy http://jane:hunter2@proxy.example failed",
        "unknown a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0",
    ],
)
def test_what_looks_like_a_key_is_hidden_even_from_one_who_does_not_know_it(text):
    shown = redact(text, ())
    assert "[redacted]" in shown
    hidden = ("abc", "mykey", "eyJ", "AIza", "hunter2", "a1B2")
    assert not any(secret in shown for secret in hidden)


@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-oss-20b` does not exist",
        "Rate limit reached for m in organization org-abc123 on tokens per min (TPM): Limit 30000, Used 29000",
        "context_length_exceeded: maximum context length is 128000 tokens, however you requested 130000",
        "unknown key: max_output_tokens_for_a_very_long_option_name_indeed",
        "request 5f0c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f failed, see https://status.example/now",
        "risk-free, task-based, ask_user",
    ],
)
def test_ordinary_words_stay_readable(text):
    assert redact(text, ("", "x", " ab ")) == text


def test_hiding_keys_takes_time_in_proportion_to_the_text_and_stops_at_its_limit():
    # A regular expression that backtracks would not come back from these.
    for text in ("a" * 10**6, "a1" * 10**6, "sk-" * 10**6, "://" * 10**6, "key: " * 10**6, " " * 10**6):
        assert len(redact(text, ())) <= 10**5


@given(st.text(), st.integers(1, 50))
def test_a_cleaned_text_is_one_short_line_that_can_be_written_as_utf8(text, longest):
    line = clean(text, longest)
    assert len(line) <= longest
    assert line.isprintable() or not any(ord(letter) < 32 for letter in line)
    assert line.encode().decode() == line


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x_request_id": "req_1"}, {"id": "gen-1"}, "req_1"),
        ({"request_id": "req_2"}, {}, "req_2"),
        ({}, {"request_id": "req_3", "error": {}}, "req_3"),
        ({}, {"id": "gen-4"}, "gen-4"),
        ({}, {"id": 5}, None),
        ({}, b"", None),
    ],
)
def test_a_failure_carries_the_providers_name_for_the_exchange(headers, body, expected):
    assert classify(500, body, **headers).request_id == expected


def test_an_error_inside_a_200_that_says_what_it_used_has_a_known_cost():
    failure = failure_of(reply(200, {"error": {"code": 502}}), usage=Usage(10, 2), model="m")
    assert (failure.cost_unknown, failure.usage, failure.model) == (False, Usage(10, 2), "m")


@pytest.mark.parametrize(
    ("kind", "maybe_sent", "expected", "cost_unknown", "not_sent"),
    [
        ("connect", False, RETRY, False, True),
        ("tls", False, RETRY, False, True),
        ("timeout", True, RETRY, True, False),
        ("broken", True, RETRY, True, False),
        ("broken", False, RETRY, False, True),
        ("too_large", True, REJECT, True, False),
        ("bad_request", False, PAUSE, False, True),
    ],
)
def test_a_failure_below_http_says_whether_it_may_have_been_billed(kind, maybe_sent, expected, cost_unknown, not_sent):
    failure = providers.failure_from_wire(WireError(kind, "host:1: broke\noff", maybe_sent=maybe_sent))
    assert (failure.action, failure.result, failure.closes_door) == expected
    assert (failure.cost_unknown, failure.not_sent) == (cost_unknown, not_sent)
    assert providers.may_be_billed(None, kind) is (cost_unknown or kind == "broken")  # what is booked doesn't say more
    assert (failure.error_type, failure.message, failure.http_status) == (kind, "host:1: broke off", None)


@pytest.mark.parametrize(("status", "code"), [(400, "400"), (429, "429"), (429, None)])
def test_a_proxys_budget_that_is_used_up_pauses_the_run(status, code):
    """LiteLLM's words; its `code` is the status as text."""
    message = "Budget has been exceeded! Current cost: 10.0016, Max budget: 10.0"
    failure = classify(status, {"error": {"message": message, "type": "budget_exceeded", "param": None, "code": code}})
    assert (failure.action, failure.pause) == ("pause", "credit")
    failure = classify(status, {"error": {"message": f"ExceededBudget: {message}", "type": "bad", "code": code}})
    assert (failure.action, failure.pause) == ("pause", "credit")


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    "message",
    [
        "Context size has been exceeded.",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "Requested token count exceeds the model's maximum context length of 8192 tokens.",
        "input is too large to process. increase the physical batch size",
        "the request exceeds the available context size. try increasing the context size",
        "The prompt is too long: 9000 tokens",
    ],
)
def test_a_request_too_long_for_a_server_of_ones_own_is_rejected_under_one_name(status, message):
    failure = classify(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})
    assert (failure.action, failure.result, failure.error_type) == ("reject", "rejected", "context_length_exceeded")


def test_an_error_of_the_server_that_speaks_of_something_else_is_tried_again():
    failure = classify(500, {"error": {"message": "CUDA out of memory", "type": "InternalServerError", "code": 500}})
    assert (failure.action, failure.error_type) == ("retry", "InternalServerError")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<!DOCTYPE html><title>Open WebUI</title>", "Open WebUI (HTTP 200; this is a web page: look at base_url"),
        (b'data: {"choices": []}\n\n', "the server streams its answer"),
        (
            b'{"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": true}',
            "this is Ollama's own interface: base_url must end in /v1",
        ),
    ],
)
def test_a_200_that_shows_another_address_says_so(body, says):
    assert says in classify(200, body).message


@pytest.mark.parametrize(
    "message", ["Max parallel request limit reached", "Limit type: max_parallel_requests. Limit: 4"]
)
def test_a_429_about_parallel_requests_is_about_requests_at_once(message):
    assert classify(429, {"error": {"message": message}}).hint.at_once


def test_a_server_that_lacks_a_feature_of_the_schema_names_the_setting_that_helps():
    message = "The provided JSON schema contains features not supported by xgrammar."
    assert "structured_output" in classify(400, {"error": {"message": message, "type": "BadRequestError"}}).message


@pytest.mark.parametrize("status", [500, 503, 504])
@pytest.mark.parametrize(
    "message",
    [
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        "timeout exceeded (context canceled)",
        "maximum retries exceeded in this context",
        "context length exceeded: timed out",
    ],
)
def test_a_gateways_time_out_is_no_context_that_is_too_short(status, message):
    failure = classify(status, {"error": {"message": message, "type": "server_error", "code": status}})
    assert (failure.action, failure.error_type) == ("retry", "server_error")


@pytest.mark.parametrize(
    "message",
    [
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
        "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
        "Range of input length should be [1, 30720]",
        "You passed 5000 input tokens and requested 100 output tokens. However, the model's context length is only 96",
        "litellm.ContextWindowExceededError: litellm.BadRequestError: Hosted_vllmException - too long",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        "max_tokens must be at least 1, got -904.",
        "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens). Use a shorter input.",
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 9> n_ctx: 4)",
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with less",
    ],
)
def test_other_servers_words_for_it_are_known(message):
    assert classify(400, {"error": {"message": message, "type": "validation"}}).error_type == "context_length_exceeded"


def openrouter(status, **metadata):
    error = {"message": "Provider returned error", "code": status, "metadata": {"provider_name": "X", **metadata}}
    return classify(status, {"error": error})


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ('{"error": {"message": "json_schema is not supported by this model"}}', "error: json_schema is not supported"),
        ('{"error": "no such thing"}', "error: no such thing"),
        ('{"detail": "too hot"}', "error: too hot"),
        ("upstream is sad", "error: upstream is sad"),
        ('{"strange": 1}', 'error: {"strange": 1}'),
        ({"not": "text"}, "Provider returned error (HTTP 400)"),
    ],
)
def test_what_a_provider_behind_openrouter_says_is_told(raw, says):
    assert says in openrouter(400, raw=raw).message


def test_a_provider_behind_openrouter_that_finds_a_prompt_too_long_rejects_its_row():
    raw = json.dumps({"error": {"message": "This model's maximum context length is 4096 tokens", "code": "x"}})
    assert openrouter(400, raw=raw).error_type == "context_length_exceeded"


def test_a_provider_behind_openrouter_that_will_not_have_a_text_rejects_its_row():
    raw = json.dumps({"code": "permission-denied", "error": "Content violates usage guidelines. "})
    assert openrouter(403, raw=raw).result == "refused"


def test_what_a_provider_behind_openrouter_has_spent_is_not_ours():
    raw = '{"error": {"message": "Your account has reached your spending limit"}}'
    assert openrouter(400, raw=raw).action == "reject"
    assert openrouter(429, raw='{"error": {"message": "Exceeded budget for concurrency"}}').action == "retry"


@pytest.mark.parametrize(
    ("status", "body", "action"),
    [
        (412, FIREWORKS_SUSPENDED, "reject"),
        (400, gemini("API key not valid. Please pass a valid API key."), "reject"),
        (429, XAI_SPENT, "retry"),
        (429, MOONSHOT_SUSPENDED, "retry"),
        (429, ZHIPU_BROKE, "retry"),
    ],
)
def test_a_dead_account_or_a_wrong_key_behind_openrouter_is_not_ours(status, body, action):
    assert openrouter(status, raw=json.dumps(body)).action == action
    error = {"message": "", "code": status, "metadata": {"raw": json.dumps(body)}}
    assert classify(status, {"error": error}).action == action


def test_a_quota_behind_openrouter_is_not_ours():
    assert openrouter(429, raw='{"error": {"message": "no", "code": "insufficient_quota"}}').action == "retry"


def test_a_reset_that_stands_in_the_body_counts():
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    failure = openrouter(429, headers=headers)
    assert (failure.action, failure.pause, failure.wait_seconds) == ("pause", "rate_limited", 3600)


@pytest.mark.parametrize(
    ("status", "body", "perhaps"),
    [
        (403, b"<html><title>403 Forbidden</title></html>", True),
        (404, b"default backend - 404", True),
        (404, {"error": {"message": "No endpoints found", "code": 404}}, True),
        (405, b"", True),
        (410, b"", True),
        (404, {"error": {"message": "no model", "type": "NotFoundError"}}, False),
        (403, {"error": {"message": "Key limit exceeded (total limit)", "code": 403}}, False),
        (403, {"error": {"message": "Your account has insufficient balance", "code": 403}}, False),
        (404, {"error": "model 'x' not found, try pulling it first"}, False),
        (404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, False),
        (404, {"error": {"message": "no model", "code": "model_not_found"}}, False),
        (403, {"error": {"message": "no", "type": "permission_error"}}, False),
        (401, b"", False),
        (402, b"", False),
        (307, b"", False),
    ],
)
def test_a_status_alone_that_pauses_may_be_of_one_row(status, body, perhaps):
    failure = classify(status, body)
    assert (failure.action, failure.perhaps_its_row) == ("pause", perhaps)


@pytest.mark.parametrize("status", [500, 503])
def test_a_wait_in_words_counts_with_a_rate_limit_only(status):
    """Other errors may quote the row's text."""
    found = classify(status, {"error": {"message": "Failed to parse the template near: please try again in 24h"}})
    assert (found.action, found.wait_seconds) == ("retry", None)


def test_a_refused_text_gets_no_hint_at_the_key():
    found = classify(403, {"code": "permission-denied", "error": "Content violates usage guidelines. "})
    assert "the key" not in found.message


def test_a_400_that_was_booked_as_a_cut_off_answer_may_have_been_billed():
    assert providers.may_be_billed(400, "max_tokens")
    assert not providers.may_be_billed(400, "http_400")
