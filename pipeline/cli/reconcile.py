"""`promptmill reconcile FILE...`."""

import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._options import json_option, ledger_option, open_ledger, warn
from pipeline.cli._show import as_json_text, cell, print_chosen

if TYPE_CHECKING:
    from pipeline.reconciling import Line, Reconciled

HEADINGS = {
    "day": "day", "model": "model", "figure": "figure", "ledger": "ledger", "ledger_at_most": "at_most",
    "provider": "provider", "difference": "difference", "verdict": "verdict",
}  # fmt: skip
ALWAYS = ("day", "model", "figure", "ledger", "provider", "difference", "verdict")


class Columns(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest stubs
    """Which column of a CSV is which: `day=date,usd=cost`."""

    name = "columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Read it."""
        from pipeline.usage_exports.plain import COLUMNS

        named: dict[str, str] = {}
        for pair in str(value).split(","):
            ours, _, theirs = (part.strip() for part in pair.partition("="))
            if ours not in COLUMNS or not theirs:
                self.fail(f"{ours!r}: write NAME=COLUMN, with a name of {', '.join(COLUMNS)}", param, ctx)
            if ours in named:
                self.fail(f"{ours} is named twice: {named[ours]} and {theirs}", param, ctx)
            named[ours] = theirs
        return named


class Percent(click.FloatRange):
    """A number in a range; click's own lets `nan` pass, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def _joined(ctx: click.Context, param: click.Parameter, said: tuple[dict[str, str], ...]) -> dict[str, str]:
    """Take several --columns as one."""
    joined: dict[str, str] = {}
    for named in said:
        if twice := joined.keys() & named.keys():
            raise click.BadParameter(f"{min(twice)} is named twice", ctx, param)
        joined |= named
    return joined


@click.command("reconcile", short_help="Compare the ledger with a provider's usage export.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--provider", help="Compare all attempts at this provider; default: those at the export's vendor.")
@click.option(
    "--columns",
    type=Columns(),
    multiple=True,
    callback=_joined,
    metavar="NAME=COLUMN,...",
    help="Which column of another CSV is which.",
)
@click.option(
    "--tolerance",
    type=Percent(0, 100),
    default=0.5,
    show_default=True,
    metavar="PERCENT",
    help="Figures this near agree; dollars also within $0.01. 0: exactly.",
)
@click.option("--all", "show_all", is_flag=True, help="Show the figures that agree, too.")
@ledger_option
@json_option
def command(
    files: tuple[Path, ...],
    provider: str | None,
    columns: dict[str, str],
    tolerance: float,
    show_all: bool,
    ledger_path: Path,
    as_json: bool,
) -> int:
    """List what differs between the ledger and a provider's usage export, by UTC day and model.

    FILE is a usage or costs export of OpenAI or Anthropic (JSON of the admin API, CSV of the console), or any CSV with
    --columns day=...,model=...,input_tokens=...,usd=... Several files of one provider are taken together. Exit code 0:
    all agrees; 3: something doesn't.
    """
    from pipeline import api

    percent = Decimal(str(tolerance))
    found = api.reconcile(open_ledger(ledger_path), files, columns=columns, provider=provider, tolerance=percent)
    for note in found.notes:
        warn(note)
    if as_json:
        click.echo(as_json_text(_facts(found, percent)))
    else:
        _show(found, percent, show_all=show_all)
    return 0 if found.agrees else 3


def _facts(found: "Reconciled", tolerance: Decimal) -> dict[str, Any]:
    return {
        "provider": found.provider,
        "shapes": found.shapes,
        "first_day": found.first_day,
        "last_day": found.last_day,
        "tolerance_percent": float(tolerance),
        "agrees": found.agrees,
        "notes": found.notes,
        "not_told": found.not_told,
        "lines": [_row(line) for line in found.lines],
        "totals": [_row(line) for line in found.totals],
    }


def _show(found: "Reconciled", tolerance: Decimal, *, show_all: bool) -> None:
    lines = [_row(line) for line in found.lines if show_all or line.verdict != "agrees"]
    totals = [_row(line) | {"day": "total"} for line in found.totals]
    for row in (*lines, *totals):
        if row["ledger_at_most"] == row["ledger"]:
            row["ledger_at_most"] = None  # the column says something only where a cost is unknown
    print_chosen([*lines, *totals], HEADINGS, always=ALWAYS, kept=())
    agreeing = sum(line.verdict == "agrees" for line in found.lines)
    near = f"within {tolerance} % (dollars: or $0.01)" if tolerance else "exactly"
    click.echo(
        f"\n{agreeing:,} of {len(found.lines):,} figures agree {near};"
        f" {found.first_day} to {found.last_day}, {' and '.join(found.shapes)}"
    )
    for total in found.totals:
        parts = [line for line in found.lines if line.figure == total.figure]
        if total.verdict != "agrees" and all(part.verdict == "agrees" for part in parts):
            click.echo(_why(total))
    if found.not_told:
        click.echo(f"not compared, as the files don't tell them: {', '.join(found.not_told)}")
    if found.is_cut_off:
        click.echo("pages of the export are missing: what agrees is not all of it")


def _why(total: "Line") -> str:
    """Say why a total doesn't agree although all of its lines do."""
    if total.verdict == "unknown":
        return f"the total of {total.figure} is unknown: some of its attempts have a cost without a bound"
    off = "" if total.difference is None else f" it is off by {cell(total.difference)},"
    why = "most of the small differences go one way, or several lines count on the same lost attempts"
    return f"the total of {total.figure} differs:{off} because {why}"


def _row(line: "Line") -> dict[str, Any]:
    return {
        "day": line.day,
        "model": line.model,
        "figure": line.figure,
        "ledger": line.ledger,
        "ledger_at_most": line.ledger_at_most,
        "provider": line.provider,
        "difference": line.difference,
        "verdict": line.verdict,
    }
