"""The ledger's tables and views, as an append-only list of migrations, each applied in its own transaction.

Tables are insert-only (apart from `journal_state`): an end is a row of its own, never an update, so nothing that was
booked can change. Times are UTC. Names are for people who write SQL: docs/sql.md explains each.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step; never edited once released."""

    step: int
    name: str
    sql: str


_TABLES = """
create table jobs (job varchar not null, job_file varchar, created_at timestamp not null);

create table plan_starts (
    plan_id bigint not null, job varchar not null, fingerprint varchar not null, input varchar not null,
    provider varchar not null, model varchar not null, created_at timestamp not null);
create table plan_ends (plan_id bigint not null, rows bigint not null, completed_at timestamp not null);
create table rows (
    plan_id bigint not null, row_index bigint not null, row_id varchar not null, key varchar not null,
    repeated boolean not null);

create table run_starts (
    run_id bigint not null, plan_id bigint not null, job varchar not null, command varchar not null,
    max_tokens bigint, config json not null, code_version varchar not null, pid bigint not null,
    started_at timestamp not null, journal_id varchar not null);
create table run_ends (run_id bigint not null, exit_code integer not null, reason varchar, ended_at timestamp not null);

create table attempts (
    run_id bigint not null, key varchar not null, attempt integer not null, kind varchar not null,
    lane varchar not null, provider varchar not null, model varchar not null, model_returned varchar,
    sent_at timestamp not null, latency_ms double, http_status integer, result varchar not null,
    finish_reason varchar, input_tokens bigint, cached_input_tokens bigint, cache_write_tokens bigint,
    output_tokens bigint, reasoning_tokens bigint, usage_json json, counted_tokens bigint, count_method varchar,
    cost_usd decimal(18,12), billed_usd decimal(18,12), computed_usd decimal(18,12), reserved_usd decimal(18,12),
    price_id varchar, request_id varchar, error_type varchar, error varchar,
    journal_id varchar not null, journal_offset bigint not null);
create table answers (
    run_id bigint not null, key varchar not null, attempt integer not null, output varchar, parsed json,
    finish_reason varchar, input_tokens bigint, output_tokens bigint, provider varchar not null,
    model varchar not null, model_returned varchar, latency_ms double, answered_at timestamp not null);
create table outcomes (
    run_id bigint not null, key varchar not null, status varchar not null, attempts integer not null,
    answer_run bigint, answer_attempt integer, max_tokens bigint, reused boolean not null,
    error_type varchar, error varchar, ended_at timestamp not null);

create table prices (
    run_id bigint not null, price_id varchar not null, provider varchar not null, model varchar not null,
    input decimal(18,12), cached_input decimal(18,12), cache_write decimal(18,12), output decimal(18,12),
    reasoning decimal(18,12), per_request decimal(18,12), currency varchar not null, effective_from varchar,
    source varchar, checked varchar, note varchar);
create table estimates (
    run_id bigint not null, plan_id bigint not null, rows bigint not null, requests bigint not null,
    input_tokens bigint not null, count_method varchar not null, low_usd decimal(38,12),
    expected_usd decimal(38,12), high_usd decimal(38,12), ceiling_usd decimal(38,12), made_at timestamp not null);

create table journal_state (
    journal_id varchar primary key, file varchar not null, uuid varchar not null, run_id bigint,
    journal_offset bigint not null, lines bigint not null, damaged bigint not null,
    last_checksum varchar, closed boolean not null);
create table journal_damage (
    journal_id varchar not null, journal_offset bigint not null, length bigint not null, torn boolean not null,
    found_at timestamp not null);
create table ledger_identity (ledger_id varchar not null, created_at timestamp not null);
"""

_VIEWS = """
create view plans as
select s.plan_id, s.job, s.fingerprint, s.input, s.provider, s.model, s.created_at,
       e.plan_id is not null as complete, e.rows, e.completed_at
from plan_starts s
left join (select plan_id, max(rows) as rows, min(completed_at) as completed_at from plan_ends group by plan_id) e
  using (plan_id);

create view runs as
select s.run_id, s.plan_id, s.job, s.command, s.max_tokens, s.config, s.code_version, s.pid, s.started_at,
       e.ended_at, e.exit_code, e.reason, s.journal_id
from run_starts s left join run_ends e using (run_id);

-- The one outcome that counts for a key in a job: a good answer is never hidden by a later failure, a cut-off
-- answer is better than none and a longer one better than a shorter, any answer is better than an error, and among
-- equals the newest run wins.
create view best_outcomes as
select r.job, o.key,
       arg_max(struct_pack(run_id := o.run_id, status := o.status, answer_run := o.answer_run,
                           answer_attempt := o.answer_attempt, max_tokens := o.max_tokens, reused := o.reused,
                           error_type := o.error_type, error := o.error),
               struct_pack(grade := case o.status when 'ok' then 2 when 'truncated' then 1 else 0 end,
                           room := case o.status when 'truncated' then coalesce(o.max_tokens, 9223372036854775807)
                                   else 0 end,
                           answered := o.answer_run is not null, run_id := o.run_id)) as best
from outcomes o join run_starts r using (run_id)
group by r.job, o.key;

create view results as
with newest as (select job, max(plan_id) as plan_id from plan_starts group by job),
     paid as (select r.job, a.key, sum(a.cost_usd) as cost_usd, count(*) as attempts
              from attempts a join run_starts r using (run_id) group by r.job, a.key)
select n.job, n.plan_id, w.row_index, w.row_id, w.key,
       coalesce(b.best.status, 'pending') as status,
       s.output, s.parsed, s.finish_reason,
       case when w.repeated or p.attempts is null then 0 else p.cost_usd end::decimal(18,12) as cost_usd,
       w.repeated or coalesce(b.best.reused, false) as reused,
       case when w.repeated then 0 else coalesce(p.attempts, 0) end as attempts,
       s.input_tokens, s.output_tokens, s.provider, s.model, s.model_returned, s.latency_ms, s.answered_at,
       b.best.error_type as error_type, b.best.error as error
from newest n
join rows w using (plan_id)
left join best_outcomes b on b.job = n.job and b.key = w.key
left join answers s on s.key = w.key and s.run_id = b.best.answer_run and s.attempt = b.best.answer_attempt
left join paid p on p.job = n.job and p.key = w.key;

create view errors as
select job, plan_id, row_index, row_id, key, status, error_type, error, output, attempts, cost_usd
from results where status not in ('ok', 'pending');

create view spend as
select r.job, r.plan_id, a.run_id, a.provider, a.model, a.lane, a.sent_at::date as day,
       count(*) as attempts, count(*) filter (where a.result = 'ok') as ok,
       sum(a.input_tokens)::bigint as input_tokens, sum(a.cached_input_tokens)::bigint as cached_input_tokens,
       sum(a.output_tokens)::bigint as output_tokens, sum(a.reasoning_tokens)::bigint as reasoning_tokens,
       sum(a.cost_usd) as cost_usd,
       sum(case when a.result = 'ok' and a.cost_usd is not null then 0 else a.cost_usd end) as wasted_usd,
       count(*) filter (where a.cost_usd is null) as unknown_cost,
       sum(a.reserved_usd) filter (where a.cost_usd is null) as unknown_at_most_usd
from attempts a join run_starts r using (run_id)
group by all;

create view forecast as
select r.job, e.plan_id, e.run_id, e.made_at, e.rows, e.requests, e.input_tokens, e.count_method,
       e.low_usd, e.expected_usd, e.high_usd, e.ceiling_usd, s.cost_usd as actual_usd, s.attempts
from estimates e join run_starts r using (run_id)
left join (select run_id, sum(cost_usd) as cost_usd, count(*) as attempts from attempts group by run_id) s
  on s.run_id = e.run_id;
"""

_SPEND_BY_RETURNED_MODEL = """
create or replace view spend as
select r.job, r.plan_id, a.run_id, a.provider, a.model, a.model_returned, a.lane, a.sent_at::date as day,
       count(*) as attempts, count(*) filter (where a.result = 'ok') as ok,
       sum(a.input_tokens)::bigint as input_tokens, sum(a.cached_input_tokens)::bigint as cached_input_tokens,
       sum(a.output_tokens)::bigint as output_tokens, sum(a.reasoning_tokens)::bigint as reasoning_tokens,
       sum(a.cost_usd) as cost_usd,
       sum(case when a.result = 'ok' and a.cost_usd is not null then 0 else a.cost_usd end) as wasted_usd,
       count(*) filter (where a.cost_usd is null) as unknown_cost,
       sum(a.reserved_usd) filter (where a.cost_usd is null) as unknown_at_most_usd
from attempts a join run_starts r using (run_id)
group by all;
"""

_MONEY_AFTER = """
-- `repaired`: the last attempt of a key in a run that repairs; an invalid answer before it was not in vain.
-- Without a bound for one of several unknown costs their sum has none either: `unknown_unbounded` says so.
create or replace view spend as
with judged as (
    select a.*, r.job, r.plan_id,
           case when a.result = 'ok' then 'none'
                when a.result in ('truncated', 'refused') then a.result
                when a.result = 'invalid' then case when a.attempt < p.last then 'repaired' else 'invalid' end
                else 'failed' end as cause
    from attempts a join run_starts r using (run_id)
    left join (select run_id, key, max(attempt) as last from attempts where kind = 'repair' group by all) p
      on p.run_id = a.run_id and p.key = a.key)
select job, plan_id, run_id, provider, model, model_returned, lane, sent_at::date as day,
       count(*) as attempts, count(*) filter (where result = 'ok') as ok,
       sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       sum(cost_usd) as cost_usd,
       sum(case when cause = 'none' and cost_usd is not null then 0 else cost_usd end) as wasted_usd,
       sum(cost_usd) filter (where cause = 'failed') as wasted_failed_usd,
       sum(cost_usd) filter (where cause = 'repaired') as wasted_repaired_usd,
       sum(cost_usd) filter (where cause = 'truncated') as wasted_truncated_usd,
       sum(cost_usd) filter (where cause = 'invalid') as wasted_invalid_usd,
       sum(cost_usd) filter (where cause = 'refused') as wasted_refused_usd,
       count(*) filter (where cost_usd is null) as unknown_cost,
       sum(reserved_usd) filter (where cost_usd is null) as unknown_at_most_usd,
       count(*) filter (where cost_usd is null and reserved_usd is null) as unknown_unbounded,
       sum(billed_usd) filter (where computed_usd is not null) as billed_usd,
       sum(computed_usd) filter (where billed_usd is not null) as billed_computed_usd
from judged
group by all;

-- Judged against low to high, or low to ceiling where no high figure was made. What is known of a run's cost is
-- enough to say `above`; the other words wait for the run's end, and for the bounds of what can't be known.
create or replace view forecast as
with spent as (
    select run_id, sum(cost_usd) as cost_usd, count(*) as attempts,
           count(*) filter (where cost_usd is null) as unknown_cost,
           case when count(*) filter (where cost_usd is null and reserved_usd is null) = 0
                then coalesce(sum(reserved_usd) filter (where cost_usd is null), 0) end as unknown_at_most_usd
    from attempts group by run_id),
sides as (
    select r.job, e.*, coalesce(s.attempts, 0) as attempts, coalesce(s.unknown_cost, 0) as unknown_cost,
           case when s.attempts is null then 0 else s.cost_usd end as actual_usd, coalesce(s.cost_usd, 0) as known_usd,
           case when s.attempts is null then 0 else s.unknown_at_most_usd end as unknown_at_most_usd,
           coalesce(e.high_usd, e.ceiling_usd) as upper_usd,
           coalesce(n.exit_code in (0, 3), false) as finished
    from estimates e join run_starts r using (run_id) left join run_ends n using (run_id)
    left join spent s using (run_id))
select job, plan_id, run_id, made_at, rows, requests, input_tokens, count_method,
       low_usd, expected_usd, high_usd, ceiling_usd, actual_usd, attempts, unknown_cost, unknown_at_most_usd, finished,
       case when low_usd is null or upper_usd is null then null
            when known_usd > upper_usd then 'above'
            when not finished then 'unfinished'
            when known_usd + unknown_at_most_usd < low_usd then 'below'
            when known_usd >= low_usd and known_usd + unknown_at_most_usd <= upper_usd then 'inside'
            else 'uncertain' end as verdict
from sides;

-- Only first attempts: what a repair adds to the request is no matter of counting rows.
create view drift as
select provider, model, count_method, count(*) as attempts,
       sum(counted_tokens)::bigint as counted_tokens, sum(input_tokens)::bigint as input_tokens,
       sum(input_tokens) / sum(counted_tokens) as ratio,
       avg(abs(input_tokens - counted_tokens)) as mean_difference,
       quantile_cont(abs(input_tokens - counted_tokens), 0.95) as p95_difference
from attempts
where kind = 'first' and result in ('ok', 'truncated', 'invalid', 'refused')
  and input_tokens is not null and counted_tokens > 0
group by all;
"""

_PRICE_TERMS = """
-- What a price has beyond its components: context tiers, lanes, time windows, ... in the words of a price file.
alter table prices add column terms json;

-- Dollars of a usage at any prices (per 1M tokens); exact for prices of up to 6 decimals. Cached and cache-write tokens
-- are part of the input, reasoning tokens of the output. Tokens come first, so that nothing is rounded on the way.
create macro reprice(input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                     input, cached_input, cache_write, output, reasoning) as
    cast(cast((input_tokens - cached_input_tokens - cache_write_tokens) as decimal(14,0)) * 0.000001
             * cast(input as decimal(18,12))
         + cast(cached_input_tokens as decimal(14,0)) * 0.000001 * cast(cached_input as decimal(18,12))
         + cast(cache_write_tokens as decimal(14,0)) * 0.000001 * cast(cache_write as decimal(18,12))
         + cast((output_tokens - reasoning_tokens) as decimal(14,0)) * 0.000001 * cast(output as decimal(18,12))
         + cast(reasoning_tokens as decimal(14,0)) * 0.000001 * cast(reasoning as decimal(18,12)) as decimal(38,12));
"""

_REPRICE_AS_COSTS = """
-- To 12 decimals, half to even: casting to decimal rounds half up.
create macro half_even(amount) as
    cast(amount as decimal(38,12))
    - case when abs(cast(amount as decimal(38,12)) - amount) = 0.0000000000005
                and cast(amount as decimal(38,12)) % 0.000000000002 <> 0
           then 0.000000000001 else 0 end;

create macro tokens_usd(tokens, price) as
    case when tokens < 0 then 0 else cast(tokens as decimal(14,0)) end * 0.000001 * cast(price as decimal(18,12));

-- Dollars of a usage at any prices (per 1M tokens), to the last digit what a cost would be. Cached and cache-write
-- tokens are part of the input, reasoning tokens of the output; a contradicting usage is charged by its parts.
create or replace macro reprice(input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                                input, cached_input, cache_write, output, reasoning) as
    half_even(tokens_usd(input_tokens - cached_input_tokens - cache_write_tokens, input)
              + tokens_usd(cached_input_tokens, cached_input) + tokens_usd(cache_write_tokens, cache_write)
              + tokens_usd(output_tokens - reasoning_tokens, output) + tokens_usd(reasoning_tokens, reasoning));
"""

_BEST = """
-- As before, at a fifth of the time and memory: what counts is one number (a grade of 2 bits, room of 40, answered, the
-- run), and until it is decided only the place of an outcome is carried along.
create or replace view best_outcomes as
with placed as (
    select r.job, o.key,
           arg_max(o.rowid,
                   (case o.status when 'ok' then 2 when 'truncated' then 1 else 0 end)::hugeint
                       * 1208925819614629174706176
                   + (case o.status when 'truncated' then least(coalesce(o.max_tokens, 1099511627775), 1099511627775)
                      else 0 end)::hugeint * 1099511627776
                   + case when o.answer_run is not null then 549755813888 else 0 end
                   + o.run_id) as place
    from outcomes o join run_starts r using (run_id)
    group by r.job, o.key)
select p.job, {key},
       struct_pack(run_id := o.run_id, status := o.status, answer_run := o.answer_run,
                   answer_attempt := o.answer_attempt, max_tokens := o.max_tokens, reused := o.reused,
                   error_type := o.error_type, error := o.error) as best
from placed p join outcomes o on o.rowid = p.place;
"""

_BEST_BY_PLACE = _BEST.format(key="o.key")
_BEST_BY_KEY = _BEST.format(key="p.key")
"""The same, and a condition on keys holds before it is decided which of their outcomes count."""

_PROMPTS = """
-- What shapes a run's answers: equal for runs with the same prompt, model and parameters, whatever their input.
alter table run_starts add column prompt_id varchar;
create or replace view runs as
select s.run_id, s.plan_id, s.job, s.command, s.max_tokens, s.prompt_id, s.config, s.code_version, s.pid, s.started_at,
       e.ended_at, e.exit_code, e.reason, s.journal_id
from run_starts s left join run_ends e using (run_id);
"""

_NEVER_ZERO = """
-- As before, but where costs are unknown and the known ones add up to nothing, what is known says nothing: NULL.
-- Failures that were not billed cost 0 without a price, too, and would make unknown costs look like free ones.
create or replace view results as
with newest as (select job, max(plan_id) as plan_id from plan_starts group by job),
     paid as (select r.job, a.key, count(*) as attempts,
                     case when count(a.cost_usd) < count(*) then nullif(sum(a.cost_usd), 0)
                          else sum(a.cost_usd) end as cost_usd
              from attempts a join run_starts r using (run_id) group by r.job, a.key)
select n.job, n.plan_id, w.row_index, w.row_id, w.key,
       coalesce(b.best.status, 'pending') as status,
       s.output, s.parsed, s.finish_reason,
       case when w.repeated or p.attempts is null then 0 else p.cost_usd end::decimal(18,12) as cost_usd,
       w.repeated or coalesce(b.best.reused, false) as reused,
       case when w.repeated then 0 else coalesce(p.attempts, 0) end as attempts,
       s.input_tokens, s.output_tokens, s.provider, s.model, s.model_returned, s.latency_ms, s.answered_at,
       b.best.error_type as error_type, b.best.error as error
from newest n
join rows w using (plan_id)
left join best_outcomes b on b.job = n.job and b.key = w.key
left join answers s on s.key = w.key and s.run_id = b.best.answer_run and s.attempt = b.best.answer_attempt
left join paid p on p.job = n.job and p.key = w.key;

create or replace view spend as
with judged as (
    select a.*, r.job, r.plan_id,
           case when a.result = 'ok' then 'none'
                when a.result in ('truncated', 'refused') then a.result
                when a.result = 'invalid' then case when a.attempt < p.last then 'repaired' else 'invalid' end
                else 'failed' end as cause
    from attempts a join run_starts r using (run_id)
    left join (select run_id, key, max(attempt) as last from attempts where kind = 'repair' group by all) p
      on p.run_id = a.run_id and p.key = a.key)
select job, plan_id, run_id, provider, model, model_returned, lane, sent_at::date as day,
       count(*) as attempts, count(*) filter (where result = 'ok') as ok,
       sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       case when count(cost_usd) < count(*) then nullif(sum(cost_usd), 0) else sum(cost_usd) end as cost_usd,
       case when count(cost_usd) = count(*) or sum(cost_usd) > 0
            then sum(case when cause = 'none' then 0 else cost_usd end) end as wasted_usd,
       sum(cost_usd) filter (where cause = 'failed') as wasted_failed_usd,
       sum(cost_usd) filter (where cause = 'repaired') as wasted_repaired_usd,
       sum(cost_usd) filter (where cause = 'truncated') as wasted_truncated_usd,
       sum(cost_usd) filter (where cause = 'invalid') as wasted_invalid_usd,
       sum(cost_usd) filter (where cause = 'refused') as wasted_refused_usd,
       count(*) filter (where cost_usd is null) as unknown_cost,
       sum(reserved_usd) filter (where cost_usd is null) as unknown_at_most_usd,
       count(*) filter (where cost_usd is null and reserved_usd is null) as unknown_unbounded,
       sum(billed_usd) filter (where computed_usd is not null) as billed_usd,
       sum(computed_usd) filter (where billed_usd is not null) as billed_computed_usd
from judged
group by all;

create or replace view forecast as
with spent as (
    select run_id, sum(cost_usd) as cost_usd, count(*) as attempts,
           count(*) filter (where cost_usd is null) as unknown_cost,
           case when count(*) filter (where cost_usd is null and reserved_usd is null) = 0
                then coalesce(sum(reserved_usd) filter (where cost_usd is null), 0) end as unknown_at_most_usd
    from attempts group by run_id),
sides as (
    select r.job, e.*, coalesce(s.attempts, 0) as attempts, coalesce(s.unknown_cost, 0) as unknown_cost,
           case when s.attempts is null then 0 when s.unknown_cost > 0 then nullif(s.cost_usd, 0)
                else s.cost_usd end as actual_usd,
           coalesce(s.cost_usd, 0) as known_usd,
           case when s.attempts is null then 0 else s.unknown_at_most_usd end as unknown_at_most_usd,
           coalesce(e.high_usd, e.ceiling_usd) as upper_usd,
           coalesce(n.exit_code in (0, 3), false) as finished
    from estimates e join run_starts r using (run_id) left join run_ends n using (run_id)
    left join spent s using (run_id))
select job, plan_id, run_id, made_at, rows, requests, input_tokens, count_method,
       low_usd, expected_usd, high_usd, ceiling_usd, actual_usd, attempts, unknown_cost, unknown_at_most_usd, finished,
       case when low_usd is null or upper_usd is null then null
            when known_usd > upper_usd then 'above'
            when not finished then 'unfinished'
            when known_usd + unknown_at_most_usd < low_usd then 'below'
            when known_usd >= low_usd and known_usd + unknown_at_most_usd <= upper_usd then 'inside'
            else 'uncertain' end as verdict
from sides;
"""

_REPRICE_CACHED = """
-- A share of tokens, in whole ones; without a share what was booked. No share is below 0 or above 1: that is NULL.
create macro share_of(tokens, share, booked) as
    case when share is null then booked
         when share between 0 and 1
         then cast(floor(cast(tokens as decimal(19,0)) * cast(share as decimal(18,12))) as bigint) end;

-- As before; with a cached_share that part of each attempt's input counts as read from the cache, and a written_share
-- (or nothing) as written to it, in place of what was booked.
create or replace macro reprice(input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                                input, cached_input, cache_write, output, reasoning,
                                cached_share := null, written_share := null) as
    half_even(tokens_usd(input_tokens
                         - share_of(input_tokens, coalesce(cached_share, 0 * written_share), cached_input_tokens)
                         - share_of(input_tokens, coalesce(written_share, 0 * cached_share), cache_write_tokens), input)
              + tokens_usd(share_of(input_tokens, coalesce(cached_share, 0 * written_share), cached_input_tokens),
                           cached_input)
              + tokens_usd(share_of(input_tokens, coalesce(written_share, 0 * cached_share), cache_write_tokens),
                           cache_write)
              + tokens_usd(output_tokens - reasoning_tokens, output) + tokens_usd(reasoning_tokens, reasoning));
"""

_REPRICE_SHARES = """
-- As before, but shares that are more than all of the input together are NULL, too.
create or replace macro reprice(input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                                input, cached_input, cache_write, output, reasoning,
                                cached_share := null, written_share := null) as
    case when try_cast(coalesce(cached_share, 0) as decimal(18,12))
              + try_cast(coalesce(written_share, 0) as decimal(18,12)) <= 1
    then half_even(
        tokens_usd(input_tokens
                   - share_of(input_tokens, coalesce(cached_share, 0 * written_share), cached_input_tokens)
                   - share_of(input_tokens, coalesce(written_share, 0 * cached_share), cache_write_tokens), input)
        + tokens_usd(share_of(input_tokens, coalesce(cached_share, 0 * written_share), cached_input_tokens),
                     cached_input)
        + tokens_usd(share_of(input_tokens, coalesce(written_share, 0 * cached_share), cache_write_tokens),
                     cache_write)
        + tokens_usd(output_tokens - reasoning_tokens, output) + tokens_usd(reasoning_tokens, reasoning)) end;
"""

_PAUSE_KINDS = """
-- What made a run pause, in one word, for scripts. NULL: it finished, was killed, or an older promptmill ran it.
alter table run_ends add column pause_kind varchar;
create or replace view runs as
select s.run_id, s.plan_id, s.job, s.command, s.max_tokens, s.prompt_id, s.config, s.code_version, s.pid, s.started_at,
       e.ended_at, e.exit_code, e.reason, e.pause_kind, s.journal_id
from run_starts s left join run_ends e using (run_id);
"""

_SPEND_ACROSS_RUNS = """
-- As before, but an invalid answer that a later run repaired is a repaired one, and a bill counts without a price, too.
create or replace view spend as
with resumed as (
    select a.run_id, r.job, a.key from attempts a join run_starts r using (run_id)
    where a.kind = 'repair' and a.attempt = 1),
     left_open as (
    select distinct f.key, max(a.run_id) as run_id
    from resumed f join attempts a on a.key = f.key and a.run_id < f.run_id and a.result = 'invalid'
    join run_starts r on r.run_id = a.run_id and r.job = f.job
    group by f.job, f.key, f.run_id),
     judged as (
    select a.*, r.job, r.plan_id,
           case when a.result = 'ok' then 'none'
                when a.result in ('truncated', 'refused') then a.result
                when a.result = 'invalid' then case when a.attempt < p.last or l.key is not null then 'repaired'
                                                  else 'invalid' end
                else 'failed' end as cause
    from attempts a join run_starts r using (run_id)
    left join (select run_id, key, max(attempt) as last from attempts where kind = 'repair' group by all) p
      on p.run_id = a.run_id and p.key = a.key
    left join left_open l on l.run_id = a.run_id and l.key = a.key)
select job, plan_id, run_id, provider, model, model_returned, lane, sent_at::date as day,
       count(*) as attempts, count(*) filter (where result = 'ok') as ok,
       sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(reasoning_tokens)::bigint as reasoning_tokens,
       case when count(cost_usd) < count(*) then nullif(sum(cost_usd), 0) else sum(cost_usd) end as cost_usd,
       case when count(cost_usd) = count(*) or sum(cost_usd) > 0
            then sum(case when cause = 'none' then 0 else cost_usd end) end as wasted_usd,
       sum(cost_usd) filter (where cause = 'failed') as wasted_failed_usd,
       sum(cost_usd) filter (where cause = 'repaired') as wasted_repaired_usd,
       sum(cost_usd) filter (where cause = 'truncated') as wasted_truncated_usd,
       sum(cost_usd) filter (where cause = 'invalid') as wasted_invalid_usd,
       sum(cost_usd) filter (where cause = 'refused') as wasted_refused_usd,
       count(*) filter (where cost_usd is null) as unknown_cost,
       sum(reserved_usd) filter (where cost_usd is null) as unknown_at_most_usd,
       count(*) filter (where cost_usd is null and reserved_usd is null) as unknown_unbounded,
       sum(billed_usd) as billed_usd,
       sum(computed_usd) filter (where billed_usd is not null) as billed_computed_usd,
       sum(billed_usd) filter (where computed_usd is not null) as billed_priced_usd
from judged
group by all;
"""

_MODELS_OF_FAILED_ROWS = """
-- As before, and rows that ended without an answer have the model that was asked, too.
create or replace view results as
with newest as (select job, max(plan_id) as plan_id from plan_starts group by job),
     paid as (select r.job, a.key, count(*) as attempts,
                     case when count(a.cost_usd) < count(*) then nullif(sum(a.cost_usd), 0)
                          else sum(a.cost_usd) end as cost_usd
              from attempts a join run_starts r using (run_id) group by r.job, a.key)
select n.job, n.plan_id, w.row_index, w.row_id, w.key,
       coalesce(b.best.status, 'pending') as status,
       s.output, s.parsed, s.finish_reason,
       case when w.repeated or p.attempts is null then 0 else p.cost_usd end::decimal(18,12) as cost_usd,
       w.repeated or coalesce(b.best.reused, false) as reused,
       case when w.repeated then 0 else coalesce(p.attempts, 0) end as attempts,
       s.input_tokens, s.output_tokens, s.provider,
       coalesce(s.model, case when b.best is not null then ps.model end) as model, s.model_returned, s.latency_ms,
       s.answered_at,
       b.best.error_type as error_type, b.best.error as error
from newest n
join rows w using (plan_id)
join plan_starts ps using (plan_id)
left join best_outcomes b on b.job = n.job and b.key = w.key
left join answers s on s.key = w.key and s.run_id = b.best.answer_run and s.attempt = b.best.answer_attempt
left join paid p on p.job = n.job and p.key = w.key;
"""

MIGRATIONS = (
    Migration(1, "tables", _TABLES),
    Migration(2, "views", _VIEWS),
    Migration(3, "spend by the model that answered", _SPEND_BY_RETURNED_MODEL),
    Migration(4, "wasted by cause, estimates judged, drift of counts", _MONEY_AFTER),
    Migration(5, "terms of prices, re-pricing", _PRICE_TERMS),
    Migration(6, "re-pricing rounds as costs do", _REPRICE_AS_COSTS),
    Migration(7, "the outcome that counts, found faster", _BEST_BY_PLACE),
    Migration(8, "the outcome that counts, of some keys", _BEST_BY_KEY),
    Migration(9, "runs know their prompt", _PROMPTS),
    Migration(10, "unknown costs never look like zero", _NEVER_ZERO),
    Migration(11, "re-pricing with a share from the cache", _REPRICE_CACHED),
    Migration(12, "re-pricing with no more than all of the input", _REPRICE_SHARES),
    Migration(13, "what made a run pause", _PAUSE_KINDS),
    Migration(14, "repairs in a later run, bills without a price", _SPEND_ACROSS_RUNS),
    Migration(15, "rows without an answer name their model", _MODELS_OF_FAILED_ROWS),
)
NEWEST = MIGRATIONS[-1].step
