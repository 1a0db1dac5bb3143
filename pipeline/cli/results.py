"""`promptmill results JOB -o FILE`."""

from pathlib import Path

import click

from pipeline.cli._options import ledger_option, open_ledger, set_option, warn
from pipeline.cli._show import plural, say


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

    With --with-input the input is read again and joined by key, so that an edited file can't shift answers.
    """
    from pipeline import api

    if with_input and not job.endswith(".toml"):
        raise click.UsageError(f"--with-input reads the input again, so it needs the job's file, not its name {job!r}")
    opened = api.open_job(job, api.Overrides(settings)) if with_input else None
    written = api.results(open_ledger(ledger_path), job, output, with_input=opened)
    say(f"{plural(written.rows, 'row')} -> {output}")
    if written.guarded:
        warn(
            f"{plural(written.guarded, 'cell')} of {output} began as a spreadsheet's formula does and got an apostrophe"
            " in front; .jsonl and .parquet hold the exact text"
        )
    return 0
