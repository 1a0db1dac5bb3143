"""`promptmill run JOB`."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import (
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


@click.command("run", short_help="Run a job, or go on with what is left of it.")
@click.argument("job")
@job_options
@click.option(
    "--yes", "-y", is_flag=True, help="Don't ask: check the first 1,000 rows, then send while planning goes on."
)
@click.option("--fresh", is_flag=True, help="Ask (and pay) again where an answer is known; interrupted, it goes on.")
@until_option
@ledger_option
@json_option
@quiet_option
@log_option
@log_level_option
def command(
    job: str,
    settings: tuple[str, ...],
    limit: int | None,
    budget: Decimal | None,
    price: str | None,
    yes: bool,
    fresh: bool,
    until: float | None,
    ledger_path: Path,
    as_json: bool,
    quiet: bool,
    log_path: Path | None,
    log_level: str | None,
) -> int:
    """Send every row of JOB (a .toml file) that has no outcome yet, and truncated rows whose max_tokens was raised.

    In a terminal it plans and estimates everything first, then asks. Interrupted or paused runs go on with the same
    command; what was answered is never asked for again.
    """
    from pipeline.cli._sending import LogTo, send

    def wanted() -> "tuple[Overrides, Selection]":
        from pipeline.planning import Selection

        return overrides_of(settings, budget, price), Selection(fresh=fresh)

    return send(
        job,
        wanted,
        ledger_path,
        limit=limit,
        yes=yes,
        until=until,
        quiet=quiet,
        as_json=as_json,
        command="run",
        log=LogTo(log_path, log_level),
    )
