"""Runs, retries and pilots: asked for, begun, and told to stop."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CancelScope

from pipeline.api._estimates import estimated_cost, look_back, scanned, window_of
from pipeline.api._jobs import Name, at_least_1, several
from pipeline.api._standing import change_said, named
from pipeline.errors import LedgerBusy, LedgerError, RunDeclined, RunStopped, UsageError, UserError
from pipeline.estimating import Estimate, Sample, Tick
from pipeline.job import Job, job_name, load_job
from pipeline.ledger import Ledger
from pipeline.notices import Notify, log_notice
from pipeline.planning import Selection, repeated_ids
from pipeline.reports import require_job, run_report
from pipeline.reports import results as results_report
from pipeline.reports.earlier import kept_answers, left_behind
from pipeline.reports.settings import as_it_ran
from pipeline.runners.job_lock import ask_to_stop, live_runs
from pipeline.runners.launch import (
    Launch,
    Prepared,
    Watch,
    credentials,
    fingerprint,
    key_warnings,
    launch,
    prepare,
    refuse_running_loop,
)
from pipeline.runners.local import RunReport
from pipeline.runners.pilot import send_pilot
from pipeline.runners.tally import ENDED_BADLY
from pipeline.stopping import stoppable
from pipeline.threads import in_thread


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is asked for. Raises UsageError for what no run can be asked."""

    environ: Mapping[str, str] | None = None
    """Where the provider's key is; None: in this process's environment."""
    watch: Watch | None = None
    """A coroutine function that is given the run and shows how far it is, until it is cancelled."""
    notify: Notify = log_notice
    """Hears, in the run's thread, what the user should know. What it raises stops the run."""
    stop: threading.Event | None = None
    """Set it from any thread to let nothing more out, as the first Ctrl-C does where a run is in the main thread."""
    confirm: Callable[[Prepared, Estimate], bool] | None = None
    """Asked with the whole estimate before anything is sent: False and the run is not begun (RunDeclined).

    None runs at once, checking the first rows only.
    """
    tick: Tick | None = None
    limit: int | None = None
    selection: Selection = Selection()  # noqa: RUF009 -- a frozen value
    command: str = "run"
    until: float | datetime | None = None
    """When the run lets nothing more out: epoch seconds, or a time (without a zone: this machine's)."""

    def __post_init__(self) -> None:
        at_least_1(self.limit, "limit")
        if isinstance(self.until, bool) or not isinstance(self.until, float | int | datetime | None):
            raise UsageError(f"until must be a datetime or epoch seconds, not {self.until!r}")

    @property
    def variables(self) -> Mapping[str, str]:
        """Where the provider's key is."""
        return os.environ if self.environ is None else self.environ

    @property
    def until_seconds(self) -> float | None:
        """The same, as epoch seconds."""
        return self.until.timestamp() if isinstance(self.until, datetime) else self.until


class _Stop(threading.Event):
    """Set by whoever cancels a coroutine, or by the event that the caller has."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


async def run_async(job: Job, ledger: Ledger, options: RunOptions = RunOptions()) -> RunReport:
    """Do what `run` does beside a loop that goes on, as a notebook's.

    The run is in a thread of its own, where `notify`, `watch` and `confirm` are called. Cancelled, it stops as with
    Ctrl-C: it lets nothing more out, waits for what is in flight, and books it, however often it is cancelled. Raises
    what `run` raises.
    """
    stop = _Stop(options.stop)
    work = asyncio.wrap_future(in_thread(partial(run, job, ledger, replace(options, stop=stop)), "promptmill-run"))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await _until_home(work)
        error = work.exception()
        if error is not None and not isinstance(error, RunStopped):
            options.notify(f"{type(error).__name__}: {error}")
        raise


async def _until_home(work: "asyncio.Future[RunReport]") -> None:
    with CancelScope(shield=True):  # anyio's own scopes cancel at each turn of the loop
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])


def run(job: Job, ledger: Ledger, options: RunOptions = RunOptions()) -> RunReport:
    """Send a job's rows, or go on with that.

    Raises UserError, or RunPaused if it is stopped or `confirm` says no, before anything is sent; later what `watch` or
    `notify` raised.
    """
    refuse_running_loop()
    _go_on(options)
    ledger = ledger.for_a_run(options.notify, partial(_is_stopped, options))
    with _stopped_at_once(options):
        with stoppable():
            ready = _ready(job, ledger, options)
        report = launch(*ready)
    _tell_of_rows(job, ledger, report, options)
    return report


def _ready(job: Job, ledger: Ledger, options: RunOptions) -> tuple[Prepared, str | None, Launch]:
    """Look up and count what is to be known before a run is begun, and ask."""
    if options.selection.retry is not None:
        require_job(ledger, job.name)
    key, missing = _credentials(job, options)
    counted = estimated = None
    prepared = prepare(job, limit=options.limit)
    if options.selection.retry is not None:
        _require_earlier_requests(prepared, ledger)
    if options.confirm is None and missing is None:
        outlook, _ = look_back(prepared, ledger, options.selection)
        _tell_warnings(prepared, key, options)
    else:
        estimated = fingerprint(prepared)  # before the rest is read: what changes meanwhile must show
        counted = estimated_cost(prepared, ledger, options.selection, _tick(options))
        if missing is not None and counted.to_send:
            raise missing
        _tell_warnings(prepared, key, options)
        _go_on(options)
        if options.confirm is not None and not options.confirm(prepared, counted):
            raise RunDeclined("nothing was sent: the answer to the estimate was no")
        prepared, outlook = prepared.rescanned(), counted.outlook
    _go_on(options)
    how = replace(
        _launch(ledger, options),
        outlook=outlook,
        estimate=counted,
        estimated=estimated,
        total=None if counted is None else counted.rows - counted.passed_over,
        window=window_of(job) if options.confirm is None else None,
    )
    return prepared, key, how


def _is_stopped(options: RunOptions) -> bool:
    return options.stop is not None and options.stop.is_set()


def _go_on(options: RunOptions) -> None:
    """Raise RunStopped if somebody has asked for that already."""
    if _is_stopped(options):
        raise RunStopped.before_sending()


@contextmanager
def _stopped_at_once(options: RunOptions) -> Iterator[None]:
    """Make a stopped run of one that waits for a ledger no longer because it was stopped."""
    try:
        yield
    except LedgerBusy:
        _go_on(options)
        raise


def _tick(options: RunOptions) -> Tick:
    """Look at each step of a long scan whether it is still wanted."""

    def tick(*facts: Any) -> None:
        _go_on(options)
        if options.tick is not None:
            options.tick(*facts)

    return tick


def _tell_of_rows(job: Job, ledger: Ledger, report: RunReport, options: RunOptions) -> None:
    """Tell after a run what became of rows that its figures don't show."""
    said: list[str | None] = []
    with suppress(LedgerError):  # somebody holds the ledger: the run has ended as it has all the same
        if options.selection.fresh and report.tally.bad and report.left_over is None:
            said.append(kept_answers(ledger, report.run_id))
        if report.another_plan and report.complete and report.left_over is None:
            said.append(left_behind(ledger, report.run_id))
    if report.duplicate_ids and options.confirm is None:  # who was asked has seen that in the estimate
        part = options.limit is not None or report.tally.already  # a run that goes on passes over what is done
        among = ", among the rows that this run read" if part else ""
        said.append(repeated_ids(report.duplicate_ids, job.input.id) + among)
    for each in said:
        if each is not None:
            options.notify(each)


def _require_earlier_requests(prepared: Prepared, ledger: Ledger) -> None:
    """Refuse a retry whose requests are all new: it could ask nothing again, and its plan would hide the answers.

    Raises UsageError.
    """
    job = prepared.job
    found = run_report(ledger, results_report.NEWEST_PLAN, [job.name]).rows
    if not found or found[0]["fingerprint"] == fingerprint(prepared):
        return
    ended = ledger.known(job.name, "job").own
    rows = (row for batch in prepared.rescanned().plan.batches() for row in batch)
    if any(row.request is not None and row.key in ended for row in rows):
        return
    limit = prepared.limit
    looked_at = "" if limit is None else " of the first row" if limit == 1 else f" of the first {limit:,} rows"
    more = "" if limit is None else ", look at more rows than --limit does,"
    options = as_it_ran(job.config, load_job(job.file).config)
    given = ", with the same --set" if options is None else ""
    raise UsageError(
        f"nothing was sent: {change_said(job, found[0]['config'])}; every request{looked_at} is new:"
        " no row ever ended as it would be asked now."
        f" Leave the change away to ask rows again that ended badly{more} or send all rows as they are now with"
        f" `promptmill run {named(job.file, ledger)}{options or ''}`{given}"
    )


@dataclass(frozen=True, slots=True)
class Piloted:
    """The answer of `estimate --pilot`."""

    prepared: Prepared
    estimate: Estimate | LedgerError
    """Of what is left to send; or why there is none although the pilot was sent: somebody holds the ledger."""
    requests: int
    """Requests of the pilot, those that had their answer before included."""
    report: RunReport | None
    """What was sent now; None if the whole pilot had been answered before."""


def pilot(job: Job, ledger: Ledger, requests: int, options: RunOptions = RunOptions()) -> Piloted:
    """Send random requests of the job, as far as they have no answer, and estimate the rest from them.

    `confirm` and `selection` of the options are not looked at. Raises UserError, or RunPaused if it is stopped, before
    anything is sent.
    """
    refuse_running_loop()
    at_least_1(requests, "requests")
    ledger = ledger.for_a_run(options.notify, partial(_is_stopped, options))
    with _stopped_at_once(options):
        return _pilot(job, ledger, requests, options)


def _pilot(job: Job, ledger: Ledger, requests: int, options: RunOptions) -> Piloted:
    with stoppable():
        key, missing = _credentials(job, options)
        prepared = prepare(job, limit=options.limit)
        sample = Sample(requests, bytes.fromhex(prepared.plan.input_fingerprint))  # two prompts' pilots are comparable
        scan, counter = scanned(prepared, ledger, Selection(), _tick(options), sample)
        if sample.to_send:
            if missing is not None:
                raise missing
            outlook, _ = look_back(prepared, ledger, Selection())  # before the warnings, as one may come of it
            _tell_warnings(prepared, key, options)
            too_long = scan.too_long.said()
            if too_long is not None:
                options.notify(too_long)
            how, rest = replace(_launch(ledger, options), outlook=outlook), prepared.rescanned()
    report = send_pilot(rest, key, how, sample.to_send) if sample.to_send else None
    found: Estimate | LedgerError
    try:
        if report is not None:
            scan.ended(ledger.known(job.name, job.reuse))
        before = look_back(prepared, ledger, Selection(), sample, sent=report is not None)
        found = scan.answer(prepared.plan, *before, counter)
    except LedgerError as error:
        if report is None:
            raise
        found = error  # what was paid for is told all the same
    return Piloted(prepared, found, len(sample.chosen), report)


def _credentials(job: Job, options: RunOptions) -> tuple[str | None, UserError | None]:
    """Fetch the key; that one is missing is no mistake if there is nothing to send."""
    try:
        return credentials(job, options.variables), None
    except UserError as error:
        return None, error


def _tell_warnings(prepared: Prepared, key: str | None, options: RunOptions) -> None:
    for warning in (*prepared.warnings, *key_warnings(prepared.job, key, options.variables)):
        options.notify(warning)


def _launch(ledger: Ledger, options: RunOptions) -> Launch:
    return Launch(
        ledger,
        options.watch,
        options.notify,
        options.stop,
        options.command,
        options.selection,
        until=options.until_seconds,
    )


def statuses_to_retry(names: Sequence[str]) -> Selection:
    """Return the selection of `retry`: the given statuses, or every row that did not end well. Raises UsageError."""
    for name in several(names, "names"):
        if name not in ENDED_BADLY:
            raise UsageError(f"--status {name}: choose from {', '.join(ENDED_BADLY)}")
    return Selection(retry=frozenset(names or ENDED_BADLY), same_limit="truncated" in names)


def stop(ledger: Ledger, job: Name) -> int:
    """Ask a running job to stop as the first Ctrl-C does; return its process id. Raises UsageError.

    A run in the main thread of its process gets a signal; one in another thread, this process's too, in another
    container or on another machine finds a file.
    """
    live = live_runs(ledger.folder)
    job = os.fspath(job)
    name = job_name(job)
    if name not in live:
        if job.endswith(".toml") and not Path(job).exists():
            load_job(job)  # says that there is no such file, and which one may be meant
        running = ", ".join(live) or "nothing"
        raise UsageError(f"the job {name} is not running (running: {running})")
    pid = live[name].get("pid")
    if pid is None:  # its lock is taken and does not say by whom yet
        raise UsageError(f"the job {name} is starting this moment; run the command again")
    try:
        ask_to_stop(ledger.folder, name, live[name])
    except ProcessLookupError:
        raise UsageError(f"the job {name} has just ended (process {pid})") from None
    except PermissionError:
        raise UsageError(f"the job {name} runs as another user (process {pid}), who must stop it") from None
    except OSError as error:
        raise UsageError(
            f"the job {name} can't be told to stop: {error.strerror or error} ({ledger.folder})"
        ) from error
    return int(pid)
