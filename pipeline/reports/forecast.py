"""Each run's estimate against what the run cost."""

SQL = """
select run_id, job, plan_id, made_at, requests, low_usd, expected_usd, high_usd, ceiling_usd, actual_usd, unknown_cost,
       unknown_at_most_usd, finished, verdict
from forecast order by run_id
"""
SHOWN = {
    "run_id": "run_id", "job": "job", "requests": "requests", "low_usd": "low_usd", "expected_usd": "expected_usd",
    "high_usd": "high_usd", "ceiling_usd": "ceiling_usd", "actual_usd": "actual_usd", "unknown_cost": "unknown",
    "unknown_at_most_usd": "at_most_usd", "verdict": "verdict",
}  # fmt: skip
"""What people see, and under which heading, as far as it says something and fits."""
ALWAYS = ("run_id", "actual_usd", "verdict")
KEPT = ("job", "low_usd", "high_usd", "expected_usd")
"""Where the line is too long, columns that are not named here go first, then these from the end."""
