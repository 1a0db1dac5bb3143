"""Rows of a job that did not end well, grouped by cause, with one example each."""

SQL = """
select status, error_type, count(*) as rows, sum(cost_usd) as cost_usd,
       arg_min(row_id, row_index) as example_row, arg_min(error, row_index) as example
from errors where job = $1 group by status, error_type order by rows desc, status, error_type
"""

JOB_FILE = "select max(job_file) as file from jobs where job = $1"

ADVICE = {
    "truncated": "promptmill retry {file} --status truncated --max-tokens N    (with a larger N)",
    "invalid": "promptmill retry {file} --status invalid    (a clearer prompt or [output] repair helps more)",
    "refused": "the model or its filter refused: change the prompt or leave these rows out with [input] where",
    "rejected": "the provider will never take these rows as they are: see the message; what a stated limit held back"
    " (never_fits) goes out with the next run under a higher limit",
    "failed": "promptmill retry {file} --status failed",
}
"""The command, or the thought, that helps rows of a status."""
