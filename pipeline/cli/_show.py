"""Values for people: tables, money, counts. Control characters in data never reach a terminal raw.

Everything that a command prints goes through `say`, a table or JSON; nothing here or elsewhere echoes data itself.
"""

import math
import os
import select
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TextIO

import click

from pipeline.budget import dollars
from pipeline.errors import Pause
from pipeline.text import json_text, printable, printable_lines

_WIDEST, _NARROWEST = 60, 8
"""How long a text in a column may get in a terminal, and to how much of it a narrow one cuts it."""
_LINE = 120
"""How long a line of a table with chosen columns gets where there is no terminal to ask."""


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people: results to stdout, the rest (`err`) to stderr, if anybody listens there."""
    try:
        click.echo(printable_lines(text), err=err)
    except OSError:
        if not err:
            raise


def rewrites(stream: TextIO) -> bool:
    """Tell whether what a stream shows can be written over: not in a file, nor in a terminal that only goes on."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def takes_text(stream: TextIO) -> bool:
    """Tell whether a stream would take a few lines now.

    A pipe that nobody reads is full some time; a write would then hold a whole run up.
    """
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError, AttributeError):  # no file, or no such call on this platform
        return True
    return bool(poll.poll(0))


def money(amount: Decimal | None) -> str:
    """Dollars with all their digits but no idle zeros; at least two decimals; `unknown` for None."""
    if amount is None:
        return "unknown"
    return dollars(amount)


def plural(count: int, noun: str) -> str:
    """Return `1 request`, `2 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def status_counts(statuses: Mapping[str, int]) -> str:
    """Return `38 ok, 1 failed, 1 pending`: what went well first, what is left last."""
    ends = {"ok": 0, "pending": 2}
    ordered = sorted(statuses.items(), key=lambda item: (ends.get(item[0], 1), item[0]))
    return ", ".join(f"{count:,} {status}" for status, count in ordered if count)


def cell(value: Any) -> str:
    """Return one value of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | dict):
        return as_json_text(value, indent=None)
    return printable(str(value))


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, whole: Collection[str] = ()) -> str:
    """Lay rows out in columns: numbers right, text left; in a terminal long texts are cut with an ellipsis.

    A number is never cut, for a part of it would be another number, and nor are the columns named `whole`.
    """
    if not rows:
        return "(no rows)"
    numeric = [all(isinstance(r[c], int | float | Decimal | None) for r in rows) for c in columns]
    texts = [[cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(printable(column)), *(len(line[i]) for line in texts)) for i, column in enumerate(columns)]
    if sys.stdout.isatty():
        firm = [right or column in whole for column, right in zip(columns, numeric, strict=True)]
        widths = _fitted(widths, firm, shutil.get_terminal_size().columns)
    head = "  ".join(_cut(printable(column), width).ljust(width) for column, width in zip(columns, widths, strict=True))
    rule = "  ".join("-" * width for width in widths)
    body = [
        "  ".join(
            _cut(text, width).rjust(width) if right else _cut(text, width).ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in texts
    ]
    return "\n".join([head.rstrip(), rule, *body])


def _fitted(widths: Sequence[int], firm: Sequence[bool], terminal: int) -> list[int]:
    """Shrink the widest columns that are not firm until the line fits."""
    fitted = [width if stays else min(width, _WIDEST) for width, stays in zip(widths, firm, strict=True)]
    texts = [number for number, stays in enumerate(firm) if not stays]
    while texts and sum(fitted) + 2 * (len(fitted) - 1) > terminal:
        widest = max(texts, key=fitted.__getitem__)
        if fitted[widest] <= _NARROWEST:
            break
        fitted[widest] -= 1
    return fitted


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"


def width() -> int:
    """Return how long a line may get."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _LINE


def print_chosen(
    rows: Sequence[Mapping[str, Any]],
    headings: Mapping[str, str],
    *,
    always: Sequence[str],
    kept: Sequence[str],
    zeros: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """Print a table of the columns that say something, and of these as many as fit: --json has them all.

    Columns in `always` stay, also when they are empty or zero. Where the line gets too long, columns that are not in
    `kept` go first, then those in `kept` from its end. Of `zeros` a zero says something; `whole` is never cut.
    """
    said = [name for name in headings if name in (*always, *zeros) or any(row[name] for row in rows)]
    order = [*always, *dict.fromkeys(name for name in (*kept, *said) if name in said and name not in always)]
    while len(order) > len(always) and _line_width(order, headings, rows) > width():
        order.pop()
    shown = [name for name in said if name in order]
    lines = [{headings[name]: row[name] for name in shown} for row in rows]
    click.echo(table([headings[name] for name in shown], lines, whole={headings[name] for name in whole}))
    left_out = [headings[name] for name in said if name not in order]
    if left_out:
        say(f"No room for: {', '.join(left_out)}. --json has them.", err=True)


def _line_width(names: Sequence[str], headings: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> int:
    widths = (min(_WIDEST, max([len(headings[n]), *(len(cell(row[n])) for row in rows)])) for n in names)
    return sum(widths) + 2 * (len(names) - 1)


def as_json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return JSON: money as exact decimal strings, times in ISO form, and null for what is no number."""
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    try:
        return json_text(value, _json_value, indent=indent, only_ascii=not unicode)
    except (ValueError, TypeError):  # somewhere in it is a float that JSON has no number for, or a key that is no text
        return json_text(_numbers(value), _json_value, indent=indent, only_ascii=not unicode)


def _json_value(value: Any) -> Any:
    from pipeline.exporting import json_value

    return json_value(value)


def _key(name: Any) -> str | int | bool | None:
    """Return a key as JSON may have it: a map of the ledger's may have any."""
    return name if isinstance(name, str | int | None) else str(_json_value(name))


def _numbers(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(name): _numbers(each) for name, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list | tuple) else value


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print a table, or the same as one JSON array."""
    if as_json:
        chosen = [{column: row[column] for column in columns} for row in rows]
        click.echo(as_json_text(chosen))
    else:
        click.echo(table(columns, rows))


def pause_facts(paused: Pause | None) -> dict[str, str | None]:
    """Return why a run paused as JSON says it: for people, and for programs."""
    return {"paused": None, "pause_kind": None} if paused is None else {"paused": paused.why, "pause_kind": paused.kind}


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print names and values, one per line, or one JSON object."""
    if as_json:
        click.echo(as_json_text(dict(facts)))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        say(f"{name.ljust(width)}  {cell(value)}")
