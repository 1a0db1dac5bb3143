"""What the stub vendor can say and how it can fail: pure values, used by `stub.StubServer`.

A `Reply` is what the model says; a `Fault` is what goes wrong with one request. `billed` on a fault is the
promise that matters: True means that an answer was generated and booked, whatever then reached the client.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

_TYPE_AND_CODE = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    402: ("billing_error", "insufficient_credits"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says, and anything unusual about the bill for it."""

    text: str | None = ""
    finish_reason: str = "stop"
    """Becomes `length` by itself when `max_tokens` cuts the text."""
    reasoning_tokens: int = 0
    """Billed as part of the completion, and eaten from `max_tokens` before the text."""
    cached_tokens: int = 0
    """Part of the prompt's tokens."""
    prompt_tokens: int | None = None
    """Instead of the stub's own count."""
    completion_tokens: int | None = None
    """Instead of the stub's own count; `max_tokens` does not bound it (a vendor that breaks its word)."""
    model: str | None = None
    """The model the reply names; default: the one asked for."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the message: `refusal`, `reasoning_content`, `tool_calls`, ..."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. Use the named ones below; `replace(fault, ...)` bends them."""

    name: str
    delivery: Literal["whole", "reset", "cut", "stall", "drip"] = "whole"
    """whole: all bytes at once; reset: TCP reset instead of an answer; cut: TCP reset after half of the body;
    stall: nothing, until the client leaves or the server stops; drip: in pieces."""
    billed: bool = True
    """An answer is generated and booked."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of the answer."""
    reply: Callable[[Reply], Reply] | None = None
    """Changes what the model says, so the bill may change too."""
    edit: Callable[[dict[str, Any]], object] | None = None
    """Changes the answer's JSON in place, after it was billed."""
    damage: Callable[[bytes], bytes] | None = None
    """Changes the answer's bytes, after it was billed."""
    pieces: int = 1
    gap_seconds: float = 0.0
    """Between two pieces of a drip."""

    def spoil(self, answer: dict[str, Any]) -> bytes:
        """What goes out instead of a billed answer."""
        if self.body is not None:
            return self.body
        if self.edit is not None:
            self.edit(answer)
        body = orjson.dumps(answer)
        return body if self.damage is None else self.damage(body)


Faults = Callable[[int, Any], Fault | None]
"""(request number from 1 in order of arrival, payload) -> what goes wrong, or None."""

NO_FAULT = Fault("answered")


def error_body(message: str, kind: str, code: str | int | None) -> bytes:
    """OpenAI's error object."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def status(
    number: int,
    message: str = "the stub says no",
    *,
    code: str | None = None,
    retry_after: float | str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Fault:
    """Build an HTTP error in OpenAI's shape (or with `body` as it is); never billed."""
    kind, usual_code = _TYPE_AND_CODE.get(number, ("server_error", "internal_error"))
    all_headers = dict(headers or {})
    if retry_after is not None:
        all_headers["retry-after"] = str(retry_after)
    return Fault(
        f"status {number}",
        billed=False,
        status=number,
        headers=all_headers,
        body=error_body(message, kind, code or usual_code) if body is None else body,
    )


def vllm_not_found(message: str) -> Fault:
    """Build the 404 as vLLM words it: the error object is the whole body."""
    return status(404, body=orjson.dumps({"object": "error", "message": message, "type": "NotFoundError", "code": 404}))


def modelslab_queue_full(limit: int, retry_after: float) -> Fault:
    """Build the 429 as ModelsLab words it: the wait stands in the body, in seconds."""
    message = f"Rate limit exceeded. Maximum {limit} queued requests allowed."
    body = orjson.dumps({"status": "error", "message": message, "retry_after": retry_after})
    return dataclasses.replace(status(429, body=body), name="too many at once")


def html(number: int = 502) -> Fault:
    """Build a proxy's error page."""
    page = b"<!DOCTYPE html><html><body><h1>Bad Gateway</h1></body></html>"
    return Fault(f"html {number}", billed=False, status=number, headers={"content-type": "text/html"}, body=page)


def error_in_200(message: str = "upstream failed", code: str | int = 502, *, billed: bool = False) -> Fault:
    """Build a 200 whose body is an error object (OpenRouter, once the model has started)."""
    return Fault("error in 200", billed=billed, body=error_body(message, "upstream_error", code))


def drip(pieces: int = 8, gap_seconds: float = 0.01) -> Fault:
    """Build a correct answer that arrives in `pieces`, `gap_seconds` apart."""
    return Fault("drip", delivery="drip", pieces=pieces, gap_seconds=gap_seconds)


def huge(size_bytes: int) -> Fault:
    """Build a correct answer blown up to `size_bytes` with blanks, which JSON allows."""
    return Fault("huge", damage=lambda body: body.ljust(size_bytes))


def finish(reason: str) -> Fault:
    """Build an answer that claims another `finish_reason`."""
    return Fault(f"finish {reason}", reply=lambda reply: dataclasses.replace(reply, finish_reason=reason))


def other_model(name: str) -> Fault:
    """Build an answer that says another model made it."""
    return Fault("other model", reply=lambda reply: dataclasses.replace(reply, model=name))


def reasoned_away(reasoning_tokens: int = 50) -> Fault:
    """Build an answer without text: reasoning ate `max_tokens`. Billed in full."""
    change = {"text": "", "finish_reason": "length", "reasoning_tokens": reasoning_tokens}
    return Fault("reasoned away", reply=lambda reply: dataclasses.replace(reply, **change))


def _refuse(reply: Reply) -> Reply:
    refusal = {"refusal": "I can't help with that."}
    return dataclasses.replace(reply, text=None, message={**reply.message, **refusal})


def _filter(reply: Reply) -> Reply:
    return dataclasses.replace(reply, text="", finish_reason="content_filter")


RESET = Fault("reset", delivery="reset", billed=False)
CUT = Fault("cut", delivery="cut")
STALL = Fault("stall", delivery="stall", billed=False)
NO_USAGE = Fault("no usage", edit=lambda answer: answer.pop("usage"))
NO_CHOICES = Fault("no choices", edit=lambda answer: answer.update(choices=[]))
BROKEN_JSON = Fault("broken json", damage=lambda body: body[: len(body) // 2])
REFUSAL = Fault("refusal", reply=_refuse)
CONTENT_FILTER = Fault("content filter", reply=_filter)


def every(k: int, fault: Fault) -> Faults:
    """Make each k-th request fail."""
    return lambda n, _payload: fault if n % k == 0 else None


def first(k: int, fault: Fault) -> Faults:
    """Make the first k requests fail."""
    return lambda n, _payload: fault if n <= k else None


def seeded(share: float, faults: Sequence[Fault], seed: int) -> Faults:
    """Make a share of the requests fail; the same numbers in every run, whatever order they are asked in."""

    def choose(n: int, _payload: Any) -> Fault | None:
        dice = random.Random(f"{seed}:{n}")
        return dice.choice(faults) if dice.random() < share else None

    return choose
