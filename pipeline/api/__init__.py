"""What the command line, a notebook or another program can ask for: each command is one function here.

`from pipeline import run, Ledger` and so on: docs/python.md. Money is Decimal; mistakes raise errors.UserError; nothing
here prints, or reads the environment unless a run is left to its defaults.
"""

from pipeline.api._books import Respend, Spend, drift, forecast, prices, reconcile, respend, results, spend, sql
from pipeline.api._estimates import compare, contradictions, estimate
from pipeline.api._jobs import Checked, Name, Overrides, check, open_job
from pipeline.api._runs import Piloted, RunOptions, pilot, run, run_async, statuses_to_retry, stop
from pipeline.api._standing import Errors, changed_since, earlier, errors, named, status
from pipeline.notices import Notify, log_notice

__all__ = [
    "Checked",
    "Errors",
    "Name",
    "Notify",
    "Overrides",
    "Piloted",
    "Respend",
    "RunOptions",
    "Spend",
    "changed_since",
    "check",
    "compare",
    "contradictions",
    "drift",
    "earlier",
    "errors",
    "estimate",
    "forecast",
    "log_notice",
    "named",
    "open_job",
    "pilot",
    "prices",
    "reconcile",
    "respend",
    "results",
    "run",
    "run_async",
    "spend",
    "sql",
    "status",
    "statuses_to_retry",
    "stop",
]
