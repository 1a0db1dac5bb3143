"""A file as it is: pages of JSON, or a header and rows. Numbers stay as they are written."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

_DELIMITERS = (",", "\t", ";")
_KEYS_TOLD = 12


@dataclass(frozen=True, slots=True)
class Document:
    """Either `delimiter`, `header` and `rows` (CSV) or `pages` and `buckets` (JSON) are filled."""

    path: Path
    digest: str
    """Equal for files that hold the same text."""
    delimiter: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """The cells of those that aren't empty."""
    pages: tuple[Mapping[str, Any], ...] = ()
    """What an admin API answered, one object with `data` per page."""
    buckets: tuple[Mapping[str, Any], ...] = ()
    """The pages' `data`, or the buckets that stand in the file by themselves."""
    lines: tuple[int, ...] = ()
    """Of a CSV: the line on which each row ends, from 1."""
    line: int | None = None
    """The line that is being read, for a message."""

    @property
    def place(self) -> str:
        """Where something is wrong."""
        return str(self.path) if self.line is None else f"{self.path}, line {self.line:,}"

    def by_line(self) -> Iterator[tuple[Mapping[str, str], "Document"]]:
        """List the rows of a CSV, each with this document at its line.

        Raises InputError for a row that hasn't as many cells as the header, as when a comma stands inside a number.
        """
        for cells, line in zip(self.rows, self.lines, strict=True):
            at_line = replace(self, line=line)
            more = any(cell.strip() for cell in cells[len(self.header) :])
            if more or len(cells) < len(self.header):
                advice = f"put quotes around a cell that holds a {self.delimiter!r}" if more else "export it again"
                said = f"{len(cells):,} cells under {len(self.header):,} columns"
                raise InputError(f"{at_line.place}: {said}; {advice}")
            yield dict(zip(self.header, cells, strict=False)), at_line

    @property
    def keys(self) -> str:
        """What is in a JSON file, for a message."""
        names = dict.fromkeys(chain.from_iterable([*self.pages, *self.buckets, *self.results()]))
        return f"JSON with the keys {', '.join(list(names)[:_KEYS_TOLD])}" if names else "nothing"

    def results(self) -> Iterator[Mapping[str, Any]]:
        """List the results of all buckets."""
        return (result for bucket in self.buckets for result in results_of(bucket))


def results_of(bucket: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List a bucket's results; OpenAI's reference has spelt the key both ways."""
    found = bucket.get("results", bucket.get("result"))
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def read_document(path: Path) -> Document:
    """Read a file. Raises InputError if it is missing, not UTF-8, or broken JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; export it as CSV or JSON") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    read = _json if text.lstrip()[:1] in {"{", "["} else _csv
    return read(path, sha256(text.encode()).hexdigest(), text)


def _json(path: Path, digest: str, text: str) -> Document:
    """Read one page, a list of pages or of buckets, or several of these one after the other."""
    pages: list[Mapping[str, Any]] = []
    buckets: list[Mapping[str, Any]] = []
    for value in _values(path, text):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and isinstance(one.get("data"), list):
                pages.append(one)
                buckets += [bucket for bucket in one["data"] if isinstance(bucket, dict)]
            elif isinstance(one, dict):
                buckets.append(one)
    return Document(path, digest, pages=tuple(pages), buckets=tuple(buckets))


def _values(path: Path, text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_float=Decimal)
    at = 0
    while (at := _after_space(text, at)) < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is broken JSON ({error}); export it again") from error
        yield value


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _csv(path: Path, digest: str, text: str) -> Document:
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        table = [(tuple(cells), reader.line_num) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path} is a broken CSV ({error}); export it again") from error
    if not table:
        raise InputError(f"{path} is empty")
    header = _trimmed(table[0][0])
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{path} has several columns called {twice[0]!r}; rename or remove all but one")
    rows, lines = tuple(cells for cells, _ in table[1:]), tuple(line for _, line in table[1:])
    return Document(path, digest, delimiter, header, rows, lines=lines)


def _trimmed(names: Sequence[str]) -> tuple[str, ...]:
    """Return a header without the empty names behind its last one."""
    filled = [number for number, name in enumerate(names, 1) if name.strip()]
    return tuple(name.strip() for name in names[: filled[-1]])
