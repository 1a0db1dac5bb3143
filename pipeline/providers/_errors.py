"""What a failed exchange means: retry it, reject the row, or pause the run. The only place that knows status codes.

The order of evidence: the error's code, then the server's explicit `x-should-retry`, then the status. The error's
generic type and its wording count only where there is no error status (an error inside a 200).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

from pipeline.errors import WireError
from pipeline.providers._account import (
    BAD_KEY,
    BAD_KEY_SAID,
    BAD_KEY_TYPES,
    NO_CREDIT,
    NO_FUNDS_SAID,
    NO_MODEL,
    NOT_THERE_TYPES,
    blames_account,
    is_broke,
    what_is_wrong,
)
from pipeline.providers._hints import rate_hint
from pipeline.providers._redact import clean, hide, name_in, redact
from pipeline.providers._said import Said, said_by
from pipeline.providers._waits import wait_from
from pipeline.records import Failure, RateHint, Usage, WireReply
from pipeline.retry import LONGEST_WAIT

Verdict = Literal["retry", "door", "reject", "refuse", "pause"]
"""door: retry, and everybody waits."""


def _table(words: dict[Verdict, tuple[str, ...]]) -> dict[str, Verdict]:
    return {word: verdict for verdict, several in words.items() for word in several}


_CODES = _table(
    {
        "pause": (*NO_CREDIT, *BAD_KEY, NO_MODEL),
        "refuse": (
            "content_filter",
            "content_policy_violation",
            "content_moderation",
            "moderation_blocked",
            "responsibleaipolicyviolation",
            "invalid_prompt",
        ),
        "door": (
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limited",
            "slow_down",
            "too_many_requests",
            "ramp_limit_exceeded",
            "capacity_exceeded",
        ),
        "reject": ("context_length_exceeded", "string_above_max_length", "request_too_large"),
        "retry": ("overloaded_error", "engine_overloaded", "timeout_error"),
    }
)

# OpenAI calls a missing key (401) and a wrong path (404) `invalid_request_error` too: these say less than a status.
_TYPES = _table(
    {
        "pause": (*BAD_KEY_TYPES, *NOT_THERE_TYPES),
        "reject": ("invalid_request_error", "badrequesterror", "unprocessableentityerror"),
        "door": ("ratelimiterror",),
        "retry": ("server_error", "api_error", "internalservererror"),
    }
)

_STATUSES: dict[int, Verdict] = {
    401: "pause",
    402: "pause",
    403: "pause",
    404: "pause",
    405: "pause",
    407: "pause",
    408: "retry",
    409: "retry",
    410: "pause",
    424: "retry",
    425: "retry",
    429: "door",
    498: "door",
    499: "retry",
}

_LIMITED = (HTTPStatus.TOO_MANY_REQUESTS, 498)
_LOOKED_AT = 1000
"""Bytes at an answer's beginning."""

_OF_ONE_ROW = frozenset({403, 404, 405, 410})
"""What stands between us and the model may say these to a single text, too: a firewall, a router."""

_OF_ALL_ROWS = re.compile(
    r"\bkeys?\b|balance|credit|quota|\blimit exceeded|account|billing|subscription|\bplan\b|model\b.*not found"
    r"|deployment|region|country|permission|unauthori[sz]ed",
    re.IGNORECASE,
)

_MAYBE_BILLED = frozenset({408, 504, 522, 524})
"""Somebody on the way gave up waiting; the model may have worked on, and billed."""

_OF_THE_LIMIT = "max_tokens"
"""What is booked of an answer that was cut off, which may have come as a 400: see `ran_out`."""

_NEVER_SENT = frozenset({"connect", "tls", "bad_request"})
"""Kinds of WireError after which the provider has no request."""

_HINTS = {
    401: "check the API key, and [model] api_key_env",
    402: "the account has no credit left",
    403: "the key, the plan or the region does not allow this",
    404: "check [model] name and base_url",
    405: "check base_url",
    407: "the proxy asks for a password",
    410: "check [model] name",
}

_FORMAT = r"(response_format|json[_ ]schema|guided_json|structured[ _]outputs?|grammar)"
_MISSING = r"un(supported|available|known)"
_NO_FORMAT = re.compile(
    rf"{_FORMAT}[^.;]{{0,80}}({_MISSING}|not (supported|available|permitted|allowed|implemented))"
    rf"|({_MISSING}|unrecognized|unexpected)[^.;]{{0,60}}{_FORMAT}"
    r"|json schema conversion failed|grammar error|unimplemented keys|(failed|unable|error)[^.;]{0,40} grammar",
    re.IGNORECASE,
)
_NO_LIMIT = re.compile(
    rf"({_MISSING}|unrecogni[sz]ed|unexpected) (request )?(parameter|argument|field|key)\b[^.;]{{0,60}}?"
    r"\bmax_(?P<refused>completion_)?tokens\b"
    rf"|\bmax_(?P<unknown>completion_)?tokens['\"`]? is (not (supported|permitted|allowed)|{_MISSING}|unrecogni[sz]ed)",
    re.IGNORECASE,
)
"""The limit goes by two names, and a server that refuses one mostly knows the other."""
_NO_KEY = "no key was sent: behind base_url name its variable in [model] api_key_env"

_FLAGGED = re.compile(
    r"moderation|flagged|guardrail|content (policy|filter)|safety_check_type"
    r"|content (violates|is against|goes against) (our |the )?(usage|content) (guidelines|polic(y|ies))",
    re.IGNORECASE,
)
_AT_ONCE = re.compile(r"concurren|queued requests|simultaneous|in parallel|parallel[ _]requests?", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"(maximum|max) (context|prompt) length|context (size|length|window) (has been |was |is )?exceeded"
    r"|\bexceeds?\b[^.]{0,60}\bcontext (length|size|window|limit)|input is too large to process|prompt is too long"
    r"|longer than the (model's )?(maximum )?context|must have less than \d+ tokens|max_new_tokens` must be <="
    r"|input token count[^.]{0,40}exceeds|range of input length|context length is only|ContextWindowExceeded"
    r"|longer than the maximum model length|(input|prompt) length[^.]{0,40} exceeds the maximum allowed length"
    r"|(greater than the|when) context (length|the overflows)|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
_IN_TIME = re.compile(r"deadline|timed?[ -]?out|cancel", re.IGNORECASE)
"""Servers of one's own say 400 with a class's name, or 500 (llama.cpp, SGLang), to a request that can never pass."""
TOO_LONG = "context_length_exceeded"
_RAN_OUT = re.compile(
    r"could not finish the message because max_tokens or model output limit was reached", re.IGNORECASE
)
"""OpenAI, with a 400, of an answer whose reasoning left no room for a text."""
_NEVER_FITS = re.compile(r"request too large", re.IGNORECASE)
_WORDING: tuple[tuple[re.Pattern[str], Verdict], ...] = (
    (BAD_KEY_SAID, "pause"),
    (NO_FUNDS_SAID, "pause"),
    (re.compile(r"rate limit|too many requests|queued requests", re.IGNORECASE), "door"),
)

_ACTIONS: dict[Verdict, Literal["retry", "reject", "pause"]] = {
    "retry": "retry",
    "door": "retry",
    "reject": "reject",
    "refuse": "reject",
    "pause": "pause",
}
_RESULTS: dict[Verdict, Literal["rejected", "refused", "rate_limited", "unavailable", "fatal"]] = {
    "retry": "unavailable",
    "door": "rate_limited",
    "reject": "rejected",
    "refuse": "refused",
    "pause": "fatal",
}
_WIRE: dict[str, Verdict] = {
    "too_large": "reject",  # it was computed; the next one would be as long, and cost as much
    "bad_request": "pause",  # the address or the key: no row will pass
}


def failure_from(
    reply: WireReply,
    now: float,
    *,
    body: Any,
    secrets: Sequence[str] = (),
    usage: Usage | None = None,
    model: str | None = None,
) -> Failure:
    """Classify an answer that is an error, by status or (in a 2xx) by content.

    `body` is the parsed body, or what stands for it. The message never holds one of `secrets`, nor what looks like
    a key.
    """
    if usage is not None and not usage.input_tokens:  # what was asked has tokens, or was not looked at
        usage = None
    said = said_by(body, reply)
    status = said.status if _is_success(reply.status) and said.status is not None else reply.status
    # The words of other errors may be the row's own, quoted.
    wait = wait_from(reply.headers, body, now, said.own_message if status in _LIMITED else "")
    verdict = _verdict(reply, said, status)
    failure = Failure(
        action=_ACTIONS[verdict],
        result=_RESULTS[verdict],
        error_type=clean(redact(_type(reply, said, verdict), secrets), 80),
        message=_message(reply, said, status, verdict, secrets),
        http_status=reply.status,
        wait_seconds=wait,
        closes_door=verdict == "door",
        cost_unknown=status in _MAYBE_BILLED or (_is_success(reply.status) and usage is None),
        usage=usage,
        model=model,
        request_id=request_id_of(reply, body, secrets),
        hint=_hint(reply, said, now, limited=verdict == "door"),
        pause=what_is_wrong(said, status, success=_is_success(status)) if verdict == "pause" else "fatal",
        perhaps_its_row=verdict == "pause" and status in _OF_ONE_ROW and _names_nothing(said),
    )
    return _paused_if_long(failure, now)


def _names_nothing(said: Said) -> bool:
    """Tell whether only the status says what is wrong: no code, no type, and no word of what all rows share."""
    return said.code is None and said.kind is None and _OF_ALL_ROWS.search(said.message) is None


def _hint(reply: WireReply, said: Said, now: float, *, limited: bool) -> RateHint | None:
    hint = rate_hint(reply.headers, now)
    if limited and _AT_ONCE.search(said.message):
        return replace(hint or RateHint(), at_once=True)
    return hint


def failure_from_wire(error: WireError, secrets: Sequence[str] = ()) -> Failure:
    """Classify an exchange that brought no HTTP answer."""
    verdict = _WIRE.get(error.kind, "retry")
    return Failure(
        action=_ACTIONS[verdict],
        result=_RESULTS[verdict],
        error_type=error.kind,
        message=clean(hide(str(error), secrets), 300),  # a broken head is quoted by the library
        cost_unknown=error.maybe_sent,
        not_sent=not error.maybe_sent,
    )


def ran_out(reply: WireReply, body: Any) -> bool:
    """Tell whether what looks like an error is an answer that reached its limit before its first word."""
    said = said_by(body, reply)
    return HTTPStatus.BAD_REQUEST in (reply.status, said.status) and _RAN_OUT.search(said.message) is not None


def may_be_billed(http_status: int | None, error_type: str | None) -> bool:
    """Tell whether a failed exchange without usage may have been generated, by what is booked of it."""
    if http_status is None:
        return error_type not in _NEVER_SENT
    return http_status in _MAYBE_BILLED or _is_success(http_status) or error_type == _OF_THE_LIMIT


def request_id_of(reply: WireReply, body: Any, secrets: Sequence[str] = ()) -> str | None:
    """Find the provider's name for this exchange: header `x-request-id` (or `request-id`), else the body's id."""
    said = reply.headers.get("x-request-id")
    if said and not said.isspace():  # nearly always
        return name_in(said, secrets)
    inside = body if isinstance(body, dict) else {}
    for found in (reply.headers.get("request-id"), inside.get("request_id"), inside.get("id")):
        if isinstance(found, str) and found.strip():
            return name_in(found, secrets)
    return None


def _verdict(reply: WireReply, said: Said, status: int) -> Verdict:
    by_code = _by_code(reply, said, status)
    if by_code in {"pause", "refuse"}:
        return by_code
    order = reply.headers.get("x-should-retry", "").strip().lower()
    otherwise = by_code or _by_status(reply, said, status)
    if order == "true" and otherwise != "door":
        return "retry"
    if order == "false" and otherwise in {"retry", "door"}:
        return "reject"
    return otherwise


def _by_code(reply: WireReply, said: Said, status: int) -> Verdict | None:
    for word in (said.code, said.kind):
        verdict = _CODES.get((word or "").lower())
        if verdict is not None:
            return _limited(said) if verdict == "door" else verdict
    if blames_account(said, status):
        return "pause"
    if status == HTTPStatus.FORBIDDEN and (said.flagged or _FLAGGED.search(said.message)):
        return "refuse"
    if _is_success(status):
        return _by_content(said)
    if status == HTTPStatus.PAYMENT_REQUIRED and "retry-after" in reply.headers:
        return "door"  # OpenRouter: credit is being topped up
    return None


def _limited(said: Said) -> Verdict:
    """Look behind a code for a rate limit: no wait brings money, or makes a request fit."""
    if is_broke(said):
        return "pause"
    return "reject" if _NEVER_FITS.search(said.message) else "door"


def _type(reply: WireReply, said: Said, verdict: Verdict) -> str:
    """Name the error: a code, where a server has no better one than the name of a class."""
    known = (said.code or "").lower() in _CODES or (said.kind or "").lower() in _CODES
    if verdict == "reject" and not known and _is_too_long(said):
        return TOO_LONG
    return said.code or said.kind or _fallback_type(reply)


def _is_too_long(said: Said) -> bool:
    return _TOO_LONG.search(said.message) is not None and _IN_TIME.search(said.message) is None


def _by_content(said: Said) -> Verdict | None:
    by_type = _TYPES.get((said.kind or "").lower()) or _TYPES.get((said.code or "").lower())
    if by_type is not None:
        return by_type
    return next((verdict for pattern, verdict in _WORDING if pattern.search(said.message)), None)


def _by_status(reply: WireReply, said: Said, status: int) -> Verdict:
    if status == HTTPStatus.TOO_MANY_REQUESTS and _NEVER_FITS.search(said.message):
        return "reject"  # larger than the limit itself: no wait makes it fit
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _is_too_long(said):
        return "reject"
    if 300 <= reply.status < 400:  # noqa: PLR2004 (redirects)
        return "pause"
    if 400 <= status < 500:  # noqa: PLR2004 (the request's fault, unless listed)
        return "pause" if said.param == "service_tier" and status == 400 else _STATUSES.get(status, "reject")  # noqa: PLR2004
    return "retry"


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004


def _paused_if_long(failure: Failure, now: float) -> Failure:
    wait = failure.wait_seconds
    if failure.action != "retry" or wait is None or wait <= LONGEST_WAIT:
        return failure
    again = datetime.fromtimestamp(now + wait, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return failure._replace(
        action="pause",
        result="fatal",
        closes_door=False,
        message=f"{failure.message}; the server asks to come back after {again}",
        pause="rate_limited" if failure.http_status == HTTPStatus.TOO_MANY_REQUESTS else "unavailable",
    )


def _message(reply: WireReply, said: Said, status: int, verdict: Verdict, secrets: Sequence[str]) -> str:
    words = clean(redact(said.message, secrets), 300)
    if 300 <= reply.status < 400:  # noqa: PLR2004 (redirects)
        place = clean(redact(_redirected_to(reply), secrets), 200)
        return f"the server redirects to {place} (HTTP {reply.status}); set base_url to the address that answers"
    hint = "" if verdict == "refuse" else _HINTS.get(status, "")  # the row's text, and nothing else, is to blame
    if status == HTTPStatus.UNAUTHORIZED and not secrets:
        hint = _NO_KEY
    if _is_success(status):
        hint = _strange(reply)
    if status == HTTPStatus.BAD_REQUEST and _NO_FORMAT.search(said.message):
        hint = 'try [model] structured_output = "json_object" or "none"'
    if verdict == "reject" and (found := _NO_LIMIT.search(said.message)):
        other = "max_tokens" if found["refused"] or found["unknown"] else "max_completion_tokens"
        hint = f'set [model] max_tokens_field = "{other}"'
    hint = f"; {hint}" if hint else ""
    inside = f", {status} inside" if status != reply.status else ""
    return f"{words or _phrase(status)} (HTTP {reply.status}{inside}{hint})"


def _fallback_type(reply: WireReply) -> str:
    return "undecodable_answer" if _is_success(reply.status) else f"http_{reply.status}"


def _phrase(status: int) -> str:
    if _is_success(status):
        return "the answer holds neither choices nor an error"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "the server gave no reason"


def _strange(reply: WireReply) -> str:
    """Say what a 200 is that is no answer, where it shows that base_url names another place."""
    beginning = reply.body[:_LOOKED_AT].lstrip()
    if beginning.startswith(b"<"):
        return "this is a web page: look at base_url, which mostly ends in /v1"
    if beginning.startswith((b"data:", b"event:")):
        return "the server streams its answer, which promptmill does not ask for: look at what stands before it"
    if beginning.startswith(b"{") and b'"done"' in reply.body and b'"message"' in reply.body:
        return "this is Ollama's own interface: base_url must end in /v1"
    return ""


def _redirected_to(reply: WireReply) -> str:
    """Return the address without a query, which may hold anything."""
    try:
        parts = urlsplit(reply.headers.get("location", ""))
        place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "another address"
    scheme = f"{parts.scheme}://" if parts.scheme and place else ""
    return f"{scheme}{place}{parts.path}" or "another path"
