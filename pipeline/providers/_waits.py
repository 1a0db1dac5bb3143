"""How long a server asked us to wait, in the many ways servers say it."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from pipeline.providers._json import unwrapped

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?(h|ms|m|s|us|µs|μs|ns))+", re.ASCII)
_PIECE = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_IN_WORDS = re.compile(
    r"(?<![\"'\w])(?:retry|try again) in ((?:\d+(?:\.\d+)?(?:h|ms|m|s)){1,4})\b", re.ASCII | re.IGNORECASE
)
"""Not where a quotation begins: an error may quote the row's text."""
_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}

_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11
_LONGEST = 366 * 86400.0
"""A longer wait is a misunderstanding, not a wait."""
_CLOCKS_AGREE = 2.0
"""Seconds between the server's clock and ours that are nothing: a `date` has whole seconds, and was on its way."""


def parse_wait(text: str, now: float, date: str = "") -> float | None:
    """Seconds from `now` (epoch seconds) that a header's text means, at least 0; None if it can't be read.

    A number is seconds, epoch seconds (from 1e9) or epoch milliseconds (from 1e11); else a Go duration
    (`1h30m`, `120ms`), an RFC 3339 time or an HTTP date. A time is the server's: if the answer's own `date` says that
    our clock is another, that is what it is held against.
    """
    text = text.strip()[:100]
    seconds = _seconds(text, now, date)
    if seconds is None or not math.isfinite(seconds) or seconds > _LONGEST:
        return None
    return max(seconds, 0.0)


def wait_from(headers: Mapping[str, str], body: Any, now: float, words: str = "") -> float | None:
    """Seconds the server asked for, from lower-case headers and parsed body; None if it named no wait.

    `retry-after-ms` wins over `retry-after`, which wins over `retry_after` and Google's `retryDelay` in the body; else
    the later reset of the limits of which nothing remains; else what the message says (`words`).
    """
    body = unwrapped(body)
    candidates = (
        _milliseconds(headers.get("retry-after-ms")),
        parse_wait(headers.get("retry-after", ""), now, headers.get("date", "")),
        _body_wait(body, now, headers.get("date", "")),
    )
    for wait in candidates:
        if wait is not None:
            return wait
    for wait in (_reset_wait(headers, now), _reset_wait(_inner_headers(body), now)):
        if wait is not None:
            return wait
    said = _IN_WORDS.search(words)
    return None if said is None else parse_wait(said[1], now)


def _inner_headers(body: Any) -> dict[str, str]:
    """Return the headers that OpenRouter puts into the body of an error."""
    error = body.get("error") if isinstance(body, dict) else None
    metadata = error.get("metadata") if isinstance(error, dict) else None
    headers = metadata.get("headers") if isinstance(metadata, dict) else None
    return {name.lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}


def _seconds(text: str, now: float, date: str) -> float | None:
    seconds, is_moment = _read(text)
    return seconds - _servers(now, date) if is_moment and seconds is not None else seconds


@lru_cache(maxsize=512)
def _read(text: str) -> tuple[float | None, bool]:
    """Return seconds, and whether they are a moment's; answers within their limits name few different ones."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number < _EPOCH_SECONDS:
            return number, False
        return number if number < _EPOCH_MILLISECONDS else number / 1000, True
    if _DURATION.fullmatch(text):
        total = sum(float(amount) * _UNIT[unit] for amount, unit in _PIECE.findall(text))
        return -total if text.startswith("-") else total, False
    return _moment(text), True


def _servers(now: float, date: str) -> float:
    """Return what the server's clock shows."""
    there = _date(date)
    return now if there is None or abs(there - now) <= _CLOCKS_AGREE else there


@lru_cache(maxsize=16)
def _date(text: str) -> float | None:
    return _moment(text[:100])


def _moment(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            when = read(text)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _milliseconds(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    seconds = float(text) / 1000
    return max(seconds, 0.0) if seconds <= _LONGEST else None


def _body_wait(body: Any, now: float, date: str) -> float | None:
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    for holder in (body, error, *(details if isinstance(details, list) else ())):
        value = holder.get("retry_after", holder.get("retryDelay")) if isinstance(holder, dict) else None
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            wait = parse_wait(str(value), now, date)
            if wait is not None:
                return wait
    return None


def _reset_wait(headers: Mapping[str, str], now: float) -> float | None:
    waits = [
        parse_wait(headers.get(f"x-ratelimit-reset{of}", ""), now, headers.get("date", ""))
        for of in ("", "-requests", "-tokens")
        if _exhausted(headers.get(f"x-ratelimit-remaining{of}"), headers.get(f"x-ratelimit-limit{of}"))
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _exhausted(remaining: str | None, limit: str | None) -> bool:
    if remaining is None or limit == "-1":  # Azure's way to say "no such limit"
        return False
    return bool(_NUMBER.fullmatch(remaining)) and float(remaining) <= 0  # a negative number was seen
