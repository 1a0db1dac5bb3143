"""promptmill: run a prompt over every row of a dataset, and book every token.

What a notebook or a program needs can be imported from here: docs/python.md. `api.errors` can't: a module has
its name.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import (
        Overrides,
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
    from pipeline.ledger import Ledger
    from pipeline.pricebook import Target
    from pipeline.reports.spend import Period

__all__ = [
    "Ledger",
    "Overrides",
    "Period",
    "PromptmillError",
    "RunOptions",
    "RunPaused",
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
    "Ledger": "pipeline.ledger",
    "Period": "pipeline.reports.spend",
    "PromptmillError": "pipeline.errors",
    "RunPaused": "pipeline.errors",
    "Target": "pipeline.pricebook",
    "UserError": "pipeline.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: `promptmill --help` must not wait for Polars and DuckDB."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 -- as above

    return getattr(import_module(_ELSEWHERE.get(name, "pipeline.api")), name)
