"""How an export's values are read: moments, counts, numbers, models. What may be read in two ways is refused."""

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from pipeline.errors import InputError
from pipeline.usage_exports._document import Document

Span = tuple[datetime, datetime]
"""From a moment up to another, within one UTC day."""
A_DAY, A_SECOND = timedelta(days=1), timedelta(seconds=1)

_SLASHED = re.compile(r"(2[0-9]{3})/([0-9]{1,2})/([0-9]{1,2})")
_ISO = re.compile(r"2[0-9]{3}(-[0-9]{2}-[0-9]{2}|[0-9]{4})([T ][ -~]+)?")
"""A week (`2026-W47`) is no day, though Python takes it for its Monday."""
_LOCAL_MIDNIGHT = re.compile(r"[T ]00:00(:00(\.0+)?)? ?[-+][0-9]{2}:?[0-9]{2}$")
"""A day's beginning in a time zone of its own."""
_EPOCH = re.compile(r"[0-9]{9,11}(\.0*)?")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")
"""A decimal comma is none: 0,75 must not become 75, nor 0,750."""
_EITHER = re.compile(r"-?[0-9]{1,3},[0-9]{3}")
"""Thousands, or three decimals after a comma."""
_TOO_LONG = 18
"""Digits before the point of what no provider counts or bills."""
_AS_FIGURE = re.compile(
    r"[-+(]?[$€£¥]? ?[-+]?[.,]?[0-9][0-9.,]*(e[-+]?[0-9]+)?\)?( ?[$€£¥%]| [a-z]{3})?", re.IGNORECASE
)
"""Also money that is refused where dollars are wanted."""


def moment_of(value: Any, document: Document) -> datetime:
    """Read a moment: ISO date or time, YYYY/MM/DD, or epoch seconds; UTC where nothing is said. Raises InputError."""
    text = str(value).strip()
    try:
        return _moment(text)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{document.place}: {text!r} is no day; wanted: 2026-11-23, a time, or epoch seconds"
        ) from error


def _moment(text: str) -> datetime:
    if _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(int(text.partition(".")[0]), UTC)
    if slashed := _SLASHED.fullmatch(text):
        return datetime(int(slashed[1]), int(slashed[2]), int(slashed[3]), tzinfo=UTC)
    if not _ISO.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def span_of(start: Any, end: Any, document: Document) -> Span:
    """Read from when to when a bucket goes; without an end it is its whole day.

    Raises InputError for one that is of several days: nobody knows what of it was on which.
    """
    first = moment_of(start, document)
    midnight = midnight_before(first)
    if end is None or not str(end).strip():
        if first != midnight and _LOCAL_MIDNIGHT.search(str(start).strip()):
            raise InputError(
                f"{document.place}: a day that begins at {first:%Y-%m-%d %H:%M} UTC isn't one of UTC;"
                " export by UTC days"
            )
        return midnight, midnight + A_DAY
    last = moment_of(end, document)
    if last == midnight + A_DAY - A_SECOND:  # an end that is the last second of the bucket
        last += A_SECOND
    if not first < last <= midnight + A_DAY:
        raise InputError(
            f"{document.place}: a bucket from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC isn't of one UTC day;"
            " export by day (bucket_width=1d)"
        )
    return first, last


def midnight_before(moment: datetime) -> datetime:
    """Return when the UTC day of a moment begins."""
    return datetime.combine(moment.date(), time(), UTC)


def day_of(span: Span) -> date:
    """Return the UTC day a bucket is of."""
    return span[0].date()


def number_of(value: Any, document: Document) -> Decimal | None:
    """Read a number as it is written, `$` and thousands separators apart; None for an empty cell.

    Raises InputError, also for a comma that may be either: where commas don't separate the columns, they are decimal
    ones in much of the world.
    """
    number = _number(value, document)
    if number is not None and document.delimiter not in {"", ","} and _EITHER.fullmatch(_bare(value)):
        point, none = _bare(value).replace(",", "."), _bare(value).replace(",", "")
        raise InputError(f"{document.place}: {str(value)!r} may be {point} or {none}; write it without the comma")
    return number


def count_of(value: Any, document: Document) -> int | None:
    """Read a count; vendors also write `3.0`, and it has no decimals after a comma. Raises InputError.

    Only dollars can be given back: a negative count would hide as much of another one.
    """
    number = _number(value, document)
    if number is None:
        return None
    if number != number.to_integral_value():
        raise InputError(f"{document.place}: {str(value)!r} is no whole number")
    if number < 0:
        raise InputError(f"{document.place}: {str(value)!r} is less than nothing; only dollars can be")
    return int(number)


def is_figure(value: Any) -> bool:
    """Tell whether this is a number, other than zero, of whatever unit."""
    text = "" if isinstance(value, bool) or value is None else str(value).strip()
    return bool(_AS_FIGURE.fullmatch(text)) and any(digit in text for digit in "123456789")


def check_currency(value: Any, document: Document) -> None:
    """Raise InputError for money that isn't US dollars."""
    if value and str(value).strip().lower() not in {"", "usd"}:
        raise InputError(f"{document.place}: amounts in {value}; the ledger knows US dollars only")


def model_of(value: Any) -> str | None:
    """Read a model's name; None where the file is not grouped by model."""
    return str(value).strip() or None if value is not None else None


def _number(value: Any, document: Document) -> Decimal | None:
    text = _bare(value)
    if not text:
        return None
    plain = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    number = Decimal(plain) if _NUMBER.fullmatch(plain) else None
    if number is None or not number.is_finite() or number.adjusted() >= _TOO_LONG:
        advice = "; write decimals after a point" if "," in text else ""
        raise InputError(f"{document.place}: {str(value)!r} is no number{advice}")
    return number


def _bare(value: Any) -> str:
    return "" if value is None else str(value).replace("$", "").strip()
