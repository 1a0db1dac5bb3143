"""Each run's estimate against what the run cost."""

SQL = """
select f.run_id, f.job, r.command, f.plan_id, f.made_at, f.requests, f.low_usd, f.expected_usd, f.high_usd,
       f.ceiling_usd, f.actual_usd, f.unknown_cost, f.unknown_at_most_usd, f.finished, f.verdict
from forecast f join runs r using (run_id) order by f.run_id
"""
SHOWN = {
    "run_id": "run_id", "job": "job", "command": "command", "requests": "requests", "low_usd": "low_usd",
    "expected_usd": "expected_usd", "high_usd": "high_usd", "ceiling_usd": "ceiling_usd", "actual_usd": "actual_usd",
    "unknown_cost": "unknown", "unknown_at_most_usd": "at_most_usd", "verdict": "verdict",
}  # fmt: skip
"""What people see, and under which heading, as far as it says something and fits."""
ALWAYS = ("run_id", "actual_usd", "verdict")
KEPT = ("job", "low_usd", "high_usd", "expected_usd", "command")
"""Where the line is too long, columns that are not named here go first, then these from the end."""
