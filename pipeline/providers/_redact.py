"""Making a stranger's words fit for a log: no secrets, no control characters, one short line."""

import html
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

HIDDEN = "[redacted]"

_SHORTEST_SECRET = 4
"""Shorter "keys" (`x`, `-`) protect nothing, and hiding them would garble every message."""

_SHORTEST_DATA_SECRET = 12
"""In an answer, which is paid for, shorter keys stay: those of local servers are words (`EMPTY`, `none`, `dummy`)."""
_SHORTEST_BEGINNING = 6
_MOST_BACKSLASHES = 4
"""Before one character: of JSON in JSON in a text."""
_BACKSLASHES = rf"\\{{1,{_MOST_BACKSLASHES}}}"

LONGEST_NAME = 200
"""Characters of a model's name, a request's id, a reason to stop."""
LONGEST_TEXT = 20_000
"""Characters of a stranger's text that are looked at."""

_LABELLED = re.compile(
    r"""(
      \b bearer \s | \b provided: \s                                # "Incorrect API key provided: ..."
    | \b (?: api [_ -]? key | token | secret | password ) ["']? \s? [:=] \s? ["']?
    | ["'] key ["'] \s? : \s? ["']                                  # an echo of a body that held the key
    ) [^\s"',;]+""",
    re.VERBOSE | re.IGNORECASE,
)
_SHAPED = re.compile(
    r"""
      (?<![A-Za-z0-9]) (?: sk | gsk | xai | hf | r8 | csk | nvapi | pplx ) [-_] [A-Za-z0-9_.*-]{4,}
    | (?<![A-Za-z0-9]) (?: AIza | eyJ ) [A-Za-z0-9_-]{10,} (?: \. [A-Za-z0-9_-]* )*      # Google; JSON web tokens
    | (?<= ://) [^\s/@]+ (?= @)                                                      # user:password@host
    | (?<![A-Za-z0-9_-]) (?= [A-Za-z_-]*[0-9]) (?= [0-9_-]*[A-Za-z]) [A-Za-z0-9_-]{40,}  # long and opaque
    """,
    re.VERBOSE,
)
_UNPRINTABLE = re.compile(
    r"[\x00-\x20\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+"
)
"""Spaces, controls, and what turns the direction of the text that follows it."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Hide the given secrets, wherever they stand, and whatever looks like a key."""
    shown = _UNPRINTABLE.sub(" ", hide(cut(text), secrets))
    return _SHAPED.sub(HIDDEN, _LABELLED.sub(rf"\1{HIDDEN}", shown))


def hide(text: str, secrets: Iterable[str], *, shortest: int = _SHORTEST_SECRET) -> str:
    """Hide the given secrets: as they are, escaped as in JSON, URLs, HTML or Python, or begun where the text ends."""
    for secret in secrets:
        secret = secret.strip()  # noqa: PLW2901 (keys come from files with line ends)
        if len(secret) < shortest:
            continue
        text = text.replace(secret, HIDDEN)
        if "\\" in text or "%" in text or "&" in text:
            text = _without_escaped(text, secret)
        text = _without_beginning(text, secret)
    return text


def hide_in(value: Any, secrets: Iterable[str]) -> Any:
    """Hide the given secrets in everything that JSON can hold: what a provider sends is data, but never our key."""
    if isinstance(value, list | dict) and _is_clear(value, secrets):
        return value
    return _hidden_in(value, secrets)


def _is_clear(value: Any, secrets: Iterable[str]) -> bool:
    """Tell at a fraction of the cost, for nearly every answer, that `hide` would find nothing in any of its texts.

    It finds nothing in a text without escapes that does not hold the secret's beginning; as JSON, all texts are one.
    """
    try:
        text = orjson.dumps(value)
        beginnings = [secret.strip()[:_SHORTEST_BEGINNING].encode() for secret in secrets]
    except (TypeError, UnicodeEncodeError):  # half a surrogate pair, a number of any size: look at each text
        return False
    return not any(mark in text for mark in (b"\\", b"%", b"&", *beginnings))


def _hidden_in(value: Any, secrets: Iterable[str]) -> Any:
    if isinstance(value, str):
        return hide(value, secrets, shortest=_SHORTEST_DATA_SECRET)
    if isinstance(value, list):
        return [_hidden_in(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_hidden_in(name, secrets): _hidden_in(item, secrets) for name, item in value.items()}
    return value


def _without_escaped(text: str, secret: str) -> str:
    """Hide the secret in all its spellings, with the backslashes that stand before its first character."""
    shown: list[str] = []
    done = 0
    for found in _escaped(secret).finditer(text):
        start = found.start()
        if text[start] not in "%&":
            while start > max(done, found.start() - _MOST_BACKSLASHES) and text[start - 1] == "\\":
                start -= 1
        shown += [text[done:start], HIDDEN]
        done = found.end()
    return "".join((*shown, text[done:])) if done else text


@lru_cache(maxsize=8)
def _escaped(secret: str) -> re.Pattern[str]:
    """Match the secret with each of its characters as it is or in any of the ways that text formats write it.

    What it may begin with is one set of characters, which `re` looks for at great speed: a text may be full of escapes.
    """
    first, others = secret[0], secret[1:]
    begins = f"(?-i:[{re.escape(first)}uUxX%&])"
    rest = "".join(f"(?:{'|'.join(_spellings(character))})" for character in others)
    return re.compile(f"{begins}(?:{'|'.join(_after_their_first(first))}){rest}", re.IGNORECASE)


def _after_their_first(character: str) -> list[str]:
    """Return the spellings without their first character, backslashes apart: that one was just matched."""
    _, in_json, in_url, in_python, *in_html = _spellings(character)
    return [
        rf"(?-i:(?<={re.escape(character)}))",
        rf"(?<=\\u){in_json.removeprefix(_BACKSLASHES + 'u')}",
        rf"(?<=%){in_url.removeprefix('%')}",
        rf"(?<=\\x){in_python.removeprefix(_BACKSLASHES + 'x')}",
        *(rf"(?<=&){one.removeprefix('&')}" for one in in_html),
    ]


def _spellings(character: str) -> list[str]:
    units, octets = character.encode("utf-16-be", "replace"), character.encode("utf-8", "replace")
    in_json = "".join(rf"{_BACKSLASHES}u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    in_url = "".join(rf"%(?:25){{0,2}}{octet:02x}" for octet in octets)
    in_python = "".join(rf"{_BACKSLASHES}x{octet:02x}" for octet in octets)
    in_html = [rf"&\#0{{0,4}}{ord(character)};", rf"&\#x0{{0,4}}{ord(character):x};"]
    named = html.escape(character)
    return [
        rf"\\{{0,{_MOST_BACKSLASHES}}}(?-i:{re.escape(character)})",
        in_json,
        in_url,
        in_python,
        *in_html,
        *([f"&{re.escape(named[1:])}"] if named != character else []),
    ]


def _without_beginning(text: str, secret: str) -> str:
    """Hide the beginning of a secret where somebody cut the text in the middle of it."""
    if secret[:_SHORTEST_BEGINNING] not in text[-len(secret) :]:
        return text  # every answer passes here
    for length in range(min(len(secret), len(text) + 1) - 1, _SHORTEST_BEGINNING - 1, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text


def cut(text: str) -> str:
    """Keep the beginning of a text, up to a space: half of a secret would not be recognised as one."""
    if len(text) <= LONGEST_TEXT:
        return text
    words = text[:LONGEST_TEXT].rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else ""


def name_in(text: str, secrets: Iterable[str]) -> str:
    """Make a name of a stranger's text; where it is cut, secrets are hidden first: half of one would not be found."""
    if len(text) <= LONGEST_NAME and text.isascii() and text.isprintable() and " " not in text:
        return text  # an answer's id: every answer passes here
    if len(text) > LONGEST_NAME:
        text = hide(cut(text), secrets)
    return clean(text, LONGEST_NAME)


def clean(text: str, longest: int) -> str:
    """One line without control or direction characters, at most `longest` characters."""
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"
