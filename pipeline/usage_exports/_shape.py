"""What a shape of export is, and how its values are read."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.errors import InputError
from pipeline.usage_exports._document import Document, results_of

FIGURES = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "usd")
"""What is compared: numbers of one UTC day and model."""

_SLASHED = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})")
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
"""A decimal comma is none: 0,75 must not become 75, nor 0,750."""
_EITHER = re.compile(r"-?\d{1,3},\d{3}")
"""Thousands, or three decimals after a comma."""
_TOO_LONG = 18
"""Digits before the point of what no provider counts or bills."""
_EPOCH = re.compile(r"\d{9,11}(\.0*)?")


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What a provider says about one UTC day and one model; None: this line doesn't say."""

    day: date
    model: str | None
    """None: all models together."""
    requests: int | None = None
    input_tokens: int | None = None
    """Cached ones and those written to the cache included."""
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a shape reads out of a document."""

    lines: Sequence[UsageLine]
    days: frozenset[date] = frozenset()
    """Days that are covered beside those of the lines."""
    notes: Sequence[str] = field(default=())


Matches = Callable[[Document, Mapping[str, str]], bool]
Reads = Callable[[Document, Mapping[str, str]], Found]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of file that one vendor exports."""

    name: str
    provider: str | None
    wants: str
    """What makes a file one of these, for the message about a file that is none."""
    matches: Matches
    read: Reads


def has_columns(names: frozenset[str]) -> Matches:
    """Return a test for a CSV that has all these columns."""
    return lambda document, _: names <= set(document.header)


def has_buckets(start: str) -> Matches:
    """Return a test for an admin API's pages whose buckets say under this key when they begin."""
    return lambda document, _: any(start in bucket for bucket in document.buckets)


LineOf = Callable[[Mapping[str, Any], date, Document], UsageLine | None]
"""Reads one result or row of a day; None: it is of another kind, or empty."""


def reads_pages(start: str, line_of: LineOf, kinds: str) -> Reads:
    """Return a reader of such pages. `kinds` names the results of other kinds, which are left out and noted."""

    def read(document: Document, _: Mapping[str, str]) -> Found:
        dated = [(day_of(bucket.get(start), document), results_of(bucket)) for bucket in document.buckets]
        lines = [line_of(result, day, document) for day, results in dated for result in results]
        kept = [line for line in lines if line is not None]
        notes = (*_cut_off(document), *_left_out(len(lines) - len(kept), kinds))
        return Found(kept, frozenset(day for day, _ in dated), notes)

    return read


def reads_rows(start: Callable[[Mapping[str, str]], str], line_of: LineOf) -> Reads:
    """Return a reader of a CSV; `start` tells the day of a row, which counts also where the row is empty."""

    def read(document: Document, _: Mapping[str, str]) -> Found:
        dated = [(day_of(start(row), at_line), row, at_line) for row, at_line in document.by_line()]
        lines = (line_of(row, day, at_line) for day, row, at_line in dated)
        return Found([line for line in lines if line is not None], frozenset(day for day, _, _ in dated))

    return read


def columns_text(names: Iterable[str]) -> str:
    """List columns for a message."""
    return f"columns {', '.join(sorted(names))}"


def day_of(value: Any, document: Document) -> date:
    """Read a UTC day: ISO date or time, YYYY/MM/DD, or epoch seconds. Raises InputError."""
    text = str(value).strip()
    try:
        if _EPOCH.fullmatch(text):
            return datetime.fromtimestamp(int(text.partition(".")[0]), UTC).date()
        if slashed := _SLASHED.fullmatch(text):
            return date(int(slashed[1]), int(slashed[2]), int(slashed[3]))
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{document.place}: {text!r} is no day; wanted: 2026-11-23, a time, or epoch seconds"
        ) from error
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()


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
    """Read a count; vendors also write `3.0`, and it has no decimals after a comma. Raises InputError."""
    number = _number(value, document)
    if number is not None and number != number.to_integral_value():
        raise InputError(f"{document.place}: {str(value)!r} is no whole number")
    return None if number is None else int(number)


def _number(value: Any, document: Document) -> Decimal | None:
    text = _bare(value)
    if not text:
        return None
    try:
        number = Decimal(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number.adjusted() >= _TOO_LONG:
        advice = "; write decimals after a point" if "," in text else ""
        raise InputError(f"{document.place}: {str(value)!r} is no number{advice}")
    return number


def _bare(value: Any) -> str:
    return "" if value is None else str(value).replace("$", "").strip()


def check_currency(value: Any, document: Document) -> None:
    """Raise InputError for money that isn't US dollars."""
    if value and str(value).strip().lower() != "usd":
        raise InputError(f"{document.place}: amounts in {value}; the ledger knows US dollars only")


def model_of(value: Any) -> str | None:
    """Read a model's name; None where the file is not grouped by model."""
    return str(value).strip() or None if value is not None else None


def _cut_off(document: Document) -> list[str]:
    """Return a note if the file's last page says that more follow."""
    if document.pages and all(page.get("has_more") is True for page in document.pages):
        return [f"{document.path}: its last page says has_more: days are missing; fetch the next pages too"]
    return []


def _left_out(results: int, kinds: str) -> list[str]:
    """Return a note about results that are no chat usage."""
    return [f"{results:,} results of other kinds are left out ({kinds})"] if results else []
