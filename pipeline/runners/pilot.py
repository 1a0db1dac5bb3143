"""A pilot: a few random requests of a plan, sent for real before the rest, and kept like any others."""

from dataclasses import replace

from pipeline.planning import Selection
from pipeline.runners.launch import Launch, Prepared, launch
from pipeline.runners.local import RunReport

COMMAND = "estimate --pilot"
"""`runs.command` of a pilot."""


def send_pilot(prepared: Prepared, key: str | None, how: Launch, keys: frozenset[str]) -> RunReport:
    """Send these requests of a plan that was not scanned yet, within the job's limits and budget.

    The whole plan is scanned and listed, so that `promptmill results` has the pilot's answers in their places. Raises
    LedgerError, or RunPaused if it is stopped, before anything is sent; afterwards it always reports.
    """
    how = replace(how, command=COMMAND, selection=Selection(only=keys), total=len(keys))
    return launch(prepared, key, how)
