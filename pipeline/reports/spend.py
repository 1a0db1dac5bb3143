"""Money and tokens of the whole ledger, by any of a few dimensions."""

DIMENSIONS = ("job", "plan_id", "run_id", "provider", "model", "model_returned", "lane", "day")

SQL = """
select {by}, sum(attempts)::bigint as attempts, sum(ok)::bigint as ok, sum(input_tokens)::bigint as input_tokens,
       sum(cached_input_tokens)::bigint as cached_input_tokens, sum(output_tokens)::bigint as output_tokens,
       sum(reasoning_tokens)::bigint as reasoning_tokens, sum(cost_usd) as cost_usd, sum(wasted_usd) as wasted_usd,
       sum(unknown_cost)::bigint as unknown_cost, sum(unknown_at_most_usd) as unknown_at_most_usd
from spend group by {by} order by {by}
"""
"""`{by}` is filled with names from DIMENSIONS only."""
