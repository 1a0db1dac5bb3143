"""Reading JSON that somebody was paid for: what a strict parser refuses is mended before it is given up."""

import json
import math
import re
from typing import Any

import orjson

UNREADABLE = object()
"""Stands for a body that is not JSON (`None` is JSON)."""

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL
)
_LONE_SURROGATE_LENGTH = 6
_LARGEST = 2**63 - 1


def load(body: bytes) -> Any:
    """Parse a body; never raises. Everything in the result can be written as JSON in UTF-8 again.

    Servers written in Python send `NaN` among log probabilities, and half an emoji where an answer was cut. The answer
    was billed all the same, so such bodies are mended: null for NaN and for numbers out of range, U+FFFD for the rest.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = _ESCAPE.sub(_mend_escape, body.decode("utf-8-sig", "replace"))
        return json.loads(text, parse_constant=lambda _: None, parse_int=_whole, parse_float=_fraction)
    except (ValueError, RecursionError):
        return UNREADABLE


def unwrapped(body: Any) -> Any:
    """Return the error that Gemini wraps in a list; any other body as it is."""
    return body[0] if isinstance(body, list) and body else body


def _mend_escape(match: re.Match[str]) -> str:
    escape = match.group()
    lone = len(escape) == _LONE_SURROGATE_LENGTH and escape[1] == "u"
    return "\\ufffd" if lone else escape


def _whole(digits: str) -> int | None:
    number = int(digits) if len(digits) < 25 else _LARGEST + 1  # noqa: PLR2004 (more digits than any 64-bit number)
    return number if abs(number) <= _LARGEST else None


def _fraction(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
