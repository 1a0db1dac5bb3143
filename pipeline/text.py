"""Text for people. A stranger's is made fit for a terminal or a log: nothing in it moves the cursor or turns words."""

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_SHOWN = {"\n": "\u21b5", "\t": " "}
_HARMFUL = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def printable(text: str) -> str:
    """Replace control characters (terminal escapes among them) and line breaks by visible ones: one line."""
    if text.isprintable():
        return text
    return _SUSPECT.sub(_visible, text)


def printable_lines(text: str) -> str:
    """Do the same line by line: for messages that have several."""
    return "\n".join(printable(line) for line in text.split("\n"))


def decimal_text(value: Decimal) -> str:
    """Write out all digits of a number: Python writes small ones with an exponent (`0E-10`)."""
    return f"{value:f}"


def duration(seconds: float | None) -> str:
    """Say whole seconds as people do."""
    if seconds is None:
        return "unknown"
    left = round(seconds)
    if left < _MINUTE:
        return f"{left} s"
    if left < _HOUR:
        return f"{left // _MINUTE} min {left % _MINUTE:02d} s"
    if left < _DAY:
        return f"{left // _HOUR} h {left % _HOUR // _MINUTE:02d} min"
    return f"{left // _DAY} d {left % _DAY // _HOUR} h"


class PlainDecimal(Decimal):
    """A number that prints so."""

    __slots__ = ()

    def __str__(self) -> str:
        return decimal_text(self)


def json_text(value: Any, default: Callable[[Any], Any], *, indent: int | None = None, only_ascii: bool = False) -> str:
    """Return JSON in which such characters stand as escapes: exact for a program, harmless on a screen.

    Raises ValueError where a float is no number.
    """
    text = json.dumps(value, default=default, indent=indent, ensure_ascii=only_ascii, allow_nan=False)
    # What json leaves raw outside ASCII, and DEL, can only stand inside of strings.
    return _SUSPECT.sub(_escaped, text)


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHOWN:
        return _SHOWN[character]
    return "\ufffd" if _is_harmful(character) else character


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\n" or not _is_harmful(character):  # the line breaks are the indentation's
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL
