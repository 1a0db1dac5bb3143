"""What the ledger says about each UTC day and model, as a provider's export would: with bounds for what is unknown."""

SQL = """
select a.sent_at::date as day, a.model, a.model_returned,
       count(*) filter (where a.input_tokens is not null) as requests,
       sum(a.input_tokens)::bigint as input_tokens, sum(a.cached_input_tokens)::bigint as cached_input_tokens,
       sum(a.output_tokens)::bigint as output_tokens, sum(a.cost_usd) as usd,
       count(*) filter (where a.input_tokens is null and a.cost_usd is null) as more_requests,
       sum(a.counted_tokens) filter (where a.input_tokens is null and a.cost_usd is null)::bigint as more_input_tokens,
       sum(r.max_tokens) filter (where a.input_tokens is null and a.cost_usd is null)::bigint as more_output_tokens,
       count(*) filter (where a.input_tokens is null and a.cost_usd is null and r.max_tokens is null)
           as endless_output_tokens,
       sum(a.reserved_usd) filter (where a.cost_usd is null) as more_usd,
       count(*) filter (where a.cost_usd is null and a.reserved_usd is null) as endless_usd
from attempts a join run_starts r using (run_id)
where a.provider = coalesce($1, a.provider) and a.sent_at::date between $2 and $3
group by all order by all
"""
"""`more_`: what attempts of unknown cost may add at most; `endless_`: how many of them have no such bound."""
PROVIDERS = "select distinct provider from attempts order by provider"
