"""A job with what the command line changes, and what is wrong with it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from pipeline.budget import MOST_BUDGET, dollars
from pipeline.errors import UsageError, UserError
from pipeline.job import Job, load_job, overridden
from pipeline.pricing import parse_price_option
from pipeline.records import Message
from pipeline.runners.launch import (
    Prepared,
    credentials,
    key_warnings,
    prepare,
)

T = TypeVar("T")
Name = str | os.PathLike[str]
"""A file's name, as text or as a path."""


def path_of(name: Name | None) -> Path | None:
    """Return a file's path; None for none."""
    return None if name is None else Path(name)


def several(values: Sequence[T], what: str) -> Sequence[T]:
    """Refuse one text where a list of them is wanted: it is a list of letters, too. Raises UsageError."""
    if isinstance(values, str):
        raise UsageError(f"{what} is a list of texts, not one text: write [{values!r}]")
    return values


def at_least_1(number: int | None, what: str) -> None:
    """Raise UsageError for a number that is none to count with."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise UsageError(f"{what} must be a whole number of at least 1, not {number!r}")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line changes in a job, for one command. Raises UsageError for what no job may say."""

    settings: Sequence[str] = ()
    """`section.key=value`, values in TOML."""
    budget: Decimal | None = None
    """Dollars."""
    price: str | None = None
    """`IN,OUT` in dollars per 1M tokens."""
    max_tokens: int | None = None
    price_file: Name | None = None
    """The user's own price list."""

    def __post_init__(self) -> None:
        several(self.settings, "settings")
        at_least_1(self.max_tokens, "max_tokens")
        budget = self.budget
        if budget is not None and not (
            isinstance(budget, Decimal) and budget.is_finite() and 0 < budget <= MOST_BUDGET
        ):
            raise UsageError(
                f"budget must be a Decimal of dollars greater than 0 and at most {MOST_BUDGET:,}, not {budget!r}"
            )


def open_job(path: Name, overrides: Overrides = Overrides()) -> Job:
    """Read a job file and apply what the command line changes. Raises JobFileError, PriceError, UsageError."""
    path = os.fspath(path)
    for option, value, key in (
        ("--max-tokens", overrides.max_tokens, "model.max_tokens"),
        ("--budget", overrides.budget, "budget.usd"),
    ):
        if value is not None and any(text.partition("=")[0].strip() == key for text in overrides.settings):
            raise UsageError(f"{option} and --set {key} say the same thing twice: give one of them")
    job = load_job(path, overrides.settings)
    price = None
    if overrides.price is not None:
        price = parse_price_option(overrides.price, job.model.provider, job.model.name)
    return overridden(
        job,
        max_tokens=overrides.max_tokens,
        budget=overrides.budget,
        price=price,
        price_file=path_of(overrides.price_file),
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: no mistakes, and the first request as it would go out."""

    prepared: Prepared
    messages: tuple[Message, ...] | None
    """None if the first row is broken and will be rejected."""
    key: str
    tokens: int | None
    count_method: str | None
    reserve_usd: Decimal | None
    warnings: list[str]


def check(job: Job, environ: Mapping[str, str], *, limit: int | None = None) -> Checked:
    """Validate everything a run would, and render the first row. Sends nothing. Raises UserError."""
    at_least_1(limit, "limit")
    prepared = prepare(job, limit=limit)
    warnings = list(prepared.warnings)
    try:
        warnings += key_warnings(job, credentials(job, environ), environ)
    except UserError as error:
        warnings.append(str(error))
    rows = prepared.plan.check_first_rows()
    bad = [row for row in rows if row.request is None]
    if bad:
        warnings.append(f"{len(bad):,} of the first {len(rows):,} rows would be rejected, the first: {bad[0].problem}")
    first = rows[0]
    ticket = None if first.request is None else prepared.meter.ticket(first.request)
    reserve, budget = None if ticket is None else ticket.reserve_usd, job.budget_usd
    if reserve is not None and budget is not None and reserve > budget:
        warnings.append(
            f"a budget of {dollars(budget)} lets nothing out: the first request may cost up to {dollars(reserve)}"
        )
    counter = prepared.meter.counter
    if counter.problem is not None:
        warnings.append(counter.problem)
    return Checked(
        prepared=prepared,
        messages=None if first.request is None else first.request.messages,
        key=first.key,
        tokens=None if ticket is None else ticket.input_tokens,
        count_method=None if ticket is None else ticket.count_method,
        reserve_usd=reserve,
        warnings=warnings,
    )
