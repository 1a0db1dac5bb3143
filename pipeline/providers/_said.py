"""What an error body says, in whatever shape: OpenAI, OpenRouter, vLLM, ModelsLab, FastAPI, plain text, HTML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.providers._json import UNREADABLE, load, unwrapped
from pipeline.providers._redact import LONGEST_TEXT, cut
from pipeline.records import WireReply


@dataclass(frozen=True, slots=True)
class Said:
    """The parts of an error that mean something; absent ones are None, "" or False."""

    code: str | None = None
    kind: str | None = None
    """The error's `type`."""
    message: str = ""
    status: int | None = None
    """An HTTP status given inside the body."""
    param: str | None = None
    flagged: bool = False
    """A moderation service named reasons."""
    upstream: str = ""
    """The end of the message that a provider behind this one said, of an account that is not ours."""

    @property
    def own_message(self) -> str:
        """Return the message without that."""
        return self.message.removesuffix(self.upstream)


def said_by(body: Any, reply: WireReply) -> Said:
    """Read a parsed body, or the raw text where it is not JSON."""
    if body is UNREADABLE:
        return Said(message=_text_of(reply))
    body = unwrapped(body)
    if not isinstance(body, dict):
        return Said(message=body if isinstance(body, str) else "")
    error = body.get("error")
    if isinstance(error, dict):
        return _parts_of(error)
    if isinstance(error, str) and error:
        return replace(_parts_of(body), message=error)
    return _parts_of(body)


def _upstream(metadata: Mapping[str, Any]) -> str:
    """Read what OpenRouter passes on of the provider behind it: its own message is the same for all that goes wrong.

    Only the words: a code is of an account that is not ours.
    """
    raw = metadata.get("raw")
    if not isinstance(raw, str):
        return ""
    body = load(raw.encode("utf-8", "replace"))
    if not isinstance(body, dict):
        return raw.strip()
    inner = body.get("error")
    return inner if isinstance(inner, str) else _message_of(_mapping(inner) or body) or raw.strip()


def _parts_of(error: Mapping[str, Any]) -> Said:
    details, metadata = _mapping(error.get("details")), _mapping(error.get("metadata"))
    code = details.get("error_code") or details.get("code") or error.get("code")
    kind, param = error.get("type"), error.get("param")
    upstream = _upstream(metadata)
    message = ": ".join(filter(None, (_message_of(error), upstream)))
    return Said(
        code=code if isinstance(code, str) and code and not code.isdigit() else _reason(error.get("details")),
        kind=kind if isinstance(kind, str) and kind and kind != "error" else None,
        message=message,
        status=_status_of(code),
        param=param if isinstance(param, str) else None,
        flagged=bool(metadata.get("reasons") or metadata.get("flagged_input")),
        upstream=upstream,
    )


def _reason(details: Any) -> str | None:
    """Read Google's own code, which stands among the details: its `code` is but the status."""
    for part in map(_mapping, details if isinstance(details, list) else ()):
        reason = part.get("reason")
        if part.get("@type") == "type.googleapis.com/google.rpc.ErrorInfo" and isinstance(reason, str) and reason:
            return reason
    return None


def _message_of(error: Mapping[str, Any]) -> str:
    for name in ("message", "messege", "detail", "msg", "error_description"):  # `messege`: ModelsLab, at times
        value = error.get(name)
        if isinstance(value, list) and value:  # FastAPI lists what it found
            value = _mapping(value[0]).get("msg")
        if isinstance(value, str) and value:
            return value
    return ""


def _status_of(code: Any) -> int | None:
    if isinstance(code, str) and re.fullmatch(r"[45]\d\d", code, re.ASCII):
        return int(code)
    is_status = type(code) is int and 400 <= code < 600  # noqa: PLR2004 (error statuses)
    return code if is_status else None


def _text_of(reply: WireReply) -> str:
    text = cut(reply.body[: 4 * LONGEST_TEXT].decode("utf-8", "replace")).strip()
    if not text.startswith("<"):
        # Half of an answer is not for a message.
        return text if reply.status >= 300 else "the answer is not JSON"  # noqa: PLR2004
    title = re.search(r"<title[^<>]*>([^<]*)", text, re.IGNORECASE)
    return title.group(1) if title else re.sub(r"<[^<>]*>", " ", text)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
