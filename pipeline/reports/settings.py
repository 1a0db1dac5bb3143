"""A run's settings against what its job file says now: with others, a command would look at other rows."""

import json
import re
import shlex
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

_DECIDING = ("input", "model", "prompt", "output", "run")
_NOT_DECIDING = {"input.bad_rows", "model.max_tokens", "model.api_key_env", "output.repair", "run.reuse"}
"""What may change without other rows, keys or answers that count."""
_OF_A_RETRY = ("model.max_tokens", "output.repair")
"""What makes a retry another one, beside what decides about rows and answers."""
USUAL_LEDGER = Path("promptmill.duckdb")
"""The one that commands open where none is named."""
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


def carried(booked: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return the options, by key, without which a command would be refused or held back where the run was not.

    A budget also where the job file has none. What the file allows beyond the run has been changed since, on purpose.
    """
    options = {}
    if _of(booked, "input.bad_rows") == "reject" != _of(now, "input.bad_rows"):
        options["input.bad_rows"] = " --set input.bad_rows=reject"
    if _is_more(booked, now, "model.max_tokens"):
        options["model.max_tokens"] = f" --set model.max_tokens={_of(booked, 'model.max_tokens')}"
    if _is_more(booked, now, "budget.usd") or (_of(booked, "budget.usd") and not _of(now, "budget.usd")):
        options["budget.usd"] = f" --budget {_of(booked, 'budget.usd')}"
    price = booked.get("price", {})
    if set(price) == {"input", "output"} and not now.get("price"):
        options["price"] = f" --price {price['input']},{price['output']}"
    return options


def as_it_ran(booked: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the options that let a command look at the booked rows and be allowed as much; None as `as_options`."""
    options = as_options(booked, changed(booked, now))
    return None if options is None else options + "".join(carried(booked, now).values())


def as_that_retry(booked: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the options that make a retry of today the one that was booked; None as `as_options`."""
    shaping = [name for name in _OF_A_RETRY if _of(booked, name) != _of(now, name)]
    options = as_options(booked, changed(booked, now) + shaping)
    more = [option for name, option in carried(booked, now).items() if name not in shaping]
    return None if options is None else options + "".join(more)


def ledger_option(path: Path) -> str:
    """Name a ledger that is not the usual one: a `run` that is copied without it would pay for all of it again."""
    return "" if path == USUAL_LEDGER else f" --ledger {shlex.quote(str(path))}"


def _of(config: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return config.get(section, {}).get(key)


def _is_more(booked: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Tell whether the run had a higher limit; none at all can't be said on a command line."""
    old, new = _of(booked, name), _of(now, name)
    return old is not None and new is not None and Decimal(str(old)) > Decimal(str(new))


def _is_long(text: str) -> bool:
    return len(text) > _LONGEST or not text.isascii() or not text.isprintable()
