"""The outputs of a job in input order, one line per row of its newest plan, in pieces of bounded size.

What belongs to a row is found once, by place; then each piece fetches texts from a narrow part of the tables.
"""

_BEST = """create temp table best as
    select key, best.status as status, best.reused as reused, best.error_type as error_type, best.error as error,
           best.answer_run as answer_run, best.answer_attempt as answer_attempt
    from best_outcomes where job = getvariable('job')"""
_PAID = """create temp table paid as
    select a.key, count(*) as attempts,
           case when count(a.cost_usd) < count(*) then nullif(sum(a.cost_usd), 0) else sum(a.cost_usd) end as cost_usd
    from attempts a join run_starts r using (run_id) where r.job = getvariable('job') group by a.key"""
_PLACED = """create temp table placed as
    select w.row_index, w.row_id, w.key, w.repeated, b.* exclude (key)
    from rows w left join best b using (key)
    where w.plan_id = (select max(plan_id) from plan_starts where job = getvariable('job'))"""
_KEYS = """create temp table placed as
    select w.key, false as repeated, b.* exclude (key)
    from (select key from best union select key from paid) w left join best b using (key)"""
_ANSWERED = (
    "create temp table priced as select w.*, p.cost_usd, p.attempts from placed w left join paid p using (key)",
    "drop table placed; drop table paid",
    """create temp table answered as
    select w.* exclude (answer_run, answer_attempt), s.rowid as answer
    from priced w
    left join answers s on s.key = w.key and s.run_id = w.answer_run and s.attempt = w.answer_attempt""",
    "drop table priced",
)
PLACES = (
    _BEST,
    _PLACED,
    "drop table best",
    _PAID,
    *_ANSWERED,
    "create temp table places as select * from answered order by row_index",
    "drop table answered",
)
"""Make a temporary table of the rows of a job's newest plan; the variable `job` has the job's name.

A step at a time: each holds one table of keys in memory, and five million rows fit into 1 GB.
"""
ALL_KEYS = (_BEST, _PAID, _KEYS, "drop table best", *_ANSWERED, "alter table answered rename to places")
"""The same of every key that the job ever asked for, under whatever prompt."""
STATUSES = """
select coalesce(status, 'pending') as status, count(*) as rows, max(row_index) as last from places group by all
"""
WHOLE = """
with newest as (select coalesce(arg_max(complete, plan_id), false) as complete, max(plan_id) as plan_id
                from plans where job = getvariable('job'))
select complete, coalesce((select max(rows) from estimates where plan_id = newest.plan_id), 0) as counted from newest
"""
"""Whether the rows are all that there are, and as how many an estimate has counted them."""
_COLUMNS = """
       coalesce(w.status, 'pending') as status, s.output, s.parsed, s.finish_reason,
       case when w.repeated or w.attempts is null then 0 else w.cost_usd end::decimal(18,12) as cost_usd,
       w.repeated or coalesce(w.reused, false) as reused,
       case when w.repeated then 0 else coalesce(w.attempts, 0) end as attempts,
       s.input_tokens, s.output_tokens, s.provider,
       coalesce(s.model, case when w.status is not null then
           (select arg_max(model, plan_id) from plan_starts where job = getvariable('job')) end) as model,
       s.model_returned, s.latency_ms, s.answered_at,
       w.error_type, w.error
"""
_FROM_PLACES = "from places w left join answers s on s.rowid = w.answer"
PIECE = f"""
select w.row_index, w.row_id, w.key, {_COLUMNS} {_FROM_PLACES}
where w.row_index between $1 and $2 order by w.row_index
"""
"""The columns of the view `results`, for rows from one index to another."""
OF_KEYS = f"select w.key, {_COLUMNS} {_FROM_PLACES} where w.key = any($1)"
"""The same without what belongs to the row and not to its key."""
OF_OTHERS = f"""
with lent as (select unnest($1) as key, unnest($2) as status, unnest($3) as run_id, unnest($4) as attempt),
     w as (select lent.* exclude (attempt), lent.attempt as answer_attempt, false as repeated, true as reused,
                  p.attempts, p.cost_usd, null::varchar as error_type, null::varchar as error
           from lent left join places p using (key))
select w.key, {_COLUMNS}
from w join answers s on s.key = w.key and s.run_id = w.run_id and s.attempt = w.answer_attempt
"""  # noqa: S608 -- a constant
"""The same where other jobs' answers are taken: of which key, how it ended, and which attempt of which run."""

NEWEST_PLAN = """
select p.fingerprint, r.run_id, r.config
from plans p join runs r using (plan_id) where p.job = $1 order by r.run_id desc limit 1
"""
"""The plan whose rows these are, and the newest run that worked on it."""
READS = (("input", "input", "path"), ("prompt file", "prompt", "file"), ("schema file", "output", "schema_file"))
"""Which files a job reads: what each is called, and the section and key of the job file that name it."""
READ_BEFORE = """
select * from (
    select 'input' as what, input as path from plan_starts where job = $1
    union select 'input', config->>'$.input.path' from run_starts where job = $1
    union select 'job file', job_file from jobs where job = $1
    union select 'prompt file', config->>'$.prompt.file' from run_starts where job = $1
    union select 'schema file', config->>'$.output.schema_file' from run_starts where job = $1)
where path is not null order by all
"""
"""The same of all runs of a job, its own file included. Runs of one plan may have named its input differently."""
