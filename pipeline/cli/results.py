"""`promptmill results JOB -o FILE`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import ends_tidily, ledger_option, open_ledger, set_option, warn
from pipeline.cli._show import plural, say, status_counts
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.exporting import Exported
    from pipeline.job import Job
    from pipeline.ledger import Ledger


@click.command("results", short_help="Write the outputs in input order to a file.")
@click.argument("job")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), required=True, help=".jsonl, .parquet or .csv"
)
@click.option(
    "--with-input", is_flag=True, help="Add the input's columns; joined by key, so JOB must be the job's file."
)
@set_option
@ledger_option
def command(job: str, output: Path, with_input: bool, settings: tuple[str, ...], ledger_path: Path) -> int:
    """Write one line per row of JOB's newest plan: row, key, status, output, parsed, cost, tokens, errors.

    With --with-input the input is read again and joined by key with all that the ledger has for the job as it is now:
    an edited file can't shift answers. FILE is never one that the job is made of or would read.
    """
    from pipeline import api

    if with_input and not job.endswith(".toml"):
        raise click.UsageError(f"--with-input reads the input again, so it needs the job's file, not its name {job!r}")
    if settings and not job.endswith(".toml"):
        raise click.UsageError(f"--set changes what a job's file says, so it needs the file, not the name {job!r}")
    now = _now(job, settings, needed=with_input)
    ledger = open_ledger(ledger_path)
    with ends_tidily():
        written = api.results(ledger, job, output, now=now, with_input=with_input)
    told = now is not None and not with_input and _compare(ledger, now)
    if not told and ("pending" in written.statuses or not written.complete):
        earlier = api.earlier(ledger, job)
        if earlier is not None:
            warn(earlier)
    say(f"{plural(written.rows, 'row')} -> {output}{_counts(written)}")
    if written.guarded:
        warn(
            f"{plural(written.guarded, 'cell')} of {output} began as a spreadsheet's formula does and got an apostrophe"
            " in front; .jsonl and .parquet hold the exact text"
        )
    return 0


def _counts(written: "Exported") -> str:
    told = status_counts(written.statuses)
    if written.counted > written.rows:
        told += f"{'; ' if told else ''}only {written.rows:,} of at least {written.counted:,} rows are listed yet"
    elif not written.complete:
        told += f"{'; ' if told else ''}the input was not read to its end, so there may be more rows"
    return f" ({told})" if told else ""


def _compare(ledger: "Ledger", now: "Job") -> bool:
    """Warn of answers that are not those to the job as it is now; tell whether that was needed."""
    from pipeline import api

    try:
        change = api.changed_since(ledger, now)
    except UserError as error:
        warn(f"{error}; these are the ledger's answers, and nobody can tell whether the input has changed since")
        return True
    if change is not None:
        warn(f"{change}. Run it again, or add --with-input for what is answered of the job as it is now")
    return change is not None


def _now(path: str, settings: tuple[str, ...], *, needed: bool) -> "Job | None":
    """Return what the job's file says now; None if nobody can tell and the ledger's answers are wanted all the same."""
    from pipeline import api

    if not path.endswith(".toml"):
        return None
    try:
        return api.open_job(path, api.Overrides(settings))
    except UserError as error:
        if needed or settings:
            raise
        warn(f"{error}; these are the ledger's answers, and nobody can tell whether the job has changed since")
        return None
