"""JSON Lines: one JSON object a line, values exactly as they stand there. Blank lines are not rows.

Not Polars' `scan_ndjson`, which settles on one type per column, drops late columns and names no line.
"""

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.sources._formats import Broken, Chunk, Item, Passed
from pipeline.sources._lines import read_lines

if TYPE_CHECKING:
    from pipeline.sources._where import Where

ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")
MARK = ":"
schema = stored = None
"""See `Format`: JSON has no types of its own."""

_MANY_DIGITS = re.compile(r"[0-9]{19}")
_LARGEST_EXACT = 2.0**63
_KINDS = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"}


def stream(file: Path, where: "Where | None", passed: Passed | None = None) -> Generator[Chunk, None, int]:
    """See `Format.stream`. A filter is shown passed rows too: what it takes a column for depends on the rows before."""
    number = rows = 0
    unread = passed if where is None else None
    for lines, share in read_lines(file, filtered=where is not None):
        if unread is not None and unread.all_of(rows, len(lines)):
            number += len(lines)
            rows += sum(1 for line in lines if not _is_blank(line))
            continue
        items: list[Item] = []
        for line in lines:
            number += 1
            if unread is not None and unread.has(rows) and not _is_blank(line):
                rows += 1
                continue
            values = _read(line)
            if values is not None:
                items.append((rows, number, values))
                rows += 1
        if where is not None:
            items = _selected(items, where, file, passed)
        if items:
            yield Chunk(items, share)
    return rows


def opaque(_: Path) -> Sequence[str]:
    """See `Format.opaque`: JSON has no bytes."""
    return ()


def _is_blank(line: bytes | str) -> bool:
    return not _bytes(line).strip()


def _selected(items: list[Item], where: "Where", file: Path, passed: Passed | None) -> list[Item]:
    """Broken lines stay: a filter that can't be asked about them must not hide them."""
    where.learn([values for _, _, values in items if not isinstance(values, Broken)])
    if passed is not None:
        items = [item for item in items if not passed.has(item[0])]
    asked = [values for _, _, values in items if not isinstance(values, Broken)]
    if not asked:
        return items
    kept = iter(where.select(asked, f"{file}, lines {items[0][1]} to {items[-1][1]}"))
    return [item for item in items if isinstance(item[2], Broken) or next(kept)]


def _read(line: bytes | str) -> Mapping[str, Any] | Broken | None:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raw = _bytes(line)
        return _broken(raw, _complaint(raw, error)) if raw.strip() else None
    if type(values) is not dict:
        found = _KINDS.get(type(values), "null")
        return _broken(_bytes(line), f"is JSON but not an object (it is {found})")
    for value in values.values():
        kind = type(value)
        if kind is dict or kind is list or (kind is float and not -_LARGEST_EXACT < value < _LARGEST_EXACT):
            return _with_exact_integers(line, values)
    return values


def _with_exact_integers(line: bytes | str, values: dict[str, Any]) -> Mapping[str, Any] | Broken:
    """Read again if need be: orjson turns integers beyond 64 bits into floats, the standard library doesn't."""
    text = line if isinstance(line, str) else line.decode()
    if not _MANY_DIGITS.search(text):
        return values
    try:
        exact: dict[str, Any] = json.loads(text)
    except RecursionError:
        return _broken(_bytes(line), "is nested too deeply for its long numbers to be read exactly")
    return exact


def _complaint(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        return f"is not UTF-8 at byte {wrong.start + 1} of the line"
    if "surrogate" in error.msg and "\\u" in text:
        return f"holds half of a surrogate pair (such as \\ud83d) at column {error.colno}, which is not text"
    return f"is not JSON: {error.msg.partition(': line ')[0]} at column {error.colno}"


def _broken(raw: bytes, problem: str) -> Broken:
    return Broken(problem, hashlib.blake2b(raw.removesuffix(b"\r"), digest_size=16).hexdigest())


def _bytes(line: bytes | str) -> bytes:
    return line if isinstance(line, bytes) else line.encode()
