"""The outputs of a job in input order, one line per row of its newest plan."""

SQL = "select * exclude (job, plan_id) from results where job = $1 order by row_index"
BY_KEY = """
select key, status, output, parsed, finish_reason, cost_usd, reused, attempts, input_tokens, output_tokens, provider,
       model, model_returned, latency_ms, answered_at, error_type, error
from results where job = $1 order by row_index desc
"""
"""Newest-plan rows by key; the last one of a key is its first row, which bears the cost."""
