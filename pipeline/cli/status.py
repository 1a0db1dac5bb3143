"""`promptmill status [JOB]`."""

import time
from pathlib import Path

import click

from pipeline.cli._options import hear_ctrl_c, json_option, ledger_option, open_ledger, warn
from pipeline.cli._show import print_rows

COLUMNS = ("job", "state", "rows", "ok", "bad", "pending", "cost_usd", "unknown_cost", "started_at", "reason")
WATCH_SECONDS = 2.0


@click.command("status", short_help="Running, paused and finished jobs, from any terminal.")
@click.argument("job", required=False)
@click.option("--watch", is_flag=True, help="Show it again every 2 seconds until Ctrl-C.")
@ledger_option
@json_option
def command(job: str | None, watch: bool, ledger_path: Path, as_json: bool) -> int:
    """Show how far each job is, what it spent and how its newest run ended; during a run at most seconds old.

    `rows` are those planned so far: a run with --yes plans while it sends.
    """
    from pipeline import api

    ledger = open_ledger(ledger_path)
    hear_ctrl_c()
    while True:
        table, notes = api.status(ledger, job)
        if watch:
            click.clear()
        columns = (*table.columns, "state") if as_json and table.rows else COLUMNS
        print_rows(columns, table.rows, as_json=as_json)
        for note in notes:
            warn(note)
        if not watch:
            return 0
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return 0
