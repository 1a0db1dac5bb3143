"""`promptmill errors JOB`."""

from pathlib import Path

import click

from pipeline.cli._options import json_option, ledger_option, open_ledger
from pipeline.cli._show import print_rows, say

COLUMNS = ("status", "error_type", "rows", "cost_usd", "unknown_cost", "example_row", "example")


@click.command("errors", short_help="Rows that did not end well, by cause, and what helps.")
@click.argument("job")
@ledger_option
@json_option
def command(job: str, ledger_path: Path, as_json: bool) -> int:
    """Group the rows of JOB that ended truncated, invalid, refused, rejected or failed, with one example each.

    Also says how many rows are pending, and why the newest run left them.
    """
    from pipeline import api

    found = api.errors(open_ledger(ledger_path), job)
    if found.table.rows or as_json:
        unknown = as_json or any(row["unknown_cost"] for row in found.table.rows)
        columns = [name for name in COLUMNS if unknown or name != "unknown_cost"]
        print_rows(columns, found.table.rows, as_json=as_json)
    for number, line in enumerate(found.standing):
        say(line, err=as_json or number > 0 or bool(found.table.rows))
    for line in found.advice:
        say(line, err=True)
    return 0
