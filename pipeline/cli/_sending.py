"""What `run` and `retry` share: ask, run, sum up, and the exit code."""

import os
import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import hear_ctrl_c, open_ledger, warn
from pipeline.cli._show import as_json_text, duration, money, plural, printable

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.api import Overrides
    from pipeline.estimating import Estimate
    from pipeline.job import Job
    from pipeline.planning import Selection
    from pipeline.runners.launch import Prepared
    from pipeline.runners.local import LocalRun, RunReport


def send(
    path: str,
    overrides: "Overrides",
    selection: "Selection",
    ledger_path: "Path",
    *,
    yes: bool,
    until: float | None,
    quiet: bool,
    as_json: bool,
    command: str,
) -> int:
    """Run a job and return the exit code."""
    from pipeline import api
    from pipeline.cli._progress import Progress

    job = api.open_job(path, overrides)

    async def watch(run: "LocalRun") -> None:
        await Progress(quiet=quiet, free=run.free).watch(run)

    options = api.RunOptions(
        environ=os.environ,
        watch=watch,
        notify=warn,
        confirm=None if yes else _Confirm(quiet=quiet),
        limit=overrides.limit,
        selection=selection,
        command=command,
        until=until,
    )
    report = api.run(job, open_ledger(ledger_path), options)
    if report is None:
        return 2
    _sum_up(job, report, as_json=as_json, limited=overrides.limit is not None)
    return report.exit_code


class _Confirm:
    """Show the estimate and ask, where there is somebody to ask and something to pay."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, prepared: "Prepared", estimate: "Estimate") -> bool:
        from pipeline.cli.estimate import show_estimate

        nothing_to_pay = estimate.to_send == 0 or (prepared.price is not None and prepared.price.is_free)
        if not self._quiet or not nothing_to_pay:
            click.echo(show_estimate(prepared, estimate), err=True)
        if nothing_to_pay:
            return True
        if not sys.stdin.isatty() or not sys.stderr.isatty():
            warn("nothing was sent: without a terminal nobody can be asked. Look at the estimate above, then add --yes")
            return False
        hear_ctrl_c()
        try:
            agreed = click.confirm(f"Send {plural(estimate.to_send, 'request')}?", err=True)
        except click.Abort:
            click.echo(err=True)
            agreed = False
        if not agreed:
            warn("nothing was sent")
        return agreed


def _sum_up(job: "Job", report: "RunReport", *, as_json: bool, limited: bool) -> None:
    tally = report.tally
    if as_json:
        facts = {
            "job": job.name, "run_id": report.run_id, "rows": tally.rows, "statuses": dict(tally.statuses),
            "sent": tally.sent, "reused": tally.reused, "already": tally.already, "repeated": tally.repeated,
            "spent_usd": report.spent, "uncertain_usd": report.uncertain, "plan_spent_usd": report.plan_spent,
            "paused": report.paused, "seconds": round(report.seconds, 3), "exit_code": report.exit_code,
        }  # fmt: skip
        click.echo(as_json_text(facts, indent=None))
    else:
        click.echo(_sentence(job, report, limited=limited))
    for line in _advice(job, report):
        click.echo(line, err=True)


def _sentence(job: "Job", report: "RunReport", *, limited: bool) -> str:
    tally = report.tally
    statuses = ", ".join(
        f"{count:,} {status}" for status, count in sorted(tally.statuses.items(), key=_ok_first) if count
    )
    pending = tally.rows - tally.done
    if pending:
        statuses += f"{', ' if statuses else ''}{pending:,} pending"
    if tally.sent == 0 and report.paused is None:
        if not tally.rows:
            return f"{job.name}: nothing to send: no row ended that way"
        others = f", {tally.reused:,} of them from other jobs' answers" if tally.reused else ""
        return f"{job.name}: nothing to send: every row has its outcome ({statuses}{others})"
    spent = "free" if report.free else _spent(report)
    more = " (--limit)" if limited else ""
    if tally.reused:
        statuses += f", {tally.reused:,} from other jobs' answers"
    return (
        f"{job.name}: {tally.done:,} of {tally.rows:,} rows{more} have their outcome ({statuses});"
        f" {plural(tally.sent, 'request')} in {duration(report.seconds)}, {spent}"
    )


def _spent(report: "RunReport") -> str:
    if report.spent is None:
        return "cost unknown (no price)"
    more = f" (and at most {money(report.uncertain)} for exchanges of unknown cost)" if report.uncertain else ""
    return f"{money(report.spent)} spent{more}"


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


def _advice(job: "Job", report: "RunReport") -> list[str]:
    lines = []
    if report.left_over:
        lines.append(f"promptmill: {printable(report.left_over)}")
    if report.paused:
        lines.append(f"promptmill: paused: {printable(report.paused)}. The same command goes on from here.")
    elif report.tally.bad:
        lines.append(f"promptmill: see why with: promptmill errors {job.file}")
    return lines
