"""Attempts by what decides their price, for `spend --as`, `--at` and `--cached`."""

from collections.abc import Sequence
from datetime import date

ANY_LIST, USERS_FILE = "any list", "own file"

SQL = """
select {by}, {own} {moment} as sent_at,
       input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens,
       coalesce(input_tokens is null and cost_usd = 0, false) as unbilled,
       case when unbilled then http_status end as http_status, case when unbilled then error_type end as error_type,
       count(*) as attempts, sum(cost_usd) as cost_usd, count(*) filter (where cost_usd is null) as unknown_cost
from (select a.*, r.job, r.plan_id, r.whose, a.sent_at::date as day,
             strftime(a.sent_at, '%Y-%m') as month
      from attempts a
      join (select s.run_id, s.job, s.plan_id,
                   case when json_exists(s.config, '$.price') or p.run_id is not null then 'none'
                        when (s.config->>'$.model.base_url') is not null then 'own file'
                        else 'any list' end as whose
            from run_starts s
            left join (select distinct run_id from prices where source = '--price') p using (run_id)) r using (run_id))
where {where}
group by all
"""
"""`{by}` is filled with names from spend.DIMENSIONS, `{own}` with OWN or nothing, `{moment}` with EXACTLY or THE_DAY,
`{where}` with the condition of a spend.Period.

An attempt without usage and without cost is `unbilled`. With a free price that also holds where an answer was, or may
have been, generated; its status and type of error tell. `whose` lists speak about a run's own price: none where its
price was stated, only the user's file where its address was.
"""

OWN = "provider as own_provider, model as own_model, lane as own_lane, whose,"
MODELS = "select distinct provider, model from attempts"

EXACTLY = "sent_at"
THE_DAY = "day::timestamp"
"""Enough where no price has hours, and then equal token counts of a day are one line."""

_SPENT = {"as": "as", "attempts": "attempts", "cost_usd": "cost_usd", "unknown_cost": "unknown"}
SHOWN = _SPENT | {"as_usd": "as_usd", "as_unknown": "as_unknown", "difference_usd": "difference_usd"}
ALWAYS = ("cost_usd", "as_usd")
KEPT = ("difference_usd", "as_unknown", "unknown_cost")
ALWAYS_OF_TWO = ("cost_usd", "before_usd", "after_usd", "change_usd")
KEPT_OF_TWO = ("before_unknown", "after_unknown", "unknown_cost")


def shown_of_two(days: Sequence[date]) -> dict[str, str]:
    """Return the columns of two days' prices, headed by the days."""
    before, after = sorted(days)
    return _SPENT | {
        "before_usd": f"on {before}", "before_unknown": f"unknown on {before}",
        "after_usd": f"on {after}", "after_unknown": f"unknown on {after}", "change_usd": "change_usd",
    }  # fmt: skip
