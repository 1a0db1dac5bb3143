"""Jobs of the ledger: how far each is, what it spent, how its newest run ended."""

SQL = """
with newest_run as (select job, arg_max(struct_pack(run_id := run_id, started_at := started_at, ended_at := ended_at,
                                                    exit_code := exit_code, reason := reason,
                                                    pause_kind := pause_kind), run_id) as run
                    from runs group by job),
     counts as (select job, count(*) as rows, count(*) filter (where status = 'ok') as ok,
                       count(*) filter (where status = 'pending') as pending,
                       count(*) filter (where status not in ('ok', 'pending')) as bad
                from results group by job),
     money as (select job, sum(unknown_cost)::bigint as unknown_cost,
                      case when sum(unknown_cost) > 0 then nullif(sum(cost_usd), 0) else sum(cost_usd) end as cost_usd
               from spend group by job),
     complete as (select job, arg_max(complete, plan_id) as complete, max(plan_id) as plan_id from plans group by job),
     counted as (select plan_id, max(rows) as rows from estimates group by plan_id)
select j.job, greatest(coalesce(c.rows, 0), coalesce(e.rows, 0)) as rows, coalesce(c.rows, 0) as listed,
       coalesce(p.complete, false) as complete, coalesce(c.ok, 0) as ok, coalesce(c.bad, 0) as bad,
       coalesce(c.pending, 0) + greatest(coalesce(e.rows, 0) - coalesce(c.rows, 0), 0) as pending,
       case when m.job is null then 0 else m.cost_usd end as cost_usd,
       coalesce(m.unknown_cost, 0) as unknown_cost,
       r.run.run_id as run_id, r.run.started_at as started_at, r.run.ended_at as ended_at,
       r.run.exit_code as exit_code, r.run.reason as reason, r.run.pause_kind as pause_kind
from jobs j left join counts c using (job) left join money m using (job) left join newest_run r using (job)
left join complete p using (job) left join counted e on e.plan_id = p.plan_id
order by r.run.run_id desc
"""
"""`rows`: those of the newest plan, as far as they are `listed`, or as many as an estimate of it has counted."""
DAMAGE = """
select journal_id, count(*) as pieces, sum(length)::bigint as bytes, min(journal_offset) as first_at
from journal_damage where not torn group by journal_id order by journal_id
"""
