"""`promptmill spend`."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import json_option, ledger_option, open_ledger, price_file, warn
from pipeline.cli._show import print_chosen, print_rows

if TYPE_CHECKING:
    from pipeline.api import Respend, Spend
    from pipeline.ledger import Ledger


_DAY = click.DateTime(["%Y-%m-%d"])


@click.command("spend", short_help="Money and tokens, by job, model, day and more.")
@click.option(
    "--by",
    default="job",
    show_default=True,
    metavar="NAMES",
    help="Comma-separated: job, plan_id, run_id, provider, model, model_returned, lane, day, month.",
)
@click.option("--since", type=_DAY, metavar="DATE", help="Only what was sent on this UTC day or later: 2026-11-01.")
@click.option("--before", type=_DAY, metavar="DATE", help="Only what was sent before this UTC day: 2026-12-01.")
@click.option("--forecast", is_flag=True, help="Each run's estimate against what the run cost, instead.")
@click.option("--drift", is_flag=True, help="Our token counts against the usage that providers report, instead.")
@click.option(
    "--as",
    "targets",
    multiple=True,
    metavar="MODEL[@PROVIDER][:LANE]",
    help="What the same attempts would have cost, instead; lanes are batch, flex, priority. May be repeated.",
)
@click.option(
    "--at",
    "moments",
    type=_DAY,
    multiple=True,
    metavar="DATE",
    help="The same at the prices of this UTC day, such as 2026-11-03; given twice: on both days, and the difference.",
)
@click.option(
    "--cached",
    metavar="READ[,WRITTEN]",
    help="The same with this share of the input read from a cache (and this written to it): 0.8, or 0.8,0.1.",
)
@ledger_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    by: str,
    since: datetime | None,
    before: datetime | None,
    forecast: bool,
    drift: bool,
    targets: tuple[str, ...],
    moments: tuple[datetime, ...],
    cached: str | None,
    ledger_path: Path,
    as_json: bool,
) -> int:
    """Add up the ledger's attempts: tokens, dollars, what was wasted on attempts that brought no good answer.

    Attempts whose cost can't be known are counted in unknown_cost, and never as zero; they have an upper bound where
    price and max_tokens were known. The table shows the columns that say something; --json has them all.
    """
    from pipeline import api
    from pipeline.reports.spend import ALWAYS_AND_EVER, Period

    given = context.get_parameter_source("by") is not click.core.ParameterSource.DEFAULT
    if forecast + drift + given > 1:
        raise click.UsageError("--by, --forecast and --drift are different tables: choose one")
    what_if = bool(targets or moments or cached is not None)
    if what_if and (forecast or drift):
        raise click.UsageError(
            "--as, --at and --cached re-price what was spent: they go with --by, not with --forecast or --drift"
        )
    period = Period(since and since.date(), before and before.date())
    if period != ALWAYS_AND_EVER and (forecast or drift):
        raise click.UsageError("--since and --before go with --by, not with --forecast or --drift")
    ledger = open_ledger(ledger_path)
    names = tuple(name.strip() for name in by.split(",") if name.strip())
    if forecast:
        _forecast(ledger, as_json=as_json)
    elif drift:
        table = api.drift(ledger)
        print_rows(table.columns, table.rows, as_json=as_json)
    elif what_if:
        days = [moment.date() for moment in moments]
        found = api.respend(ledger, targets, by=names, days=days, cached=cached, price_file=price_file(), period=period)
        _respend(found, names, days, as_json=as_json)
    else:
        _spend(api.spend(ledger, names, period=period), names, as_json=as_json)
    return 0


def _spend(found: "Spend", by: tuple[str, ...], *, as_json: bool) -> None:
    from pipeline.reports.spend import ALWAYS, KEPT, SHOWN

    for warning in found.warnings:
        warn(warning)
    rows = found.table.rows
    if as_json or not rows:
        print_rows(found.table.columns, rows, as_json=as_json)
        return
    total = [{**dict.fromkeys(by), **found.total, by[0]: "total"}] if len(rows) > 1 else []
    headings = {name: name for name in by} | SHOWN
    print_chosen([*rows, *total], headings, always=(*by, *ALWAYS), kept=KEPT)


def _respend(found: "Respend", by: tuple[str, ...], days: "Sequence[date]", *, as_json: bool) -> None:
    from pipeline.reports import reprice as report

    for warning in found.warnings:
        warn(warning)
    table, totals = found.table, [{**line, by[0]: "total"} for line in found.totals]
    if as_json or not table.rows:
        print_rows(table.columns, table.rows, as_json=as_json)
        return
    rows = [*table.rows, *totals] if len(table.rows) > len(totals) else table.rows
    headings = {name: name for name in by}
    named = ("as",) if table.rows[0]["as"] else ()
    if len(days) > 1:
        headings |= report.shown_of_two(days)
        print_chosen(rows, headings, always=(*by, *named, *report.ALWAYS_OF_TWO), kept=report.KEPT_OF_TWO)
    else:
        print_chosen(rows, headings | report.SHOWN, always=(*by, *named, *report.ALWAYS), kept=report.KEPT)


def _forecast(ledger: "Ledger", *, as_json: bool) -> None:
    from pipeline import api
    from pipeline.reports.forecast import ALWAYS, KEPT, SHOWN

    table = api.forecast(ledger)
    if as_json or not table.rows:
        print_rows(table.columns, table.rows, as_json=as_json)
    else:
        print_chosen(table.rows, SHOWN, always=ALWAYS, kept=KEPT)
