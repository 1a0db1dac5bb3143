"""`promptmill status [JOB]`."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._options import hear_ctrl_c, json_option, ledger_option, open_ledger, warn
from pipeline.cli._show import plural, print_chosen, print_rows, rewrites, say

COLUMNS = ("job", "state", "rows", "ok", "bad", "pending", "cost_usd", "unknown_cost", "started_at")
HEADINGS = {name: name for name in COLUMNS} | {"unknown_cost": "unknown"}
KEPT = ("pending", "ok", "bad", "rows", "unknown_cost")
"""Where the line is too long, when it started goes first, then these from the end."""
WATCH_SECONDS = 2.0

if TYPE_CHECKING:
    from pipeline.reports import Table


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
    try:
        while True:
            _show(api.status(ledger, job), as_json=as_json, watch=watch)
            if not watch:
                return 0
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        if not watch:
            raise
        return 0


def _show(answer: "tuple[Table, list[str]]", *, as_json: bool, watch: bool) -> None:
    table, notes = answer
    if watch and rewrites(sys.stdout):
        click.clear()
    if as_json or not table.rows:
        print_rows((*table.columns, "state", "pid") if table.rows else COLUMNS, table.rows, as_json=as_json)
    else:
        always = ("job", "state", "cost_usd")
        print_chosen(table.rows, HEADINGS, always=always, kept=KEPT, zeros=KEPT[:-1], whole=("state",))
    for row in () if as_json else table.rows:
        _explain(row)
    for note in notes:
        warn(note)


def _explain(row: Mapping[str, Any]) -> None:
    """Say in words, on a line of its own, why a job is not done."""
    if row["state"].startswith("running"):
        return
    why = [row["reason"]] if row["reason"] not in {None, "finished"} else []
    if row["state"] == "partial" and row["pending"]:
        why.append(f"its newest run was not asked for the {plural(row['pending'], 'row')} that are pending")
    if row["listed"] < row["rows"]:
        why.append(f"the run had listed {row['listed']:,} of its {row['rows']:,} rows")
    elif not row["complete"]:
        why.append("the input was not read to its end, so there may be more rows")
    if why:
        say(f"{row['job']}: {'; '.join(why)}")
