"""Making a stranger's words fit for a log: no secrets, no control characters, one short line."""

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

_SHORTEST_SECRET = 4
"""Shorter "keys" (`x`, `-`) protect nothing, and hiding them would garble every message."""

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
    shown = _UNPRINTABLE.sub(" ", cut(text))
    for secret in secrets:
        secret = secret.strip()  # noqa: PLW2901 (keys come from files with line ends)
        if len(secret) >= _SHORTEST_SECRET:
            shown = shown.replace(secret, HIDDEN)
    return _SHAPED.sub(HIDDEN, _LABELLED.sub(rf"\1{HIDDEN}", shown))


def cut(text: str) -> str:
    """Keep the beginning of a text, up to a space: half of a secret would not be recognised as one."""
    if len(text) <= LONGEST_TEXT:
        return text
    words = text[:LONGEST_TEXT].rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else ""


def clean(text: str, longest: int) -> str:
    """One line without control or direction characters, at most `longest` characters."""
    if len(text) <= longest and text.isalnum():  # "stop": every answer passes here
        return text
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"
