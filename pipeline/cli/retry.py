"""`promptmill retry JOB`."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import (
    Count,
    job_options,
    json_option,
    ledger_option,
    log_level_option,
    log_option,
    overrides_of,
    quiet_option,
    until_option,
)

if TYPE_CHECKING:
    from pipeline.api import Overrides
    from pipeline.planning import Selection


@click.command("retry", short_help="Send rows again that did not end well.")
@click.argument("job")
@click.option(
    "--status", "statuses", multiple=True, metavar="STATUS", help="Only rows with this status; may be repeated."
)
@click.option("--max-tokens", type=Count(), help="A new limit for the answers, for this command.")
@job_options
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@until_option
@ledger_option
@json_option
@quiet_option
@log_option
@log_level_option
def command(
    job: str,
    statuses: tuple[str, ...],
    max_tokens: int | None,
    settings: tuple[str, ...],
    limit: int | None,
    budget: Decimal | None,
    price: str | None,
    yes: bool,
    until: float | None,
    ledger_path: Path,
    as_json: bool,
    quiet: bool,
    log_path: Path | None,
    log_level: str | None,
) -> int:
    """Send only the rows of JOB that ended truncated, invalid, refused, rejected or failed; all else is kept.

    Rows that are pending are left to `run`, and truncated ones left out whose limit was not raised (--status truncated
    asks them under the same limit, too). A row that ends badly again keeps the better of its answers. Interrupted, the
    same command goes on.
    """
    from pipeline.cli._sending import LogTo, send

    def wanted() -> "tuple[Overrides, Selection]":
        from pipeline import api

        overrides = replace(overrides_of(settings, budget, price), max_tokens=max_tokens)
        return overrides, api.statuses_to_retry(statuses)

    return send(
        job,
        wanted,
        ledger_path,
        limit=limit,
        yes=yes,
        until=until,
        quiet=quiet,
        as_json=as_json,
        command="retry",
        log=LogTo(log_path, log_level),
    )
