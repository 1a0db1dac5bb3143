"""`promptmill errors JOB`."""

from pathlib import Path

import click

from pipeline.cli._options import json_option, ledger_option, open_ledger
from pipeline.cli._show import print_rows, say

COLUMNS = ("status", "error_type", "rows", "cost_usd", "example_row", "example")


@click.command("errors", short_help="Rows that did not end well, by cause, and what helps.")
@click.argument("job")
@ledger_option
@json_option
def command(job: str, ledger_path: Path, as_json: bool) -> int:
    """Group the rows of JOB that ended truncated, invalid, refused, rejected or failed, with one example each."""
    from pipeline import api

    table, advice = api.errors(open_ledger(ledger_path), job)
    if not table.rows and not as_json:
        click.echo("every row that has ended ended well")
        return 0
    print_rows(COLUMNS, table.rows, as_json=as_json)
    for line in advice:
        say(line, err=True)
    return 0
