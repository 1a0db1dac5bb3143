"""What the command line, a notebook or another program can ask for: each command is one function here.

`from pipeline import run, Ledger` and so on: docs/python.md. Money is Decimal; mistakes raise errors.UserError; nothing
here prints, or reads the environment unless a run is left to its defaults.
"""

import asyncio
import json
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pipeline import comparing, exporting, reconciling, repricing
from pipeline.budget import dollars
from pipeline.comparing import Compared, Contradiction, Load, Work
from pipeline.counting import Counting
from pipeline.errors import LedgerError, PriceError, RunStopped, UsageError, UserError
from pipeline.estimating import Estimate, Outlook, Sample, Scan, Tick, TooLong
from pipeline.forecasting import Outputs
from pipeline.job import Job, job_name, load_job, overridden
from pipeline.ledger import ANY_LIMIT, Elsewhere, History, HistoryRequest, Ledger
from pipeline.planning import Selection, cut_again, repeated_ids
from pipeline.pricebook import Prices, Quote, Target
from pipeline.pricing import parse_price_option
from pipeline.reconciling import Reconciled
from pipeline.records import Message
from pipeline.reports import Table, require_job, run_report, run_reports
from pipeline.reports import drift as drift_report
from pipeline.reports import errors as errors_report
from pipeline.reports import forecast as forecast_report
from pipeline.reports import results as results_report
from pipeline.reports import spend as spend_report
from pipeline.reports import status as status_report
from pipeline.reports.earlier import earlier_answers, kept_answers, left_behind, no_list
from pipeline.reports.settings import as_it_ran, as_options, as_that_retry, carried, changed, ledger_option
from pipeline.reports.spend import ALWAYS_AND_EVER, Period, require_dimensions
from pipeline.repricing import Caching
from pipeline.runners import runlog
from pipeline.runners.job_lock import ask_to_stop, live_runs
from pipeline.runners.launch import (
    Launch,
    Prepared,
    Watch,
    credentials,
    fingerprint,
    kept_counts,
    key_warnings,
    launch,
    plan_fingerprint,
    prepare,
    prompt_id,
    refuse_running_loop,
    retry_of,
)
from pipeline.runners.local import RunReport
from pipeline.runners.pilot import send_pilot
from pipeline.runners.tally import ENDED_BADLY
from pipeline.sources import open_source
from pipeline.windows import Window, context_window

Notify = Callable[[str], None]
Name = str | os.PathLike[str]
"""A file's name, as text or as a path."""


def _several(values: Sequence[str], what: str) -> Sequence[str]:
    """Refuse one text where a list of them is wanted: it is a list of letters, too. Raises UsageError."""
    if isinstance(values, str):
        raise UsageError(f"{what} is a list of texts, not one text: write [{values!r}]")
    return values


def _at_least_1(number: int | None, what: str) -> None:
    """Raise UsageError for a number that is none to count with."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise UsageError(f"{what} must be a whole number of at least 1, not {number!r}")


def log_notice(text: str) -> None:
    """Hand a notice to the logger `promptmill`, which shows it on stderr unless a program has set up its own."""
    runlog.LOGGER.warning("%s", text)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line changes in a job, for one command. Raises UsageError for what no job may say."""

    settings: Sequence[str] = ()
    """`section.key=value`, values in TOML."""
    budget: Decimal | None = None
    """Dollars."""
    price: str | None = None
    """`IN,OUT` in dollars per 1M tokens."""
    max_tokens: int | None = None
    price_file: Path | None = None
    """The user's own price list."""

    def __post_init__(self) -> None:
        _several(self.settings, "settings")
        _at_least_1(self.max_tokens, "max_tokens")
        budget = self.budget
        if budget is not None and not (isinstance(budget, Decimal) and budget.is_finite() and budget > 0):
            raise UsageError(f"budget must be a Decimal of dollars greater than 0, not {budget!r}")


def open_job(path: Name, overrides: Overrides = Overrides()) -> Job:
    """Read a job file and apply what the command line changes. Raises JobFileError, PriceError, UsageError."""
    path = os.fspath(path)
    for option, value, key in (
        ("--max-tokens", overrides.max_tokens, "model.max_tokens"),
        ("--budget", overrides.budget, "budget.usd"),
    ):
        if value is not None and any(text.partition("=")[0].strip() == key for text in overrides.settings):
            raise UsageError(f"{option} and --set {key} say the same thing twice: give one of them")
    job = load_job(path, overrides.settings)
    price = None
    if overrides.price is not None:
        price = parse_price_option(overrides.price, job.model.provider, job.model.name)
    return overridden(
        job, max_tokens=overrides.max_tokens, budget=overrides.budget, price=price, price_file=overrides.price_file
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: no mistakes, and the first request as it would go out."""

    prepared: Prepared
    messages: tuple[Message, ...] | None
    """None if the first row is broken and will be rejected."""
    key: str
    tokens: int | None
    count_method: str | None
    reserve_usd: Decimal | None
    warnings: list[str]


def check(job: Job, environ: Mapping[str, str], *, limit: int | None = None) -> Checked:
    """Validate everything a run would, and render the first row. Sends nothing. Raises UserError."""
    _at_least_1(limit, "limit")
    prepared = prepare(job, limit=limit)
    warnings = list(prepared.warnings)
    try:
        warnings += key_warnings(job, credentials(job, environ), environ)
    except UserError as error:
        warnings.append(str(error))
    rows = prepared.plan.check_first_rows()
    bad = [row for row in rows if row.request is None]
    if bad:
        warnings.append(f"{len(bad):,} of the first {len(rows):,} rows would be rejected, the first: {bad[0].problem}")
    first = rows[0]
    ticket = None if first.request is None else prepared.meter.ticket(first.request)
    reserve, budget = None if ticket is None else ticket.reserve_usd, job.budget_usd
    if reserve is not None and budget is not None and reserve > budget:
        warnings.append(
            f"a budget of {dollars(budget)} lets nothing out: the first request may cost up to {dollars(reserve)}"
        )
    counter = prepared.meter.counter
    if counter.problem is not None:
        warnings.append(counter.problem)
    return Checked(
        prepared=prepared,
        messages=None if first.request is None else first.request.messages,
        key=first.key,
        tokens=None if ticket is None else ticket.input_tokens,
        count_method=None if ticket is None else ticket.count_method,
        reserve_usd=reserve,
        warnings=warnings,
    )


def estimate(
    job: Job,
    ledger: Ledger,
    *,
    limit: int | None = None,
    selection: Selection = Selection(),  # noqa: B008 -- a frozen value
    tick: Tick | None = None,
) -> tuple[Prepared, Estimate]:
    """Say what a run would send now, and what that would cost. Sends nothing. Raises UserError."""
    _at_least_1(limit, "limit")
    prepared = prepare(job, limit=limit)
    return prepared, _estimated(prepared, ledger, selection, tick)


def _estimated(prepared: Prepared, ledger: Ledger, selection: Selection, tick: Tick | None) -> Estimate:
    scan, counter = _scanned(prepared, ledger, selection, tick)
    return scan.answer(prepared.plan, *_before(prepared, ledger, selection), counter)


def _scanned(
    prepared: Prepared, ledger: Ledger, selection: Selection, tick: Tick | None, sample: Sample | None = None
) -> tuple[Scan, str | None]:
    """Scan the plan and count; return the sums, and the name of the library that counted, if anything was counted."""
    job, meter = prepared.job, prepared.meter
    known = ledger.known(job.name, job.reuse, fresh=selection.fresh, retry=retry_of(prepared, selection))
    counting = Counting(
        meter, kept_counts(ledger, job), writes=selection.retry is None, notify=prepared.warnings.append
    )
    scan = Scan(known, selection, job.limits, meter, TooLong(job.model, _window(job)), sample)
    scan.run(prepared.plan, counting, tick)
    return scan, meter.counter.library if counting.made else None


def _window(job: Job) -> Window | None:
    """Return the model's context, as the job says it; else nobody knows what stands behind another address."""
    if job.context_window is not None:
        return Window(job.context_window, f"[model] context_window of {job.file}")
    return None if job.model.base_url else context_window(job.provider.name, job.model.name)


def compare(
    prepared: Prepared, estimated: Estimate, targets: Sequence[Target], *, price_file: Path | None = None
) -> list[Compared]:
    """Return what the requests would cost as MODEL[@PROVIDER][:LANE], at the prices in force while they are sent.

    Tokens are taken as they are: other models count and answer differently.
    """
    return comparing.compare(Prices(price_file), targets, _work(prepared, estimated), at=datetime.now(UTC))


def contradictions(prepared: Prepared, estimated: Estimate) -> list[Contradiction]:
    """Return what the requests would cost if something else were true that the price's source says."""
    price = prepared.price
    return [] if price is None else comparing.contradictions(price, _work(prepared, estimated))


def _work(prepared: Prepared, estimated: Estimate) -> Work:
    outlook, found = estimated.outlook, estimated.forecast
    bill = found.bill
    observed = bill is not None and bill.expected and outlook.used
    loads = [_load(outlook, group.sizes, group.outputs) for group in found.groups]
    return Work(
        loads=loads or [_load(outlook, estimated.sizes, None)],
        max_tokens=prepared.job.model.max_tokens,
        mix=outlook.mix,
        worst=found.worst,
        spread=(bill.low / bill.expected, bill.high / bill.expected) if bill is not None and observed else None,
        price=prepared.price,
        billed_factor=outlook.billed_factor,
        charged=prepared.meter.charged,
        seconds=None if found.finish is None else found.finish.seconds,
    )


def _load(outlook: Outlook, sizes: Mapping[int, int], outputs: Outputs | None) -> Load:
    """Return the exchanges that requests of these sizes take, repairs included: prices are for each exchange."""
    exchanges: list[tuple[int, int, float]] = []
    left = Fraction(0)
    for size, requests in sizes.items():
        wanted = requests * Fraction(outlook.exchanges_each) + left
        number = round(wanted)
        left = wanted - number
        if number:
            weight = 0.0 if outputs is None else outputs.per_request(size)
            exchanges.append((round(outlook.exchange_input(size)), number, weight))
    return Load(exchanges, None if outputs is None else (outputs.low, outputs.expected, outputs.high))


def _before(
    prepared: Prepared, ledger: Ledger, selection: Selection, pilot: Sample | None = None, *, sent: bool = False
) -> tuple[Outlook, Decimal | None]:
    """Look at the job's earlier requests or its pilot's; for a retry at none, as its rows are not like the others.

    Return what they say of the next ones, and what the plan has spent. A budget that starts afresh is a warning; one
    that nothing can hold raises PriceError, unless this command has `sent` something already.
    """
    job = prepared.job
    if "truncated" in (selection.retry or ()):
        prepared.warnings.extend(_cut_again(prepared, ledger, selection))
    found = _history(prepared, ledger, wanted=not selection.retry, keys=None if pilot is None else list(pilot.chosen))
    if not sent:
        _require_price(prepared)
    basis: Literal["pilot", "history"] = "history" if pilot is None else "pilot"
    outlook = Outlook(
        found.used,
        basis,
        found.calibration,
        job.model.max_tokens,
        job.repair,
        price=prepared.price,
        answered=found.answered,
    )
    return outlook, None if found.unbounded else found.spent_usd


def _cut_again(prepared: Prepared, ledger: Ledger, selection: Selection) -> Iterator[str]:
    """Say which truncated rows a retry leaves out, and which it asks again although nothing speaks for it."""
    job = prepared.job
    limit = job.model.max_tokens
    found = ledger.cut_off(job.name, retry_of(prepared, selection), prepared.limit)
    full = sum(rows for old, rows in found if old == ANY_LIMIT and not selection.same_limit)
    found = [(old, rows) for old, rows in found if old != ANY_LIMIT]
    left = sum(rows for old, rows in found if cut_again(old, limit, same_limit=selection.same_limit))
    same = sum(rows for old, rows in found if old == limit and limit is not None)
    if full:
        yield (
            f"truncated rows left out: {full:,}, whose answers filled the model's context: no max_tokens makes that"
            " larger; --status truncated asks them again all the same"
        )
    if left:
        also = "" if selection.same_limit else ", or --status truncated to try the same one again"
        yield (
            f"truncated rows left out: {left:,}, cut off at max_tokens = {limit:,} or at a higher limit: they would end"
            f" so again; name a higher one with --max-tokens{also}"
        )
    if same and selection.same_limit:
        yield (
            f"truncated rows asked again under the limit that cut them off: {same:,} (max_tokens = {limit:,});"
            " --max-tokens names a higher one"
        )


def _history(prepared: Prepared, ledger: Ledger, *, wanted: bool, keys: Sequence[str] | None = None) -> History:
    job = prepared.job
    found = ledger.history(
        HistoryRequest(
            job=job.name,
            provider=job.provider.name,
            model=job.model.name,
            prompt_id=prompt_id(job),
            fingerprint=fingerprint(prepared),
            keys=keys,
            wanted=wanted,
        )
    )
    prepared.meter.heard_of_added(found.added_tokens)
    if found.charged:
        prepared.meter.heard_of_charges()
    if job.budget_usd is not None and found.unbounded:
        prepared.warnings.append(
            f"{found.unbounded:,} earlier attempts of this plan have neither a known cost nor an upper bound, and are"
            " not in what it has spent: a run with a budget is refused"
        )
    new_plan = _new_plan(job, found.elsewhere)
    if new_plan is not None:
        prepared.warnings.append(new_plan)
    return found


def _require_price(prepared: Prepared) -> None:
    """Refuse a budget where the provider charges for what is free by the price. Raises PriceError."""
    job = prepared.job
    if job.budget_usd is not None and prepared.meter.charged:
        raise PriceError(
            f"{job.file}: a budget needs a known price, and {job.provider.name} charged for {job.model.name}, which is"
            " free by the price; correct it with [price] or --price IN,OUT (dollars per 1M tokens)"
        )


def _new_plan(job: Job, elsewhere: Elsewhere) -> str | None:
    """Say what begins afresh with a new plan, and what it hides; None if there is nothing to say."""
    told = []
    if job.budget_usd is not None and elsewhere.usd:
        told.append(
            f"its budget of {dollars(job.budget_usd)} starts afresh; this job has spent {dollars(elsewhere.usd)} before"
        )
    if elsewhere.answers and not elsewhere.same_prompt:
        told.append(
            f"results, status and errors will show its rows only; the {elsewhere.answers:,} answers of before are kept,"
            " and a run with the settings of before lists them again and sends none of them"
        )
    if not told:
        return None
    names = [] if elsewhere.config is None else changed(json.loads(elsewhere.config), job.config)
    change = ", ".join(names) or ("the input" if elsewhere.same_prompt else "the prompt or model")
    return f"a new plan ({change} changed): {'; '.join(told)}"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is asked for. Raises UsageError for what no run can be asked."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Where the provider's key is."""
    watch: Watch | None = None
    """A coroutine function that is given the run and shows how far it is, until it is cancelled."""
    notify: Notify = log_notice
    """Hears, in the run's thread, what the user should know. What it raises stops the run."""
    stop: threading.Event | None = None
    """Set it from any thread to let nothing more out, as the first Ctrl-C does where a run is in the main thread."""
    confirm: Callable[[Prepared, Estimate], bool] | None = None
    """Asked with the whole estimate before anything is sent; None runs at once, checking the first rows only."""
    tick: Tick | None = None
    limit: int | None = None
    selection: Selection = Selection()  # noqa: RUF009 -- a frozen value
    command: str = "run"
    until: float | datetime | None = None
    """When the run lets nothing more out: epoch seconds, or a time (without a zone: this machine's)."""

    def __post_init__(self) -> None:
        _at_least_1(self.limit, "limit")
        if isinstance(self.until, bool) or not isinstance(self.until, float | int | datetime | None):
            raise UsageError(f"until must be a datetime or epoch seconds, not {self.until!r}")

    @property
    def until_seconds(self) -> float | None:
        """The same, as epoch seconds."""
        return self.until.timestamp() if isinstance(self.until, datetime) else self.until


async def run_async(job: Job, ledger: Ledger, options: RunOptions = RunOptions()) -> RunReport | None:
    """Do what `run` does beside a loop that goes on, as a notebook's.

    The run is in a thread of its own, where `notify`, `watch` and `confirm` are called. Cancelled, it stops as with
    Ctrl-C: it lets nothing more out, waits for what is in flight, and books it. Raises what `run` raises.
    """
    stop = threading.Event() if options.stop is None else options.stop
    work = asyncio.ensure_future(asyncio.to_thread(run, job, ledger, replace(options, stop=stop)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        error = work.exception()
        if error is not None and not isinstance(error, RunStopped):
            options.notify(f"{type(error).__name__}: {error}")
        raise


def run(job: Job, ledger: Ledger, options: RunOptions = RunOptions()) -> RunReport | None:
    """Send a job's rows, or go on with that; None if `confirm` said no.

    Raises UserError, or RunPaused if it is stopped, before anything is sent; later what `watch` or `notify` raised.
    """
    refuse_running_loop()
    _go_on(options)
    if options.selection.retry is not None:
        require_job(ledger, job.name)
    key, missing = _credentials(job, options)
    counted = estimated = None
    prepared = prepare(job, limit=options.limit)
    if options.selection.retry is not None:
        _require_earlier_requests(prepared, ledger)
    if options.confirm is None and missing is None:
        outlook, _ = _before(prepared, ledger, options.selection)
        _tell_warnings(prepared, key, options)
    else:
        estimated = fingerprint(prepared)  # before the rest is read: what changes meanwhile must show
        counted = _estimated(prepared, ledger, options.selection, options.tick)
        if missing is not None and counted.to_send:
            raise missing
        _tell_warnings(prepared, key, options)
        _go_on(options)
        if options.confirm is not None and not options.confirm(prepared, counted):
            return None
        prepared, outlook = prepared.rescanned(), counted.outlook
    _go_on(options)
    how = replace(
        _launch(ledger, options),
        outlook=outlook,
        estimate=counted,
        estimated=estimated,
        total=None if counted is None else counted.rows - counted.passed_over,
        window=_window(job) if options.confirm is None else None,
    )
    report = launch(prepared, key, how)
    _tell_of_rows(job, ledger, report, options)
    return report


def _go_on(options: RunOptions) -> None:
    """Raise RunStopped if somebody has asked for that already."""
    if options.stop is not None and options.stop.is_set():
        raise RunStopped("stopped by a stop request before anything was sent")


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
        f"nothing was sent: {_change(job, found[0]['config'])}; every request{looked_at} is new:"
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
    _at_least_1(requests, "requests")
    key, missing = _credentials(job, options)
    prepared = prepare(job, limit=options.limit)
    sample = Sample(requests, bytes.fromhex(prepared.plan.input_fingerprint))  # two prompts' pilots can be compared
    scan, counter = _scanned(prepared, ledger, Selection(), options.tick, sample)
    report = None
    if sample.to_send:
        if missing is not None:
            raise missing
        outlook, _ = _before(prepared, ledger, Selection())  # before the warnings, as one may come of it
        _tell_warnings(prepared, key, options)
        too_long = scan.too_long.said()
        if too_long is not None:
            options.notify(too_long)
        how = replace(_launch(ledger, options), outlook=outlook)
        report = send_pilot(prepared.rescanned(), key, how, sample.to_send)
    found: Estimate | LedgerError
    try:
        if report is not None:
            scan.ended(ledger.known(job.name, job.reuse))
        before = _before(prepared, ledger, Selection(), sample, sent=report is not None)
        found = scan.answer(prepared.plan, *before, counter)
    except LedgerError as error:
        if report is None:
            raise
        found = error  # what was paid for is told all the same
    return Piloted(prepared, found, len(sample.chosen), report)


def _credentials(job: Job, options: RunOptions) -> tuple[str | None, UserError | None]:
    """Fetch the key; that one is missing is no mistake if there is nothing to send."""
    try:
        return credentials(job, options.environ), None
    except UserError as error:
        return None, error


def _tell_warnings(prepared: Prepared, key: str | None, options: RunOptions) -> None:
    for warning in (*prepared.warnings, *key_warnings(prepared.job, key, options.environ)):
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
    for name in _several(names, "names"):
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
        raise UsageError(f"the job {name} can't be told to stop: {error.strerror} ({ledger.folder})") from error
    return int(pid)


def status(ledger: Ledger, job: Name | None = None) -> tuple[Table, list[str]]:
    """Return every job's progress (or one job's), and what is wrong with journals, if anything."""
    job = None if job is None else os.fspath(job)
    if job is not None:
        require_job(ledger, job_name(job))
    table = run_report(ledger, status_report.SQL)
    live = live_runs(ledger.folder)
    for row in table.rows:
        row["state"] = _state(row, live)
        row["pid"] = live.get(row["job"], {}).get("pid")
    rows = [row for row in table.rows if job is None or row["job"] == job_name(job)]
    damage = run_report(ledger, status_report.DAMAGE).rows
    notes = [
        f"journal {row['journal_id']}: {row['pieces']} damaged pieces ({row['bytes']} bytes), the first at byte"
        f" {row['first_at']}: lines in them are lost"
        for row in damage
    ]
    unfinished = [row for row in rows if row["job"] not in live and (row["pending"] or not row["complete"])]
    notes += [note for row in unfinished if (note := earlier_answers(ledger, row["job"])) is not None]
    return Table(table.columns, rows), notes


def _state(row: Mapping[str, Any], live: Mapping[str, Mapping[str, Any]]) -> str:
    if row["job"] in live:
        return f"running ({live[row['job']].get('pid')})"
    if row["ended_at"] is None:
        return "interrupted"
    if row["exit_code"] in {0, 3}:  # of what the run was asked for: with --limit or as a retry not the whole plan
        return "finished" if row["complete"] and not row["pending"] else "partial"
    return {4: "paused", 130: "interrupted"}.get(row["exit_code"], "failed")


@dataclass(frozen=True, slots=True)
class Errors:
    """Rows that did not end well."""

    table: Table
    """One line a cause."""
    standing: list[str]
    """How the others stand, and why the newest run left any."""
    advice: list[str]
    """What helps each status."""


def errors(ledger: Ledger, job: Name) -> Errors:
    """Return a job's rows that did not end well, by cause, what helps, and how the others stand."""
    job = os.fspath(job)
    name = job_name(job)
    require_job(ledger, name)
    table = run_report(ledger, errors_report.SQL, [name])
    (counts,) = run_report(ledger, errors_report.COUNTS, [name]).rows
    (newest,) = run_report(ledger, errors_report.NEWEST_RUN, [name]).rows
    file = job if job.endswith(".toml") else run_report(ledger, errors_report.JOB_FILE, [name]).rows[0]["file"]
    config = json.loads(newest["config"])
    command, limit, note = _as_it_ran(file, newest["run_id"], config)
    option = ledger_option(ledger.path)
    command += option
    live = live_runs(ledger.folder).get(name)
    retry = None if live is not None else _unfinished_retry(ledger, name, file)
    advice = []
    for status in dict.fromkeys(str(row["status"]) for row in table.rows):
        causes = [row["error_type"] for row in table.rows if row["status"] == status]
        # Where the cure is another limit, the old one is not named.
        named_job = command if status == "truncated" else command + limit
        advice += errors_report.advice(status, named_job, config, causes, retry=retry is None)
    if table.rows:
        note.append(errors_report.EACH_ROW.format(job=name, ledger=option))
    pid = None if live is None else live.get("pid")
    bad = sum(row["rows"] for row in table.rows)
    rest = command + limit if retry is None else command  # a retry's higher limit was for its rows alone
    standing = errors_report.standing(bad, counts, newest, pid, rest, retry=retry)
    told = live is not None or errors_report.is_done(counts, newest)
    hidden = None if told else earlier_answers(ledger, name)
    return Errors(table, standing, advice + note + ([] if hidden is None else [hidden]))


def named(file: str, ledger: Ledger) -> str:
    """Return how a command names a job in a ledger."""
    return shlex.quote(file) + ledger_option(ledger.path)


def _unfinished_retry(ledger: Ledger, job: str, file: str) -> str | None:
    """Name the command that goes on with a job's interrupted retry; None if there is none."""
    found = run_report(ledger, errors_report.UNFINISHED_RETRY, [job]).rows
    if not found:
        return None
    options: str | None
    try:
        options = as_that_retry(json.loads(found[0]["config"]), load_job(file).config)
    except UserError:  # it is gone, or in the making: the command will say so
        options = ""
    if options is None:
        return f"`promptmill retry` with the settings of run {found[0]['run_id']}"
    selected = found[0]["command"].removeprefix("retry")
    return f"`promptmill retry {shlex.quote(file)}{options}{ledger_option(ledger.path)}{selected}`"


def _as_it_ran(file: str, run_id: int, config: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return how a command names the job as a run had it, and what to know if its file says something else now.

    Between them stands the option for max_tokens, if there has to be one.
    """
    quoted = shlex.quote(file)
    try:
        now = load_job(file).config
    except UserError:  # it is gone, or in the making: a command will say so
        return quoted, "", []
    names, more = changed(config, now), carried(config, now)
    options = as_options(config, names)
    others = "Without --set a command looks at other rows"
    if options is None:
        others = f"The rows above are that run's; a command for {file} looks at others"
    said = f"run {run_id} had other settings than {file} has now: {', '.join([*names, *more])}. {others}"
    note = [said] if names else []  # a budget of the command line, say, is no news to who gives it each night
    if options is None:
        return quoted, "", note
    limit = more.pop("model.max_tokens", "")
    return quoted + options + "".join(more.values()), limit, note


@dataclass(frozen=True, slots=True)
class Spend:
    """Money and tokens by dimensions."""

    table: Table
    total: Mapping[str, Any]
    """The same sums over the whole ledger."""
    warnings: list[str]
    """Where the provider's own bill says that the price is wrong."""


def spend(ledger: Ledger, by: Sequence[str] = ("job",), *, period: Period = ALWAYS_AND_EVER) -> Spend:
    """Return money and tokens by dimensions (see reports/spend.py). Raises UsageError."""
    require_dimensions(_several(by, "by"))
    table, total, mispriced = run_reports(
        ledger,
        spend_report.SQL.format(by=", ".join(by), where=period.condition),
        spend_report.TOTAL.format(where=period.condition),
        spend_report.MISPRICED.format(where=period.condition),
    )
    return Spend(table, total.rows[0], [_mispriced(row) for row in mispriced.rows])


def _mispriced(row: Mapping[str, Any]) -> str:
    billed, computed = dollars(row["billed_usd"]), dollars(row["computed_usd"])
    off = "" if row["percent"] is None else f" ({row['percent']:+} %)"
    return (
        f"{row['provider']} says it billed {billed} for {row['model']} where {computed} was computed{off}: the price"
        " table is wrong. The ledger's cost_usd is what was billed; what a request may cost at most is off until the"
        " price is corrected"
    )


@dataclass(frozen=True, slots=True)
class Respend:
    """What attempts cost, and would have cost."""

    table: Table
    totals: Sequence[Mapping[str, Any]]
    """The same over all groups, a line for each target."""
    warnings: list[str]
    """Where a cache would have saved nothing."""


def respend(
    ledger: Ledger,
    targets: Sequence[str] = (),
    *,
    by: Sequence[str] = ("job",),
    days: Sequence[date] = (),
    cached: str | None = None,
    price_file: Path | None = None,
    period: Period = ALWAYS_AND_EVER,
) -> Respend:
    """Return what the ledger's attempts cost, and would have cost.

    As MODEL[@PROVIDER][:LANE], else as they are; on one day, or on two; with READ[,WRITTEN] of the input in the cache.
    Raises UserError.
    """
    require_dimensions(_several(by, "by"))
    parsed = [Target.parse(text) for text in _several(targets, "targets")]
    caching = None if cached is None else Caching.parse(cached)
    found = repricing.reprice(ledger, price_file, parsed, by=by, days=days, caching=caching, period=period)
    return Respend(Table(tuple(found.lines[0]) if found.lines else (), found.lines), found.totals, found.warnings)


def prices(
    model: str | None = None,
    *,
    provider: str | None = None,
    at: datetime | None = None,
    price_file: Path | None = None,
) -> list[Quote]:
    """Return what would be charged for a model, by everybody who sells it; without one, the lists that are files.

    `MODEL@PROVIDER` names both. Raises PriceError if nobody's price is known, UsageError if `at` has no time zone.
    """
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise UsageError(f"at must be a datetime with a time zone, not {at!r}")
    if model is not None and provider is None and model.rfind("@") > 0:
        target = Target.parse(model)
        model, provider = str(replace(target, provider=None)), target.provider
    return Prices(price_file).quotes(model, provider, at or datetime.now(UTC))


def forecast(ledger: Ledger) -> Table:
    """Return each run's estimate beside what the run cost, with a verdict."""
    return run_report(ledger, forecast_report.SQL)


def drift(ledger: Ledger) -> Table:
    """Return how well input tokens were counted before sending, per model and method."""
    return run_report(ledger, drift_report.SQL)


def reconcile(
    ledger: Ledger, files: Sequence[Path], *, columns: Mapping[str, str], provider: str | None, tolerance: Decimal
) -> Reconciled:
    """Compare the ledger with a provider's usage exports (see reconciling.py). Raises UserError."""
    return reconciling.reconcile(ledger, files, columns=columns, provider=provider, tolerance=tolerance)


def sql(ledger: Ledger, query: str) -> pl.DataFrame:
    """Answer a read-only query. Raises UsageError with DuckDB's own words."""
    return ledger.ask(query)


def results(
    ledger: Ledger, job: Name, output: Name, *, now: Job | None = None, with_input: bool = False
) -> exporting.Exported:
    """Write a job's rows in input order to a .jsonl, .parquet or .csv file. Raises UserError.

    `now` is what the job's file says now, if that is known; `with_input` needs it. In .csv a text that a spreadsheet
    would run as a formula gets an apostrophe. Columns of mixed types in JSON lines have one type in .parquet.
    """
    job, output = os.fspath(job), Path(output)
    name = job_name(job)
    if with_input and now is None:
        raise UsageError("with_input needs now: the job as its file says it, open_job(FILE)")
    if now is not None and now.name != name:
        raise UsageError(f"now is the job {now.name}, and the results asked for are {name}'s")
    require_job(ledger, name)
    exporting.require_spare(output, ledger, name, job, {} if now is None else now.config)
    if now is None or not with_input:
        _require_list(ledger, name, output)
        return exporting.export(ledger, name, output)
    return exporting.export_with_input(ledger, now, output)


def _require_list(ledger: Ledger, job: str, output: Path) -> None:
    """Refuse to write a file without a row because nobody knows the rows yet. Raises UsageError."""
    unlisted = no_list(ledger, job)
    if unlisted is None:
        return
    live = live_runs(ledger.folder).get(job)
    if live is None:
        raise UsageError(f"{unlisted}. {output} is not written: --with-input finds the answers without the list")
    raise UsageError(
        f"{job} is running (process {live.get('pid')}) and has not listed its rows yet; ask again in a few seconds."
        f" {output} is not written"
    )


def changed_since(ledger: Ledger, job: Job) -> str | None:
    """Say how a job differs from the newest plan that the ledger has of it; None if it doesn't. Reads no row.

    Then the ledger's results are answers to something else. Raises InputError if the input is not there any more.
    """
    found = run_report(ledger, results_report.NEWEST_PLAN, [job.name]).rows
    if not found or found[0]["fingerprint"] == plan_fingerprint(job, open_source(job.input).fingerprint()):
        return None
    return f"these are the answers of run {found[0]['run_id']}, and {_change(job, found[0]['config'])}"


def _change(job: Job, booked: str) -> str:
    """Say what makes a job another than the one that is booked."""
    names = changed(json.loads(booked), job.config)
    if names:
        return f"{job.file} says something else now: {', '.join(names)}"
    return f"a file that {job.file} reads has changed since"


def earlier(ledger: Ledger, job: Name) -> str | None:
    """Say that another plan has more answers than the job's newest, which is the one that is shown, if it is so."""
    return earlier_answers(ledger, job_name(os.fspath(job)))
