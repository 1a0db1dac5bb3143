"""promptmill: run a prompt over every row of a dataset, and book every token.

What a notebook or a program needs can be imported from here: docs/python.md. `api.errors` can't: a module has
its name.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        Checked,
        Overrides,
        Piloted,
        RunOptions,
        check,
        compare,
        drift,
        estimate,
        forecast,
        open_job,
        pilot,
        prices,
        reconcile,
        respend,
        results,
        run,
        run_async,
        spend,
        sql,
        status,
        statuses_to_retry,
        stop,
    )
    from pipeline.errors import PromptmillError, RunPaused, UserError
    from pipeline.estimating import Estimate
    from pipeline.job import Job
    from pipeline.ledger import Ledger
    from pipeline.planning import Selection
    from pipeline.pricebook import Target
    from pipeline.reports.spend import Period
    from pipeline.runners.launch import Prepared
    from pipeline.runners.local import RunReport

__all__ = [
    "Checked",
    "Estimate",
    "Job",
    "Ledger",
    "Overrides",
    "Period",
    "Piloted",
    "Prepared",
    "PromptmillError",
    "RunOptions",
    "RunPaused",
    "RunReport",
    "Selection",
    "Target",
    "UserError",
    "check",
    "compare",
    "drift",
    "estimate",
    "forecast",
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
_ELSEWHERE = {
    "Estimate": "pipeline.estimating",
    "Job": "pipeline.job",
    "Ledger": "pipeline.ledger",
    "Period": "pipeline.reports.spend",
    "Prepared": "pipeline.runners.launch",
    "PromptmillError": "pipeline.errors",
    "RunPaused": "pipeline.errors",
    "RunReport": "pipeline.runners.local",
    "Selection": "pipeline.planning",
    "Target": "pipeline.pricebook",
    "UserError": "pipeline.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `promptmill --help` must not wait for Polars and DuckDB."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 -- as above

    return getattr(import_module(_ELSEWHERE.get(name, "pipeline.api")), name)
