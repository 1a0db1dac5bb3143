"""How jobs stand: their progress, the rows that did not end well, and what helps."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.api._jobs import Name
from pipeline.errors import LEFT, PAUSED, UserError
from pipeline.job import Job, job_name, load_job
from pipeline.ledger import Ledger
from pipeline.reports import Table, require_job, run_report
from pipeline.reports import errors as errors_report
from pipeline.reports import results as results_report
from pipeline.reports import status as status_report
from pipeline.reports.earlier import earlier_answers
from pipeline.reports.settings import as_options, as_that_retry, carried, changed, ledger_option
from pipeline.runners.job_lock import live_runs
from pipeline.runners.launch import (
    plan_fingerprint,
)
from pipeline.sources import open_source


def status(ledger: Ledger, job: Name | None = None) -> tuple[Table, list[str]]:
    """Return every job's progress (or one job's), and what is wrong with journals, if anything."""
    job = None if job is None else os.fspath(job)
    if job is not None:
        require_job(ledger, job_name(job))
    table = run_report(ledger, status_report.SQL)
    live = live_runs(ledger.folder)
    for row in table.rows:
        row["state"] = _state(row, live)
        row["pid"] = live.get(row["job"], {}).get("pid")
    rows = [row for row in table.rows if job is None or row["job"] == job_name(job)]
    damage = run_report(ledger, status_report.DAMAGE).rows
    notes = [
        f"journal {row['journal_id']}: {row['pieces']} damaged pieces ({row['bytes']} bytes), the first at byte"
        f" {row['first_at']}: lines in them are lost"
        for row in damage
    ]
    unfinished = [row for row in rows if row["job"] not in live and (row["pending"] or not row["complete"])]
    notes += [note for row in unfinished if (note := earlier_answers(ledger, row["job"])) is not None]
    return Table(table.columns, rows), notes


def _state(row: Mapping[str, Any], live: Mapping[str, Mapping[str, Any]]) -> str:
    if row["job"] in live:
        return f"running ({live[row['job']].get('pid')})"
    if row["ended_at"] is None:
        return "interrupted"
    if row["exit_code"] in {0, 3}:  # of what the run was asked for: with --limit or as a retry not the whole plan
        return "finished" if row["complete"] and not row["pending"] else "partial"
    return {PAUSED: "paused", LEFT: "interrupted"}.get(row["exit_code"], "failed")


@dataclass(frozen=True, slots=True)
class Errors:
    """Rows that did not end well."""

    table: Table
    """One line a cause."""
    standing: list[str]
    """How the others stand, and why the newest run left any."""
    advice: list[str]
    """What helps each status."""


def errors(ledger: Ledger, job: Name) -> Errors:
    """Return a job's rows that did not end well, by cause, what helps, and how the others stand."""
    job = os.fspath(job)
    name = job_name(job)
    require_job(ledger, name)
    table = run_report(ledger, errors_report.SQL, [name])
    (counts,) = run_report(ledger, errors_report.COUNTS, [name]).rows
    (newest,) = run_report(ledger, errors_report.NEWEST_RUN, [name]).rows
    file = job if job.endswith(".toml") else run_report(ledger, errors_report.JOB_FILE, [name]).rows[0]["file"]
    config = json.loads(newest["config"])
    command, limit, note = _as_it_ran(file, newest["run_id"], config)
    option = ledger_option(ledger.path)
    command += option
    live = live_runs(ledger.folder).get(name)
    retry = None if live is not None else _unfinished_retry(ledger, name, file)
    advice = []
    for status in dict.fromkeys(str(row["status"]) for row in table.rows):
        causes = [row["error_type"] for row in table.rows if row["status"] == status]
        # Where the cure is another limit, the old one is not named.
        named_job = command if status == "truncated" else command + limit
        advice += errors_report.advice(status, named_job, config, causes, retry=retry is None)
    if table.rows:
        note.append(errors_report.EACH_ROW.format(job=name, ledger=option))
    pid = None if live is None else live.get("pid")
    bad = sum(row["rows"] for row in table.rows)
    rest = command + limit if retry is None else command  # a retry's higher limit was for its rows alone
    standing = errors_report.standing(bad, counts, newest, pid, rest, retry=retry)
    told = live is not None or errors_report.is_done(counts, newest)
    hidden = None if told else earlier_answers(ledger, name)
    return Errors(table, standing, advice + note + ([] if hidden is None else [hidden]))


def named(file: str, ledger: Ledger) -> str:
    """Return how a command names a job in a ledger."""
    return shlex.quote(file) + ledger_option(ledger.path)


def _unfinished_retry(ledger: Ledger, job: str, file: str) -> str | None:
    """Name the command that goes on with a job's interrupted retry; None if there is none."""
    found = run_report(ledger, errors_report.UNFINISHED_RETRY, [job]).rows
    if not found:
        return None
    options: str | None
    try:
        options = as_that_retry(json.loads(found[0]["config"]), load_job(file).config)
    except UserError:  # it is gone, or in the making: the command will say so
        options = ""
    if options is None:
        return f"`promptmill retry` with the settings of run {found[0]['run_id']}"
    selected = found[0]["command"].removeprefix("retry")
    return f"`promptmill retry {shlex.quote(file)}{options}{ledger_option(ledger.path)}{selected}`"


def _as_it_ran(file: str, run_id: int, config: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return how a command names the job as a run had it, and what to know if its file says something else now.

    Between them stands the option for max_tokens, if there has to be one.
    """
    quoted = shlex.quote(file)
    try:
        now = load_job(file).config
    except UserError:  # it is gone, or in the making: a command will say so
        return quoted, "", []
    names, more = changed(config, now), carried(config, now)
    options = as_options(config, names)
    others = "Without --set a command looks at other rows"
    if options is None:
        others = f"The rows above are that run's; a command for {file} looks at others"
    said = f"run {run_id} had other settings than {file} has now: {', '.join([*names, *more])}. {others}"
    note = [said] if names else []  # a budget of the command line, say, is no news to who gives it each night
    if options is None:
        return quoted, "", note
    limit = more.pop("model.max_tokens", "")
    return quoted + options + "".join(more.values()), limit, note


def changed_since(ledger: Ledger, job: Job) -> str | None:
    """Say how a job differs from the newest plan that the ledger has of it; None if it doesn't. Reads no row.

    Then the ledger's results are answers to something else. Raises InputError if the input is not there any more.
    """
    found = run_report(ledger, results_report.NEWEST_PLAN, [job.name]).rows
    if not found or found[0]["fingerprint"] == plan_fingerprint(job, open_source(job.input).fingerprint()):
        return None
    return f"these are the answers of run {found[0]['run_id']}, and {change_said(job, found[0]['config'])}"


def change_said(job: Job, booked: str) -> str:
    """Say what makes a job another than the one that is booked."""
    names = changed(json.loads(booked), job.config)
    if names:
        return f"{job.file} says something else now: {', '.join(names)}"
    return f"a file that {job.file} reads has changed since"


def earlier(ledger: Ledger, job: Name) -> str | None:
    """Say that another plan has more answers than the job's newest, which is the one that is shown, if it is so."""
    return earlier_answers(ledger, job_name(os.fspath(job)))
