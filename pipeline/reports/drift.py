"""Our own token counts against the usage that providers report."""

SQL = """
select provider, model, count_method, attempts, counted_tokens, input_tokens, round(ratio, 4) as ratio,
       round(mean_difference, 2) as mean_difference, round(p95_difference, 2) as p95_difference
from drift order by provider, model, count_method
"""
