"""A run's settings against what its job file says now: with others, a command would look at other rows."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

_DECIDING = ("input", "model", "prompt", "output", "run")
_NOT_DECIDING = {"input.bad_rows", "model.max_tokens", "model.api_key_env", "output.repair", "run.reuse"}
"""What may change without other rows, keys or answers that count."""
_BARE = re.compile(r"(?!(true|false|inf|nan)$)[A-Za-z_./][\w./-]*", re.ASCII)
_LONGEST = 80
"""Longer texts (prompts) are no matter for a command line."""


def changed(booked: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the keys (`section.key`) that decide about rows and answers, and differ."""
    names: dict[str, None] = {}
    for section in _DECIDING:
        old, new = booked.get(section, {}), now.get(section, {})
        names |= {f"{section}.{key}": None for key in (*old, *new) if old.get(key) != new.get(key)}
    return [name for name in names if name not in _NOT_DECIDING]


def as_options(booked: Mapping[str, Any], names: list[str]) -> str | None:
    """Return the `--set` options that make a job file of today what was booked; None if that can't be said shortly."""
    options = []
    for name in names:
        section, _, key = name.partition(".")
        value = booked.get(section, {}).get(key)
        if not isinstance(value, str | int | float) or (isinstance(value, str) and _is_long(value)):
            return None
        spelled = value if isinstance(value, str) and _BARE.fullmatch(value) else json.dumps(value)
        options.append(f" --set {shlex.quote(f'{name}={spelled}')}")
    return "".join(options)


def _is_long(text: str) -> bool:
    return len(text) > _LONGEST or not text.isascii() or not text.isprintable()
