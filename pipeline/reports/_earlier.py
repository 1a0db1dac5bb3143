"""Where a job's newest plan, under another prompt or model, hides more answers than it has: which, and how to see them.

Every command that goes by a job's name shows the rows of its newest plan, and a pilot or a `--set` is enough for one.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.job import load_job
from pipeline.ledger import Ledger
from pipeline.reports import run_report
from pipeline.reports._settings import as_options, changed

_PLANS = """
with good as (select distinct o.key from outcomes o join run_starts r using (run_id)
              where r.job = $1 and o.status = 'ok'),
     counted as (select p.plan_id, count(g.key) as ok
                 from plan_starts p left join rows w using (plan_id) left join good g using (key)
                 where p.job = $1 group by p.plan_id),
     newest_run as (select plan_id, max(run_id) as run_id, arg_max(config, run_id) as config,
                           arg_max(prompt_id, run_id) as prompt_id
                    from run_starts where job = $1 group by plan_id)
select c.plan_id, c.ok, r.run_id, r.config, coalesce(r.prompt_id, '') as prompt_id,
       (select max(job_file) from jobs where job = $1) as file
from counted c join newest_run r using (plan_id) order by c.plan_id desc
"""
_USUAL_LEDGER = Path("promptmill.duckdb")


def earlier_answers(ledger: Ledger, job: str) -> str | None:
    """Say which plan has the most answers, if the newest has fewer and is about other requests."""
    newest, *others = run_report(ledger, _PLANS, [job]).rows
    now = json.loads(newest["config"])
    hidden = [
        (plan, json.loads(plan["config"]))
        for plan in others
        if plan["ok"] > newest["ok"]
        and (plan["prompt_id"] != newest["prompt_id"] or changed(json.loads(plan["config"]), now))
    ]
    if not hidden:
        return None
    plan, config = max(hidden, key=lambda each: each[0]["ok"])
    difference = ", ".join(changed(config, now)) or "a file that the job reads"
    return (
        f"{job}: plan {plan['plan_id']} (run {plan['run_id']}) has {plan['ok']:,} rows that ended well, the newest one"
        f" (run {newest['run_id']}) {newest['ok']:,}; between them changed: {difference}. Those answers are kept:"
        f" {_command(ledger, plan, config)} lists them again and sends nothing that is answered"
    )


def _command(ledger: Ledger, plan: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Name the command that makes the plan the newest again."""
    file = str(plan["file"])
    elsewhere = "" if ledger.path == _USUAL_LEDGER else f" --ledger {shlex.quote(str(ledger.path))}"
    try:
        options = as_options(config, changed(config, load_job(file).config))
    except UserError:  # the file is gone, or in the making
        options = None
    if options is None:
        return f"`promptmill run` with the settings of run {plan['run_id']}"
    return f"`promptmill run {shlex.quote(file)}{options}{elsewhere}`"
