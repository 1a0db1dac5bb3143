"""What a shape of export is, and how its results or rows are read: what is not compared is named, never dropped."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.usage_exports._document import Document, results_of
from pipeline.usage_exports._values import Span, day_of, is_figure, span_of

FIGURES = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "usd")
"""What is compared: numbers of one UTC day and model."""

_NO_FIGURE = re.compile(
    r"(.*[._ ])?(ids?|keys?|name|account|user|project|workspace|organi[sz]ation|team"
    r"|(time)?stamp|time|hour|day|date|month|utc|iso|at)",
    re.IGNORECASE,
)
"""Columns whose numbers say who or when."""

_UNNAMED = "a column without a name"


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

    @property
    def told(self) -> list[str]:
        """The figures that it has."""
        return [figure for figure in FIGURES if getattr(self, figure) is not None]

    @property
    def is_blank(self) -> bool:
        """Tell whether it only stands for a day without usage."""
        return self.model is None and not self.told


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of an admin API."""

    kinds: frozenset[str]
    """Of its results."""
    first: datetime
    """When its first bucket begins."""
    end: datetime
    """When its last one ends."""
    has_more: bool
    """Whether the vendor says that another follows."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a shape reads out of a document."""

    lines: Sequence[UsageLine]
    spans: frozenset[Span]
    """What the document speaks about, also where nothing was used."""
    notes: Sequence[str]
    pages: Sequence[Page] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """What a file says."""

    path: Path
    digest: str
    """Equal for files that hold the same."""
    shape: str
    """The shape's name, for people."""
    provider: str | None
    """Whose it is, by the name of our preset; None: a plain CSV doesn't say."""
    lines: Sequence[UsageLine]
    """In the file's order; several may be about the same day and model."""
    spans: frozenset[Span]
    """What the file speaks about, also where nothing was used."""
    notes: Sequence[str]
    """What is known to be missing from it, or is not compared."""
    pages: Sequence[Page]

    @property
    def days(self) -> set[date]:
        """The UTC days that it speaks about."""
        return set(map(day_of, self.spans))

    @property
    def figures(self) -> list[str]:
        """What it tells of any of them."""
        told = {figure for line in self.lines for figure in line.told}
        return [figure for figure in FIGURES if figure in told]


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


Said = Mapping[str, Any]
"""A row, or a result in which what is nested has both keys: `amount.value`."""
LineOf = Callable[[Said, date, Document], UsageLine]


@dataclass(frozen=True, slots=True)
class Kind:
    """Results or rows of one kind, and which of their keys are read."""

    name: str
    line_of: LineOf
    figures: Mapping[str, Sequence[str]]
    """The keys that hold each figure."""
    beside: frozenset[str] = frozenset()
    """Keys with numbers that are a part of a figure, or none at all."""
    is_one: Callable[[Said], bool] = lambda _: True
    """Tells results of this kind from others."""


def has_columns(names: frozenset[str]) -> Matches:
    """Return a test for a CSV that has all these columns."""
    return lambda document, _: names <= set(document.header)


def has_buckets(start: str) -> Matches:
    """Return a test for an admin API's pages whose buckets say under this key when they begin."""
    return lambda document, _: any(start in bucket for bucket in document.buckets)


def columns_text(names: Iterable[str]) -> str:
    """List columns for a message."""
    return f"columns {', '.join(sorted(names))}"


def reads_pages(start: str, end: str, kinds: Sequence[Kind], others: str) -> Reads:
    """Return a reader of such pages. `others` names the results of other kinds, which are left out and noted."""

    def read(document: Document, _: Mapping[str, str]) -> Found:
        spans = [span_of(bucket.get(start), bucket.get(end), document) for bucket in document.buckets]
        said = [
            (flat, day_of(span), document)
            for span, bucket in zip(spans, document.buckets, strict=True)
            for flat in map(_flat, results_of(bucket))
        ]
        known = [(kind, *one) for one in said if (kind := _kind_of(one[0], kinds))]
        lines, notes = _read(known, document)
        if len(known) < len(said):
            notes.append(f"{len(said) - len(known):,} results of other kinds are left out ({others})")
        return Found(lines, frozenset(spans), notes, _pages(document, start, end, kinds))

    return read


def reads_rows(kind: Kind, starts: Sequence[str], ends: Sequence[str] = ()) -> Reads:
    """Return a reader of a CSV. Of the columns that say when a row begins, or ends, the first that is filled counts."""

    def read(document: Document, _: Mapping[str, str]) -> Found:
        rows = list(document.by_line())
        spans = [span_of(_first_of(row, starts), _first_of(row, ends), at_line) for row, at_line in rows]
        said = [(kind, row, day_of(span), at_line) for span, (row, at_line) in zip(spans, rows, strict=True)]
        lines, notes = _read(said, document)
        return Found(lines, frozenset(spans), notes)

    return read


def _first_of(row: Said, names: Iterable[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _read(said: Iterable[tuple[Kind, Said, date, Document]], document: Document) -> tuple[list[UsageLine], list[str]]:
    """Return the lines, and notes on what they leave out."""
    read = [(kind, one, kind.line_of(one, day, place)) for kind, one, day, place in said]
    kinds = {kind.name: kind for kind, *_ in read}
    notes = [
        note
        for name, kind in kinds.items()
        for note in _notes(kind, [(one, line) for its, one, line in read if its.name == name], document)
    ]
    return [line for _, _, line in read if not line.is_blank], notes


def _notes(kind: Kind, read: Sequence[tuple[Said, UsageLine]], document: Document) -> Iterator[str]:
    used = kind.beside.union(*kind.figures.values())
    names = dict.fromkeys(name for one, _ in read for name in one)
    unread = [name for name in names if name not in used and not _NO_FIGURE.fullmatch(name)]
    if ignored := [name for name in unread if any(is_figure(one.get(name)) for one, _ in read)]:
        yield f"{document.path}: not compared: {', '.join(name or _UNNAMED for name in ignored)}"
    lines = [line for _, line in read if not line.is_blank]
    for figure, keys in kind.figures.items():
        empty = sum(getattr(line, figure) is None for line in lines)
        if empty and not names.keys().isdisjoint(keys):
            yield f"{document.path}: {figure} is empty in {empty:,} of {len(lines):,} {kind.name} lines"


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Bring what is nested to the top."""
    found: dict[str, Any] = {}
    for key, value in said.items():
        found |= {f"{key}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _kind_of(said: Said, kinds: Iterable[Kind]) -> Kind | None:
    return next((kind for kind in kinds if kind.is_one(said)), None)


def _pages(document: Document, start: str, end: str, kinds: Sequence[Kind]) -> list[Page]:
    """Return the pages that hold buckets."""
    pages = []
    for said in document.pages:
        buckets = [bucket for bucket in said["data"] if isinstance(bucket, dict)]
        spans = [span_of(bucket.get(start), bucket.get(end), document) for bucket in buckets]
        held = (_kind_of(_flat(result), kinds) for bucket in buckets for result in results_of(bucket))
        names = frozenset(kind.name for kind in held if kind)
        if spans:
            begins, ends = min(first for first, _ in spans), max(last for _, last in spans)
            pages.append(Page(names, begins, ends, said.get("has_more") is True))
    return pages
