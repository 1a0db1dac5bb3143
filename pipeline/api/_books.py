"""What the ledger answers about money and answers, and prices."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import exporting, reconciling, repricing
from pipeline.api._jobs import Name, path_of, several
from pipeline.budget import dollars
from pipeline.errors import UsageError
from pipeline.job import Job, job_name
from pipeline.ledger import Ledger
from pipeline.pricebook import Prices, Quote, Target
from pipeline.reconciling import Reconciled
from pipeline.reports import Table, require_job, run_report, run_reports
from pipeline.reports import drift as drift_report
from pipeline.reports import forecast as forecast_report
from pipeline.reports import spend as spend_report
from pipeline.reports.earlier import no_list
from pipeline.reports.spend import ALWAYS_AND_EVER, Period, require_dimensions
from pipeline.repricing import Caching
from pipeline.runners.job_lock import live_runs


@dataclass(frozen=True, slots=True)
class Spend:
    """Money and tokens by dimensions."""

    table: Table
    total: Mapping[str, Any]
    """The same sums over the whole ledger."""
    warnings: list[str]
    """Where the provider's own bill says that the price is wrong."""


def spend(ledger: Ledger, by: Sequence[str] = ("job",), *, period: Period = ALWAYS_AND_EVER) -> Spend:
    """Return money and tokens by dimensions (see reports/spend.py). Raises UsageError."""
    require_dimensions(several(by, "by"))
    table, total, mispriced = run_reports(
        ledger,
        spend_report.SQL.format(by=", ".join(by), where=period.condition),
        spend_report.TOTAL.format(where=period.condition),
        spend_report.MISPRICED.format(where=period.condition),
    )
    return Spend(table, total.rows[0], [_mispriced(row) for row in mispriced.rows])


def _mispriced(row: Mapping[str, Any]) -> str:
    billed, computed = dollars(row["billed_usd"]), dollars(row["computed_usd"])
    off = "" if row["percent"] is None else f" ({row['percent']:+} %)"
    return (
        f"{row['provider']} says it billed {billed} for {row['model']} where {computed} was computed{off}: the price"
        " table is wrong. The ledger's cost_usd is what was billed; what a request may cost at most is off until the"
        " price is corrected"
    )


@dataclass(frozen=True, slots=True)
class Respend:
    """What attempts cost, and would have cost."""

    table: Table
    totals: Sequence[Mapping[str, Any]]
    """The same over all groups, a line for each target."""
    warnings: list[str]
    """Where a cache would have saved nothing."""


def respend(
    ledger: Ledger,
    targets: Sequence[Target | str] = (),
    *,
    by: Sequence[str] = ("job",),
    days: Sequence[date] = (),
    cached: str | None = None,
    price_file: Name | None = None,
    period: Period = ALWAYS_AND_EVER,
) -> Respend:
    """Return what the ledger's attempts cost, and would have cost.

    As MODEL[@PROVIDER][:LANE], else as they are; on one day, or on two; with READ[,WRITTEN] of the input in the cache.
    Raises UserError.
    """
    require_dimensions(several(by, "by"))
    parsed = [Target.of(target) for target in several(targets, "targets")]
    caching = None if cached is None else Caching.parse(cached)
    found = repricing.reprice(ledger, path_of(price_file), parsed, by=by, days=days, caching=caching, period=period)
    return Respend(Table(tuple(found.lines[0]) if found.lines else (), found.lines), found.totals, found.warnings)


def prices(
    model: str | None = None,
    *,
    provider: str | None = None,
    at: datetime | None = None,
    price_file: Name | None = None,
) -> list[Quote]:
    """Return what would be charged for a model, by everybody who sells it; without one, the lists that are files.

    `MODEL@PROVIDER` names both. Raises PriceError if nobody's price is known, UsageError if `at` has no time zone.
    """
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise UsageError(f"at must be a datetime with a time zone, not {at!r}")
    if model is not None and provider is None and model.rfind("@") > 0:
        target = Target.parse(model)
        model, provider = str(replace(target, provider=None)), target.provider
    return Prices(path_of(price_file)).quotes(model, provider, at or datetime.now(UTC))


def forecast(ledger: Ledger) -> Table:
    """Return each run's estimate beside what the run cost, with a verdict."""
    return run_report(ledger, forecast_report.SQL)


def drift(ledger: Ledger) -> Table:
    """Return how well input tokens were counted before sending, per model and method."""
    return run_report(ledger, drift_report.SQL)


def reconcile(
    ledger: Ledger, files: Sequence[Name], *, columns: Mapping[str, str], provider: str | None, tolerance: Decimal
) -> Reconciled:
    """Compare the ledger with a provider's usage exports (see reconciling.py). Raises UserError."""
    paths = [Path(file) for file in several(files, "files")]
    return reconciling.reconcile(ledger, paths, columns=columns, provider=provider, tolerance=tolerance)


def sql(ledger: Ledger, query: str) -> pl.DataFrame:
    """Answer a read-only query. Raises UsageError with DuckDB's own words."""
    return ledger.ask(query)


def results(
    ledger: Ledger, job: Name, output: Name, *, now: Job | None = None, with_input: bool = False
) -> exporting.Exported:
    """Write a job's rows in input order to a .jsonl, .parquet or .csv file. Raises UserError.

    `now` is what the job's file says now, if that is known; `with_input` needs it. In .csv a text that a spreadsheet
    would run as a formula gets an apostrophe. Columns of mixed types in JSON lines have one type in .parquet.
    """
    job, output = os.fspath(job), Path(output)
    name = job_name(job)
    if with_input and now is None:
        raise UsageError("with_input needs now: the job as its file says it, open_job(FILE)")
    if now is not None and now.name != name:
        raise UsageError(f"now is the job {now.name}, and the results asked for are {name}'s")
    require_job(ledger, name)
    exporting.require_spare(output, ledger, name, job, {} if now is None else now.config)
    if now is None or not with_input:
        _require_list(ledger, name, output)
        return exporting.export(ledger, name, output)
    return exporting.export_with_input(ledger, now, output)


def _require_list(ledger: Ledger, job: str, output: Path) -> None:
    """Refuse to write a file without a row because nobody knows the rows yet. Raises UsageError."""
    unlisted = no_list(ledger, job)
    if unlisted is None:
        return
    live = live_runs(ledger.folder).get(job)
    if live is None:
        raise UsageError(f"{unlisted}. {output} is not written: --with-input finds the answers without the list")
    raise UsageError(
        f"{job} is running (process {live.get('pid')}) and has not listed its rows yet; ask again in a few seconds."
        f" {output} is not written"
    )
