"""What the ledger says about each UTC day and model, as a provider's export would: with bounds for what is unknown."""

SQL = """
with bounded as (
    select a.*, r.max_tokens, r.elsewhere,
           coalesce(a.input_tokens is null and a.cost_usd = 0 and greatest(p.input, p.output) = 0, false) as unbilled,
           a.input_tokens is null and a.cost_usd is null or unbilled as no_usage,
           case when a.count_method = 'exact' then a.counted_tokens
                else try_cast(floor(round((a.reserved_usd::double * 1000000 - coalesce(r.max_tokens, 0) * p.output)
                                          / nullif(p.input, 0), 3)) as bigint) end as most_input
    from attempts a
    join (select run_id, max_tokens, (config->>'$.model.base_url') is not null as elsewhere from run_starts) r
      using (run_id)
    left join (select distinct on (run_id, price_id) run_id, price_id,
                      greatest(input, cached_input, cache_write)::double as input,
                      greatest(output, reasoning)::double as output
               from prices) p using (run_id, price_id)
    where a.provider = coalesce($1, a.provider) and a.sent_at::date between $2 and $3)
select sent_at::date as day, model, model_returned, elsewhere, unbilled,
       case when unbilled then http_status end as http_status, case when unbilled then error_type end as error_type,
       count(*) as attempts,
       count(*) filter (where input_tokens is not null) as requests,
       sum(input_tokens)::bigint as input_tokens, sum(cached_input_tokens)::bigint as cached_input_tokens,
       sum(output_tokens)::bigint as output_tokens, sum(cost_usd) as usd,
       count(*) filter (where no_usage) as more_requests,
       sum(most_input) filter (where no_usage) as more_input_tokens,
       count(*) filter (where no_usage and most_input is null) as endless_input_tokens,
       sum(max_tokens) filter (where no_usage)::bigint as more_output_tokens,
       count(*) filter (where no_usage and max_tokens is null) as endless_output_tokens,
       sum(reserved_usd) filter (where cost_usd is null) as more_usd,
       count(*) filter (where cost_usd is null and reserved_usd is null) as endless_usd
from bounded group by all order by all
"""
"""`more_`: what attempts of unknown cost may add at most; `endless_`: how many of them have no such bound.

So may a free model's attempts without usage (`unbilled`), if their status and type of error tell that an answer can
have been made. A count that isn't exact bounds nothing. What does is in `reserved_usd`, the request's worst case at its
run's dearest terms: no more input than what that would pay for beside all of the output. `elsewhere`: not sent to the
provider's own address.
"""
PROVIDERS = "select distinct provider from attempts order by provider"
