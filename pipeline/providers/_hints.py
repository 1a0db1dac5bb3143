"""What headers say about a server's limits, apart from how long to wait. Most answers say nothing, and cost little."""

from collections.abc import Mapping

from pipeline.providers._waits import parse_wait
from pipeline.records import Allowance, RateHint

_OPENAI = {
    of: (f"x-ratelimit-limit-{of}", f"x-ratelimit-remaining-{of}", f"x-ratelimit-reset-{of}")
    for of in ("requests", "tokens")
}


def rate_hint(headers: Mapping[str, str], now: float) -> RateHint | None:
    """Read the limits of requests and of tokens from lower-case headers; `now` is epoch seconds.

    A limit that is no positive number, or that comes without a reset, is no limit.
    """
    if "x-ratelimit-limit-requests" in headers or "x-ratelimit-limit-tokens" in headers:
        requests, tokens = _openai(headers, "requests", now), _openai(headers, "tokens", now)
    elif "anthropic-ratelimit-requests-limit" in headers or "anthropic-ratelimit-tokens-limit" in headers:
        requests = _anthropic(headers, "requests", now)
        # Both kinds together where both are limited: `tokens` is then whichever is scarcer, in its own unit.
        both = _sum(_anthropic(headers, "input-tokens", now), _anthropic(headers, "output-tokens", now))
        tokens = both or _anthropic(headers, "tokens", now)
    else:
        return None
    return None if requests is None and tokens is None else RateHint(requests, tokens)


def _openai(headers: Mapping[str, str], of: str, now: float) -> Allowance | None:
    return _allowance(headers, _OPENAI[of], now)


def _anthropic(headers: Mapping[str, str], of: str, now: float) -> Allowance | None:
    start = f"anthropic-ratelimit-{of}"
    return _allowance(headers, (f"{start}-limit", f"{start}-remaining", f"{start}-reset"), now)


def _allowance(headers: Mapping[str, str], names: tuple[str, str, str], now: float) -> Allowance | None:
    limit, remaining = _number(headers.get(names[0])), _number(headers.get(names[1]))
    reset = parse_wait(headers.get(names[2], ""), now, headers.get("date", ""))
    if limit is None or limit <= 0 or reset is None:  # Azure says -1 for "no such limit"
        return None
    return Allowance(limit, reset, remaining)


def _number(text: str | None) -> float | None:
    """Read a plain decimal number of a sensible size."""
    if text is None or len(text) > 20:  # noqa: PLR2004 -- longer than any limit
        return None
    if text.isascii() and text.isdecimal():  # nearly always
        return float(text)
    text = text.strip().removesuffix(".0")
    sign = -1 if text.startswith("-") else 1
    digits = text.removeprefix("-")
    return float(sign * int(digits)) if digits.isascii() and digits.isdecimal() else None


def _sum(one: Allowance | None, other: Allowance | None) -> Allowance | None:
    if one is None or other is None:
        return None
    known = one.remaining is not None and other.remaining is not None
    remaining = (one.remaining or 0.0) + (other.remaining or 0.0) if known else None
    return Allowance(one.limit + other.limit, max(one.reset_seconds, other.reset_seconds), remaining)
