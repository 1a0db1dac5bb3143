"""Answers that the ledger has and a job's newest plan doesn't show: which, and how to see them.

Every command that goes by a job's name shows the rows of its newest plan. A pilot or a `--set` is enough for a new one,
and a ledger that was made again from its journals has no rows.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UserError
from pipeline.job import load_job
from pipeline.ledger import Ledger
from pipeline.reports import run_report
from pipeline.reports.settings import as_it_ran, changed, ledger_option

_PLANS = """
select p.plan_id, p.fingerprint, max(r.run_id) as run_id, arg_max(r.config, r.run_id) as config,
       coalesce(arg_max(r.prompt_id, r.run_id), '') as prompt_id,
       p.plan_id in (select plan_id from rows) as listed,
       p.plan_id in (select plan_id from plans where complete) as complete,
       exists (from outcomes o join run_starts s using (run_id) where s.job = $1) as answered,
       (select max(job_file) from jobs where job = $1) as file
from plan_starts p join run_starts r using (plan_id) where p.job = $1 group by all order by p.plan_id desc
"""
_GOOD = """
with ended as (select key, bool_or(o.status = 'ok') as ok
               from outcomes o join run_starts r using (run_id) where r.job = $1 group by key)
select plan_id, count(*) as rows, count(e.key) as ended, count(*) filter (e.ok) as ok
from rows left join ended e using (key) where plan_id = any($2) group by plan_id
"""
_PARTLY_LISTED = """
select count(distinct o.key) as requests
from outcomes o join run_starts r using (run_id) anti join (select key from rows where plan_id = $2) using (key)
where r.job = $1 and r.plan_id = $2
"""
_KEPT = """
select count(*) as rows from rows w join run_starts s on s.plan_id = w.plan_id and s.run_id = $1
where w.key in (select key from outcomes where run_id = $1 and status <> 'ok')
  and w.key in (select o.key from outcomes o join run_starts r using (run_id) where r.job = s.job and o.status = 'ok')
"""
_BEFORE = """
select max(e.plan_id) as plan_id from run_starts s join run_starts e using (job, prompt_id)
where s.run_id = $1 and e.plan_id < s.plan_id
"""
_LEFT_BEHIND = """
select count(*) as rows from rows w
where w.plan_id = $2 and w.key not in (select n.key from rows n join run_starts s using (plan_id) where s.run_id = $1)
  and w.key not in (select o.key from outcomes o join run_starts r using (run_id)
                    join run_starts s on s.run_id = $1 and s.job = r.job where o.status = 'ok')
"""


_NO_ROWS = {"rows": 0, "ended": 0, "ok": 0}


def earlier_answers(ledger: Ledger, job: str) -> str | None:
    """Say which plan has the most answers, if the newest has fewer and is about other requests; or that it lacks rows.

    That is worth asking where the newest is not done.
    """
    newest, *others = run_report(ledger, _PLANS, [job]).rows
    now = json.loads(newest["config"])
    if newest["answered"] and not newest["listed"]:
        return _unlisted(ledger, job, newest, now)
    missing = None if newest["complete"] else _partly_listed(ledger, job, newest, now)
    if missing is not None:
        return missing
    unlike = [
        (plan, config)
        for plan, config in ((plan, json.loads(plan["config"])) for plan in others)
        if changed(config, now)
        or (plan["prompt_id"] != newest["prompt_id"] and _repair(config) == _repair(now))
        or plan["fingerprint"] == newest["fingerprint"]  # one of another prompt came between
    ]
    if not unlike:  # of most jobs: nothing is counted then
        return None
    ids = [newest["plan_id"], *(plan["plan_id"] for plan, _ in unlike)]
    counts = {row["plan_id"]: row for row in run_report(ledger, _GOOD, [job, ids]).rows}
    plan, config = max(unlike, key=lambda each: counts.get(each[0]["plan_id"], _NO_ROWS)["ok"])
    most, few = counts.get(plan["plan_id"], _NO_ROWS), counts.get(newest["plan_id"], _NO_ROWS)
    if most["ok"] <= few["ok"]:
        return None
    return (
        f"{job}: plan {plan['plan_id']} (run {plan['run_id']}) has {most['ok']:,} rows that ended well, the newest one"
        f" (run {newest['run_id']}) {few['ok']:,}; {_difference(plan, newest, changed(config, now))}"
        f"{_command(ledger, plan, config, most['rows'])} lists them again and sends {_rest(most)}"
    )


def _difference(plan: Mapping[str, Any], newest: Mapping[str, Any], settings: Sequence[str]) -> str:
    """Say what is between two plans, up to the command that brings the first one back."""
    if plan["fingerprint"] == newest["fingerprint"]:
        return "both are of the same job and input. Those answers are kept: "
    if settings:
        return f"between them changed: {', '.join(settings)}. Those answers are kept: "
    return "between them changed: a file that the job reads. Those answers are kept: with that file as it was "


def _rest(counts: Mapping[str, int]) -> str:
    """Say what a run of a plan sends that was not complete."""
    pending = counts["rows"] - counts["ended"]
    if not pending:
        return "nothing that is answered"
    return f"the {pending:,} of its rows that have no outcome" if pending > 1 else "the one of its rows without outcome"


def no_list(ledger: Ledger, job: str) -> str | None:
    """Say that nobody knows the rows of the job's newest plan, if it is so: no plan is without any."""
    newest = run_report(ledger, _PLANS, [job]).rows[0]
    return None if newest["listed"] else _unlisted(ledger, job, newest, json.loads(newest["config"]))


def _unlisted(ledger: Ledger, job: str, plan: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    there = "its answers and costs are here, but no" if plan["answered"] else "nothing has its outcome, and there is no"
    return (
        f"{job}: {there} list of its rows in run {plan['run_id']}, the newest, which no journal holds:"
        f" {_command(ledger, plan, config)} makes it again from the input and sends nothing that is answered"
    )


def _partly_listed(ledger: Ledger, job: str, plan: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    (missing,) = run_report(ledger, _PARTLY_LISTED, [job, plan["plan_id"]]).rows
    if not missing["requests"]:
        return None
    return (
        f"{job}: {missing['requests']:,} requests have their outcome and their rows are not listed, as a run was"
        f" killed, the ledger could not be written when it ended, or was put back: {_command(ledger, plan, config)}"
        " lists them and sends nothing that is answered"
    )


def _repair(config: Mapping[str, Any]) -> int:
    """Return what is part of a prompt's identity, but changes no request."""
    repair: int = config.get("output", {}).get("repair", 0)
    return repair


def kept_answers(ledger: Ledger, run_id: int) -> str | None:
    """Say how many rows have a better answer than the one that a run brought, if any have."""
    (found,) = run_report(ledger, _KEPT, [run_id]).rows
    if not found["rows"]:
        return None
    rows = f"{found['rows']:,} rows ended badly this time and keep the good answer that they had"
    if found["rows"] == 1:
        rows = "1 row ended badly this time and keeps the good answer that it had"
    return f"{rows}: results, status and errors show that one"


def left_behind(ledger: Ledger, run_id: int) -> str | None:
    """Say, of a run that began a plan of another input, how many unfinished rows of the one before are not in it."""
    (before,) = run_report(ledger, _BEFORE, [run_id]).rows
    if before["plan_id"] is None:
        return None
    (found,) = run_report(ledger, _LEFT_BEHIND, [run_id, before["plan_id"]]).rows
    if not found["rows"]:
        return None
    rows = (
        "1 row that never ended well is" if found["rows"] == 1 else f"{found['rows']:,} rows that never ended well are"
    )
    return (
        f"the input has changed since plan {before['plan_id']}, and {rows} not in it any more: no run or retry asks for"
        f" them as it is now (`from rows where plan_id = {before['plan_id']}` in `promptmill sql`)"
    )


def _command(ledger: Ledger, plan: Mapping[str, Any], config: Mapping[str, Any], rows: int = 0) -> str:
    """Name the command that makes the plan the newest again; `rows`: looking at so many only, if it has not all."""
    file = str(plan["file"])
    try:
        options = as_it_ran(config, load_job(file).config)
    except UserError:  # the file is gone, or in the making
        options = None
    if options is None:
        return f"`promptmill run` with the settings of run {plan['run_id']}"
    limit = f" --limit {rows}" if rows and not plan["complete"] else ""
    return f"`promptmill run {shlex.quote(file)}{options}{limit}{ledger_option(ledger.path)}`"
