"""What may stand nowhere in a job file, since the journal and the ledger hold all of it: secrets, and what is no JSON.

A secret is given away by the name before it or by its own shape. A false alarm stops a job, so shapes are narrower here
than where a stranger's words are redacted: ids, hashes, file names and values such as `prompt_cache_key`'s are none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from pipeline.errors import JobFileError

Place = tuple[str | int, ...]
"""Where a value stands: section, key, and further keys and positions."""

_LARGEST = 2**63 - 1
"""What JSON libraries and the ledger's BIGINT hold."""
_DEEPEST = 100
"""Levels of tables and lists; JSON libraries give up at 254."""

_TEXTS: frozenset[Place] = frozenset({("prompt",), ("output",), ("input", "where")})
"""What people write about their data, such as "extract the api_key": not searched for secrets."""
_MODEL: Place = ("model", "name")
_FILES: Place = ("input", "path")
"""Names of models and files may look like anything; an address is no file."""
_VARIABLE_NAME: Place = ("model", "api_key_env")

_NAMES = frozenset({"jwt", "pwd", "passwd", "bearer", "cookie", "hftoken", "sastoken", "apitoken"})
_ENDINGS = (
    *("apikey", "apikeys", "accesskey", "accountkey", "authkey", "encryptionkey", "privatekey", "secretkey"),
    *("subscriptionkey", "accesstoken", "authtoken", "bearertoken", "refreshtoken", "sessiontoken"),
    *("authorization", "connectionstring", "credential", "credentials", "passphrase", "password", "secret"),
)
"""Ends of names, lower case without signs between the words: `x-api-key`, `clientSecret`, `AWS_SECRET_ACCESS_KEY`."""
_COMMON = frozenset({"key", "token", "auth"})
"""Secrets in most places; in `metadata`, whose names people choose, words like others."""

_SHAPED = re.compile(
    r"""
      (?<![A-Za-z0-9]) (?: sk | gsk | pk | xai | hf | r8 | csk | nvapi | pplx | tgp | fw | ghp ) [-_]
      [A-Za-z0-9_-]* [A-Za-z0-9]{16}                                               # vendors' prefixes
    | (?<![A-Za-z0-9]) (?: AIza | ya29\. ) [A-Za-z0-9_-]{16,}                      # Google
    | (?<![A-Za-z0-9]) eyJ [A-Za-z0-9_-]{10,} \. [A-Za-z0-9_-]{4,}                 # JSON web tokens
    | \b (?i: bearer | basic ) \s+ [A-Za-z0-9_.~+/=-]{16,}                         # a header's value
    | :// [^\s/@:]* : [^\s/@]+ @                                                   # user:password@host
    | (?i: [?&;] (?: api[_-]?key | key | token | access_?token | sig | account_?key | shared_?access_?key
      | password | pwd ) = [^\s&;]{8,} )                                           # in an address
    """,
    re.VERBOSE,
)
_OPAQUE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9]{24,}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def check_values(table: Mapping[str, Any], path: str) -> None:
    """Look at everything in a job file, however deep it stands. Raises JobFileError, which shows no secret."""
    for place, value in _values(table):
        if len(place) > _DEEPEST:
            raise JobFileError(f"{path}: {_named(place[:3])} is nested too deeply: {_DEEPEST} levels at most")
        if isinstance(value, Decimal) and not isfinite(float(value)):
            raise JobFileError(f"{path}: {_named(place)} must be a finite number, not {value}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise JobFileError(f"{path}: {_named(place)} is too large: at most {_LARGEST}")
        if place[:1] not in _TEXTS and place[:2] not in _TEXTS:
            _check_secrecy(place, value, path)


def _check_secrecy(place: Place, value: Any, path: str) -> None:
    if place == _VARIABLE_NAME and isinstance(value, str) and not _is_variable(value):
        raise JobFileError(
            f"{path}: [model] api_key_env must be the NAME of an environment variable, such as"
            ' "MY_PROVIDER_KEY"; the key itself stays out of job files'
        )
    names = [part for part in place if isinstance(part, str)]
    if any(map(_is_shaped, names)) or (isinstance(value, str) and _is_secret(names, value, place)):
        raise JobFileError(
            f"{path}: {_named(place)} holds a key or another secret, and the ledger keeps what a job file says. Put the"
            ' provider\'s key into an environment variable and name that: [model] api_key_env = "MY_PROVIDER_KEY".'
            " Other secrets can't be sent in this version"
        )


def _is_free(place: Place, text: str) -> bool:
    return place == _MODEL or (place == _FILES and "://" not in text)


def _is_secret(names: Sequence[str], text: str, place: Place) -> bool:
    if _is_free(place, text):
        return False
    compact = re.sub(r"[^a-z0-9]", "", names[-1].lower())
    named = compact in _NAMES or compact.endswith(_ENDINGS) or (compact in _COMMON and "metadata" not in names)
    of_data = "properties" in names[:-1]  # a schema's: such names are those of the data
    return _is_shaped(text) or (named and not of_data and text != "")


def _is_shaped(text: str) -> bool:
    return _SHAPED.search(text) is not None


def _is_variable(text: str) -> bool:
    return bool(_VARIABLE.fullmatch(text)) and not _OPAQUE.search(text) and not _is_shaped(text)


def _values(table: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Yield everything that is no table or list, or an empty one, in order."""
    waiting: list[tuple[Place, Any]] = [((name,), each) for name, each in reversed(list(table.items()))]
    while waiting:
        place, value = waiting.pop()
        inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
        if not inner or len(place) > _DEEPEST:
            yield place, value
        else:
            waiting.extend(((*place, name), each) for name, each in reversed(inner))


def _named(place: Place) -> str:
    """Return a place as people write it, without names that are secrets themselves."""
    section, *parts = ["..." if isinstance(part, str) and _is_shaped(part) else part for part in place]
    keys = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"[{section}] {keys.removeprefix('.')}" if keys else f"{section}"
