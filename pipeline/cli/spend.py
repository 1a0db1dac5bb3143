"""`promptmill spend`."""

from pathlib import Path

import click

from pipeline.cli._options import json_option, ledger_option, open_ledger
from pipeline.cli._show import print_rows


@click.command("spend", short_help="Money and tokens, by job, model, day and more.")
@click.option(
    "--by",
    default="job",
    show_default=True,
    metavar="NAMES",
    help="Comma-separated: job, plan_id, run_id, provider, model, model_returned, lane, day.",
)
@ledger_option
@json_option
def command(by: str, ledger_path: Path, as_json: bool) -> int:
    """Add up the ledger's attempts: tokens, dollars, what was wasted on attempts that brought no good answer.

    Attempts whose cost can't be known are counted in unknown_cost, with an upper bound, and never as zero.
    """
    from pipeline import api

    table = api.spend(open_ledger(ledger_path), tuple(name.strip() for name in by.split(",") if name.strip()))
    print_rows(table.columns, table.rows, as_json=as_json)
    return 0
