"""Text for people. A stranger's is made fit for a terminal or a log: nothing in it moves the cursor or turns words."""

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_SHOWN = {"\n": "\u21b5", "\t": " "}
_HARMFUL = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What nobody sees though its category is a letter's, a mark's or a symbol's: the rest of Unicode's
Default_Ignorable_Code_Point, and the Braille pattern without dots."""
_OF_EMOJI = "\ufe0e\ufe0f"
"""Whether the sign before it is drawn as a picture: part of ordinary text, but after a letter, or in a row, a hiding
place."""
_DRAWN = frozenset("0123456789#*\u2139")
"""What has such pictures, apart from symbols and punctuation."""
_SUSPECT = re.compile(r"[^\x20-\x7e]")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def printable(text: str) -> str:
    """Replace control characters (terminal escapes among them) and line breaks by visible ones: one line."""
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
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
    return "\ufffd" if _is_harmful(match) else character


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\n" or not _is_harmful(match):  # the line breaks are the indentation's
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _is_harmful(match: re.Match[str]) -> bool:
    character, at = match.group(), match.start()
    if _UNSEEN.match(character):
        before, behind = match.string[at - 1 : at] if at else "", match.string[at + 1 : at + 2]
        return not _belongs(character, before, behind)
    return unicodedata.category(character) in _HARMFUL


def _belongs(character: str, before: str, behind: str) -> bool:
    """Tell whether such a character is part of ordinary text, by what stands beside it."""
    if not before:
        return False
    if character in _OF_EMOJI:
        return _is_drawn(before)
    if character == "\u2800":  # the space of Braille
        return "\u2800" < before <= "\u28ff" or "\u2800" < behind <= "\u28ff"
    if "\u180b" <= character <= "\u180d":
        return "\u1820" <= before <= "\u18af"  # Mongolian
    # How a Chinese or Japanese character is written, as in names.
    return "\U000e0100" <= character <= "\U000e01ef" and "CJK" in unicodedata.name(before, "")


def _is_drawn(character: str) -> bool:
    is_sign = unicodedata.category(character)[0] in "SP" and not _UNSEEN.match(character)
    return is_sign or character in _DRAWN
