"""Rows of a job that did not end well, grouped by cause, with one example each; and how the others stand."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import LEFT, PAUSED, condition_of

SQL = """
with unknown as (select a.key, count(*) as attempts from attempts a join run_starts r using (run_id)
                 where r.job = $1 and a.cost_usd is null group by a.key)
select e.status, e.error_type, count(*) as rows,
       case when count(u.key) > 0 then nullif(sum(e.cost_usd), 0) else sum(e.cost_usd) end as cost_usd,
       coalesce(sum(u.attempts), 0)::bigint as unknown_cost,
       arg_min(e.row_id, e.row_index) as example_row, arg_min(e.error, e.row_index) as example
from errors e left join unknown u on u.key = e.key and e.attempts > 0
where e.job = $1 group by e.status, e.error_type order by rows desc, e.status, e.error_type
"""
"""`attempts` of a row are none where an earlier row bears the cost of its key. Unknown costs never look like zero."""
COUNTS = """
with newest as (select max(plan_id) as plan_id from plan_starts where job = $1),
     listed as (select key from rows where plan_id = (select plan_id from newest)),
     counted as (select max(rows) as rows from estimates where plan_id = (select plan_id from newest))
select greatest((select count(*) from listed), coalesce((select rows from counted), 0)) as rows,
       (select count(*) from listed
        where key in (select o.key from outcomes o join run_starts r using (run_id) where r.job = $1)) as ended
"""
"""The rows that there are, and those that have ended however: a fraction of what the view `results` takes.

As in `status` an estimate has counted rows that no run has listed yet."""

JOB_FILE = "select max(job_file) as file from jobs where job = $1"
NEWEST_RUN = """
select r.run_id, r.config, r.ended_at, r.exit_code, r.reason, r.pause_kind, coalesce(p.complete, false) as complete
from runs r left join plans p using (plan_id) where r.job = $1 order by r.run_id desc limit 1
"""
UNFINISHED_RETRY = """
with own as (select * from runs where job = $1)
select run_id, command, config from own
where command like 'retry%' and run_id > (select coalesce(max(run_id), 0) from own where exit_code in (0, 3))
  and prompt_id = (select arg_max(prompt_id, run_id) from own)
order by run_id desc limit 1
"""
"""The newest retry that another like it would go on with: none of the job went to its end since."""

_BUDGET = re.compile(r" --budget [^\s`]+")

_ADVICE = {
    "truncated": "promptmill retry {job} --status truncated --max-tokens N    (with a larger N)",
    "invalid": "promptmill retry {job} --status invalid    ({helps} more)",
    "refused": "the model or its filter refused: change the prompt or leave these rows out with [input] where",
    "rejected": "promptmill retry {job} --status rejected    (helps only where what the message says was put right)",
    "failed": "promptmill retry {job} --status failed",
}
"""The command, or the thought, that helps rows of a status."""
_ADVICE_BY_CAUSE = {
    "bad_row": "no provider has seen these rows, and they cost nothing: mend them or the prompt, then run again",
    "never_fits": "a stated limit held these rows back: the next run under a higher limit sends them",
    "context_full": "shorter rows or a model with a longer context help; the same ones end so again",
    "timeout": "promptmill retry {job} --status failed    (a larger [limits] timeout_seconds helps, or a smaller"
    " concurrency where the server lets requests wait for each other)",
    "never_passes": "promptmill retry {job} --status rejected    (shorter rows or a larger quota helps more)",
}
"""The same for rejected rows that no provider has judged."""
EACH_ROW = """
each row: promptmill sql{ledger} "select row_id, status, error_type, error from errors where job = '{job}'"
""".strip()
"""The command that lists the rows themselves; `ledger` is the option that names it, if that is needed."""


def advice(
    status: str, job: str, config: Mapping[str, Any], causes: Iterable[str | None] = (), *, retry: bool = True
) -> list[str]:
    """Say what helps rows of a status; `job` is the job's file with the options that it needs.

    Without `retry` nothing is said where that is one: not as long as another has to be brought to its end.
    """
    output = config.get("output", {})
    repairable = ("schema" in output or "schema_file" in output) and not output.get("repair")
    clearer = "a clearer prompt, with `promptmill run`,"  # to a retry it would be every request anew
    helps = f"{clearer} or [output] repair helps" if repairable else f"{clearer} helps"
    by_cause = {cause: _ADVICE_BY_CAUSE[cause] for cause in causes if cause in _ADVICE_BY_CAUSE}
    texts = [(f"{status} ({cause})", text) for cause, text in by_cause.items()]
    if by_cause.keys() < {*causes} or not texts:
        texts.insert(0, (status, _ADVICE[status]))
    return [
        f"{what}: {text.format(job=job, helps=helps)}"
        for what, text in texts
        if retry or not text.startswith("promptmill retry")
    ]


def is_done(counts: Mapping[str, int], newest: Mapping[str, Any]) -> bool:
    """Tell whether every row of the newest plan has ended, as lines of COUNTS and NEWEST_RUN say it."""
    return bool(newest["complete"]) and counts["rows"] == counts["ended"]


def standing(
    bad: int, counts: Mapping[str, int], newest: Mapping[str, Any], pid: int | None, job: str, *, retry: str | None
) -> list[str]:
    """Say how the rows stand that did not end badly, and why the newest run left any.

    `counts` is a line of COUNTS, `newest` one of NEWEST_RUN, `pid` that of a run that goes on, `retry` the command
    that goes on with a retry that was interrupted.
    """
    done = is_done(counts, newest)
    pending = counts["rows"] - counts["ended"]
    lines = [_rows(counts["ended"] - bad, bad, pending, complete=newest["complete"])]
    if retry is not None and pid is None:
        lines.append(_first_the_retry(newest, retry, None if done else job))
    elif not done:
        lines.append(_why(newest, pid, job))
    return lines


def _rows(ok: int, bad: int, pending: int, *, complete: bool) -> str:
    unread = "" if complete else "; the input was not read to its end"
    if ok + bad == 0:
        return f"no row has ended yet: {pending:,} pending{unread}"
    rest = f", {pending:,} pending{unread}" if pending else unread
    if bad:
        return f"{ok:,} rows ended well, {bad:,} did not{rest}"
    return f"every row that has ended ended well: {ok:,} ok{rest}" if rest else f"all rows ended well: {ok:,} ok"


def _why(newest: Mapping[str, Any], pid: int | None, job: str) -> str:
    run = f"run {newest['run_id']}"
    if pid is not None:
        return f"{run} goes on (process {pid})"
    if newest["exit_code"] in {0, 3}:
        return f"{run} went to its end; `promptmill run {job}` lists and sends what is left"
    return f"{run} {_stopped(newest)}`promptmill run {_further(newest, job)}` goes on{_condition(newest)}"


def _stopped(newest: Mapping[str, Any]) -> str:
    """Say what became of a run that did not go to its end, in the words of `status`."""
    if newest["ended_at"] is None:
        return "was killed; "
    if newest["exit_code"] == LEFT:
        return "was left with a second Ctrl-C, and what was on the wire is lost; "
    return f"{'paused' if newest['exit_code'] == PAUSED else 'failed'}: {newest['reason']}. "


def _further(newest: Mapping[str, Any], command: str) -> str:
    """Leave a place for the higher budget where the one that is used up stood."""
    return _BUDGET.sub(" --budget N", command) if newest["pause_kind"] == "budget" else command


def _condition(newest: Mapping[str, Any]) -> str:
    said = condition_of(newest["pause_kind"])
    return f" {said}" if said else ""


def _first_the_retry(newest: Mapping[str, Any], retry: str, job: str | None) -> str:
    """Say what comes first: a run that ends makes the retry over, and what that has asked would be paid for again."""
    rest = "" if job is None else f"; then `promptmill run {job}` sends the rest"
    return (
        f"run {newest['run_id']} {_stopped(newest)}{_further(newest, retry)} goes on with the retry"
        f"{_condition(newest)}{rest}. After any other run or retry that ends before, the retry asks all its rows again"
    )
