"""Attempts by what decides their price, for `spend --as`."""

SQL = """
select {by}, {moment} as sent_at,
       input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
       coalesce(input_tokens is null and cost_usd = 0
                and result not in ('ok', 'truncated', 'invalid', 'refused'), false) as unbilled,
       case when unbilled then http_status end as http_status, case when unbilled then error_type end as error_type,
       count(*) as attempts, sum(cost_usd) as cost_usd, count(*) filter (where cost_usd is null) as unknown_cost
from (select a.*, r.job, r.plan_id, a.sent_at::date as day from attempts a join run_starts r using (run_id))
group by all
"""
"""`{by}` is filled with names from spend.DIMENSIONS, `{moment}` with EXACTLY or THE_DAY only.

A failed attempt without usage and without cost is `unbilled`. With a free price that also holds where an answer may
have been generated; its status and type of error tell.
"""

EXACTLY = "sent_at"
THE_DAY = "day::timestamp"
"""Enough where no price has hours, and then equal token counts of a day are one line."""

SHOWN = {
    "as": "as", "attempts": "attempts", "cost_usd": "cost_usd", "unknown_cost": "unknown", "as_usd": "as_usd",
    "as_unknown": "as_unknown", "difference_usd": "difference_usd",
}  # fmt: skip
ALWAYS = ("as", "cost_usd", "as_usd")
