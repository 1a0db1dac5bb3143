"""From a job to a run: check everything that can be checked without sending, then put the stations together."""

import asyncio
import hashlib
import importlib.metadata
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from pipeline import pricebook
from pipeline.budget import Budget, dollars
from pipeline.counting import Counting
from pipeline.counts import SUFFIX as COUNTS_SUFFIX
from pipeline.errors import STOP_REQUEST, InputError, JobFileError, PriceError, UsageError, UserError
from pipeline.estimating import Estimate, Outlook, TooLong, ToSend
from pipeline.files import read_text
from pipeline.job import Job
from pipeline.ledger import Ledger, Retry, RunRequest, RunStart
from pipeline.notices import Notify
from pipeline.planning import Meter, Plan, Selection, as_base64, paid_for_nothing, passes_over
from pipeline.pricing import Price
from pipeline.prompts import KeyMaker
from pipeline.providers import names as provider_names
from pipeline.providers import own_address, usual_key_env
from pipeline.records import Request
from pipeline.runners import runlog
from pipeline.runners._connection import Bundled, Connection, Remote
from pipeline.runners._loader import Loader
from pipeline.runners._local_model import require_local_model, require_model_name
from pipeline.runners._open_files import make_room_for
from pipeline.runners._planner import Planner
from pipeline.runners.attempt import Exchanger
from pipeline.runners.job_lock import asked_to_stop, job_lock
from pipeline.runners.local import LocalRun, RunReport
from pipeline.runners.signals import listen, look_out
from pipeline.runners.tally import ENDED_BADLY
from pipeline.schemas import doubts
from pipeline.sources import left_out
from pipeline.stopping import Asked, hears_signals, stoppable
from pipeline.text import decimal_text
from pipeline.windows import ContextWindow
from pipeline.wire import WireOptions, open_wire, require_usable_proxy

Watch = Callable[[LocalRun], Awaitable[None]]
AMPLE_PER_CHARACTER = 4
AMPLE_PER_REQUEST = 1024
"""More tokens than any request has: one a byte, and what chat templates put around it."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose mistakes would have shown by now."""

    job: Job
    plan: Plan
    meter: Meter
    limit: int | None
    warnings: list[str] = field(default_factory=list)

    @property
    def price(self) -> Price | None:
        """The price in force now, None if unknown."""
        return self.meter.price

    def rescanned(self) -> "Prepared":
        """Return the same with a plan that has not been scanned yet."""
        return replace(self, plan=Plan(self.job, limit=self.limit))


def prepare(job: Job, *, limit: int | None = None) -> Prepared:
    """Open the input, render the first rows, find the price. Raises UserError; sends nothing."""
    if _is_bundled(job):
        require_model_name(job.model.name)
    now = datetime.now(UTC)
    prices = find_prices(job, now)
    price = prices[0] if prices else None
    _check_budget(job, prices)
    plan = Plan(job, limit=limit)
    first = plan.check_first_rows()
    if not first:
        raise InputError(f"{job.file}: no row of {job.input.path} is selected; look at [input] where")
    warnings = [*paid_for_nothing(first, plan.template), *as_base64(plan.source, plan.template)]
    warnings += [] if job.model.schema is None else doubts(job.model.schema)
    others = left_out(job.input.path, plan.source.files)
    warnings += [] if others is None else [others]
    warnings += _key_of_another(job)
    if price is None:
        costs = "costs will be NULL, not zero"
        if job.provider.tells_costs:
            costs = "costs will be what the provider says it charged, and NULL where it says nothing"
        warnings.append(
            f"the price of {job.model.name} at {job.provider.name} is unknown: {costs};"
            f" give it with [price] or --price IN,OUT (dollars per 1M tokens); {_where_looked(job)}"
        )
    for one in prices:
        warnings += [f"price of {one.model}: {one.note}"] if one.note else []
        old = None if job.price is not None else pricebook.stale(one, now.date())  # the user's own word is of today
        warnings += [old] if old else []
    meter = Meter(job, price, prices[1:])
    meter.worst_case(0)  # a price that no ledger can book shows before anything is sent
    _check_limits(job, meter, [row.request for row in first if row.request is not None])
    return Prepared(job, plan, meter, limit, list(dict.fromkeys(warnings)))


def find_prices(job: Job, at: datetime) -> tuple[Price, ...]:
    """Look up the price in force, and those that may follow it during a run."""
    model = job.model
    return pricebook.find_prices(
        model.provider, model.name, at, stated=job.price, base_url=model.base_url, user_file=job.price_file
    )


def _where_looked(job: Job) -> str:
    """Say where no price was found, and name one that does not count there."""
    return f"{_users_file(job)}{_price_elsewhere(job)}"


def _users_file(job: Job) -> str:
    """Say which file of the user's was looked at: a cron job may lack the variable that names it."""
    if job.price_file is not None:
        return f"your price file {job.price_file} has none"
    return (
        f"no price file was read: it is the one that PROMPTMILL_PRICES names, else {pricebook.USUAL_FILE}"
        " (from Python: Overrides.price_file)"
    )


def _price_elsewhere(job: Job) -> str:
    if job.model.base_url is None:
        return ""
    listed = pricebook.Prices(job.price_file).find(job.model.provider, job.model.name, datetime.now(UTC))
    if listed is None:
        return ""
    rates = f"{decimal_text(listed.input)},{decimal_text(listed.output)}"
    return f". No list counts behind base_url: if {job.provider.name}'s own price holds there, --price {rates}"


def _check_budget(job: Job, prices: Sequence[Price]) -> None:
    """Refuse a budget that can't be held: also where what is free now costs something before the run may have ended."""
    if job.budget_usd is None:
        return
    if not prices:
        raise PriceError(
            f"{job.file}: a budget needs a known price, and none is known for {job.model.name} at {job.provider.name};"
            f" add [price] input and output, or --price IN,OUT (dollars per 1M tokens); {_where_looked(job)}"
        )
    if job.model.max_tokens is None and not all(price.output_is_free for price in prices):
        raise PriceError(f"{job.file}: a budget needs [model] max_tokens, or one answer could cost more than all of it")


def _check_limits(job: Job, meter: Meter, requests: Sequence[Request]) -> None:
    """Refuse a limit that holds back every one of the first requests: it is a mistake, not the rows' own fault."""
    stated = job.limits.tokens_per_minute
    if stated is None or not requests:
        return
    shortest = min(requests, key=lambda request: len(str(request.messages)))
    # Nothing is counted where the room is ample: a tokenizer takes a while to load.
    text = f"{shortest.messages}{job.model.schema}{job.model.extra}"
    if meter.limit_tokens(AMPLE_PER_CHARACTER * len(text) + AMPLE_PER_REQUEST) <= stated:
        return
    if job.limits.never_fits(meter.ticket(shortest).tokens) is None:
        return
    tokens = min(count.tokens for count in meter.count_all(requests))
    least = meter.limit_tokens(tokens)
    if least <= stated:
        return
    answer = f"max_tokens = {least - tokens:,}" if meter.max_tokens else f"{least - tokens:,}, as max_tokens is not set"
    raise JobFileError(
        f"{job.file}: no request fits [limits] tokens_per_minute = {stated:,.0f}: the smallest of the first"
        f" {len(requests):,} needs {least:,} tokens ({tokens:,} of input, and for the answer {answer}); raise the limit"
    )


def fingerprint(prepared: Prepared) -> str:
    """Identify the plan of a prepared job."""
    return plan_fingerprint(prepared.job, prepared.plan.input_fingerprint)


def plan_fingerprint(job: Job, input_fingerprint: str) -> str:
    """Identify a plan: the input's files, the prompt, the model and how rows become keys. Limits are not in it.

    No row is read for that.
    """
    return _digest([input_fingerprint, *_prompt_and_model(job), job.dedupe])


def prompt_id(job: Job) -> str:
    """Identify what shapes answers and their cost, whatever the input: prompt, model, parameters and repairs."""
    return _digest([*_prompt_and_model(job), job.repair])


def _prompt_and_model(job: Job) -> list[object]:
    spec = job.prompt
    prompt_file = read_text(Path(spec.file), "utf-8") if spec.file else None
    return [[spec.system, spec.user, spec.messages_column, prompt_file], KeyMaker(job.model).key(())]


def _digest(facts: list[object]) -> str:
    return hashlib.blake2b(orjson.dumps(facts), digest_size=16).hexdigest()


def credentials(job: Job, environ: Mapping[str, str]) -> str | None:
    """Fetch the key from the variable that the job names; see that the bundled model is installed, a proxy usable.

    Raises UserError if what sending needs is missing.
    """
    if _is_bundled(job):
        require_local_model(job.model.name)
    elif job.provider.base_url is not None:
        require_usable_proxy(job.wire, job.provider.base_url)
    if job.api_key_env is None:
        return None
    key = environ.get(job.api_key_env, "").strip()
    if not key and job.key_required:
        raise UserError(
            f"the environment variable {job.api_key_env} is not set; it must hold the key for {job.provider.name}:"
            f" export {job.api_key_env}=..."
        )
    # Bytes that are no text, a line break in the middle, letters that no header takes; the value is not shown.
    if not key.isprintable() or not (key.isascii() or job.provider.key_in_body):
        raise UserError(
            f"the environment variable {job.api_key_env} holds characters that no key has (letters beyond ASCII, bytes"
            " that are no text, or a line break); set it again"
        )
    return key or None


def _key_of_another(job: Job) -> list[str]:
    """Warn when a preset's usual key is named for somebody else's address: a stranger's job may be after it."""
    host = (urlsplit(job.provider.base_url or "").hostname or "").rstrip(".")
    if job.api_key_env is None or not host or host in _LOOPBACK:
        return []
    for preset in provider_names():
        own = urlsplit(own_address(preset) or "").hostname
        # A region's host is the preset's own too: eu.api.openai.com.
        if usual_key_env(preset) == job.api_key_env and own is not None and not f".{host}".endswith(f".{own}"):
            return [f"the key in ${job.api_key_env} goes to {host}, which is not {preset}'s own address"]
    return []


def key_warnings(job: Job, key: str | None, environ: Mapping[str, str]) -> list[str]:
    """Warn when a key would travel unencrypted, and when none is sent where one may be wanted."""
    url = urlsplit(job.model.base_url or "")
    if job.api_key_env is None and job.model.base_url is not None:
        usual = usual_key_env(job.model.provider)
        is_set = usual is not None and bool(environ.get(usual, "").strip())
        if is_set or (url.scheme == "https" and url.hostname not in _LOOPBACK):
            hint = f" ({usual} is set, but goes only to {job.provider.name}'s own address)" if is_set else ""
            return [
                f"no key is sent to {url.hostname}: if it wants one, name its variable in [model] api_key_env{hint}"
            ]
    if key is None or url.scheme != "http" or url.hostname in _LOOPBACK:
        return []
    return [f"the key travels unencrypted to {url.hostname}: use https"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a run needs besides the job: where it books, and who watches."""

    ledger: Ledger
    watch: Watch | None
    notify: Notify
    stop: threading.Event | None = None
    """Set by whoever wants the run to stop gently."""
    command: str = "run"
    selection: Selection = field(default_factory=Selection)
    total: int | None = None
    """Rows of the plan, if they were counted before."""
    until: float | None = None
    """Epoch seconds when the run lets nothing more out."""
    outlook: Outlook = field(default_factory=Outlook)
    """What is known about earlier requests of the job."""
    estimate: Estimate | None = None
    """The one that was shown before; without it the run makes its own when all its rows are planned."""
    estimated: str | None = None
    """The fingerprint of what that one is about: nothing else may be sent."""
    window: ContextWindow | None = None
    """The model's context, for a run that names rows beyond it; None: nobody knows it, or they were named before."""


def kept_counts(ledger: Ledger, job: Job) -> Path:
    """Return the file that keeps a job's token counts."""
    return ledger.folder / f"{job.name}{COUNTS_SUFFIX}"


def _is_bundled(job: Job) -> bool:
    return job.provider.base_url is None


def account_of(job: Job) -> str:
    """Name whose limits a run uses."""
    return f"{job.provider.name} {job.model.base_url or ''} {job.api_key_env or ''}".strip()


def launch(prepared: Prepared, key: str | None, how: Launch) -> RunReport:
    """Run the job in this process.

    Raises UserError, or RunPaused if it is stopped, before anything is sent; afterwards it always reports.
    """
    job = prepared.job
    refuse_running_loop()
    make_room_for(job.limits.concurrency)
    lock = job_lock(how.ledger.folder, job.name, account_of(job), hears_signals=hears_signals())
    with stoppable() as asked, lock as others:
        if others and not _is_bundled(job):
            how.notify(
                f"{', '.join(others)} runs on the same account: the stated limits are not shared between jobs,"
                " and of what both ask now each pays its own"
            )
        started = _begun(prepared, how, asked)
        asked.begun = True
        runlog.started(prepared, started, how.ledger.path)
        if job.budget_usd is not None and started.plan.spent_usd:
            uncertain = started.plan.uncertain_usd
            bound = f", {dollars(uncertain)} of that at most, for attempts of unknown cost" if uncertain else ""
            spent = dollars(started.plan.spent_usd)
            how.notify(f"this plan has already spent {spent} of its {dollars(job.budget_usd)}{bound}")
        if started.known.asked:
            how.notify(
                "going on with the interrupted retry; requests left out because it has asked them again:"
                f" {len(started.known.asked):,}"
            )
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                report = runner.run(_run(prepared, key, started, how, asked))
                report = replace(report, another_plan=started.plan.new and not started.plan.new_job)
                return replace(report, plan_spent=None) if started.plan.unknown or report.unbounded else report
        finally:
            started.journal.close()


def _begun(prepared: Prepared, how: Launch, asked: Asked) -> RunStart:
    """Register the run; whoever asks it to stop while it waits for the ledger is heard at once."""

    def stopped() -> bool:
        if asked.by is None and _wanted_to_stop(how, prepared.job.name):  # a file asks once
            asked.by = STOP_REQUEST
        return asked.by is not None

    return how.ledger.for_a_run(how.notify, stopped).begin(_request(prepared, how))


def _request(prepared: Prepared, how: Launch) -> RunRequest:
    job = prepared.job
    found = fingerprint(prepared)
    if how.estimated not in {None, found}:
        raise InputError(
            f"{job.file}: the input or the prompt changed after it was estimated, so nothing was sent; run the same"
            " command again to see the new estimate"
        )
    retry = retry_of(prepared, how.selection)
    return RunRequest(
        job=job.name,
        job_file=job.file,
        command=how.command if retry is None else retry.command,
        fingerprint=found,
        prompt_id=prompt_id(job),
        input=job.input.path,
        provider=job.provider.name,
        model=job.model.name,
        lane="realtime",
        max_tokens=job.model.max_tokens,
        price=None if prepared.price is None else prepared.price.as_record(),
        later_prices=[price.as_record() for price in prepared.meter.prices[1:]],
        config=job.config,
        code_version=importlib.metadata.version("promptmill"),
        reuse=job.reuse,
        budgeted=job.budget_usd is not None,
        concurrency=job.limits.concurrency,
        fresh=how.selection.fresh,
        retry=retry,
        passes_over=passes_over(job, how.selection, prepared.limit),
        free=prepared.meter.is_free and not job.provider.tells_costs,
        repairs=job.check is not None,
    )


def retry_of(prepared: Prepared, selection: Selection) -> Retry | None:
    """Say which retry it is, by what it selects and what shapes its answers; None if it is none."""
    if selection.retry is None:
        return None
    named = selection.same_limit or selection.retry != frozenset(ENDED_BADLY)
    options = [f" --status {status}" for status in ENDED_BADLY if named and status in selection.retry]
    options += [] if prepared.limit is None else [f" --limit {prepared.limit}"]
    return Retry(f"retry{''.join(options)}", prompt_id(prepared.job), prepared.job.model.max_tokens)


def refuse_running_loop() -> None:
    """Raise UsageError in a coroutine: a run has a loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("a run needs an event loop of its own: in a notebook say `await pipeline.run_async(...)`")


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's loop where there is one: an exchange costs half the processor time on it."""
    try:
        import uvloop  # noqa: PLC0415 -- not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _wanted_to_stop(how: Launch, job: str) -> bool:
    if how.stop is not None and how.stop.is_set():
        return True
    return asked_to_stop(how.ledger.folder, job)


def _connection(job: Job, key: str | None) -> Connection:
    url = job.provider.base_url
    return Bundled(job.model.name) if url is None else Remote(url, key)


def _total(prepared: Prepared, started: RunStart, how: Launch) -> int | None:
    """Return how many rows the run looks at, if somebody has counted them: for it, or for a run of the same plan."""
    whole = prepared.limit is None and how.selection.retry is None and how.selection.only is None
    if how.total is None and whole and started.plan.complete:
        return started.plan.rows_stored
    return how.total


async def _run(prepared: Prepared, key: str | None, started: RunStart, how: Launch, asked: Asked) -> RunReport:
    job, meter = prepared.job, prepared.meter
    connection = _connection(job, key)
    options = WireOptions(
        timeout_seconds=job.timeout_seconds,
        concurrency=job.limits.concurrency,
        direct=_is_bundled(job),
        notify=how.notify,
    )
    wire = open_wire(job.wire, options)
    exchanger = Exchanger(
        run_id=started.run_id,
        spec=job.model,
        provider=job.provider,
        connection=connection,
        wire=wire,
        meter=meter,
        policy=job.retry,
        check=job.check,
        repair=job.repair,
        limits=job.limits,
        secrets=() if key is None else (key,),
    )
    plan = prepared.plan
    if started.known.done is not None:
        plan = Plan(job, done=started.known.done)
        plan.be_the_plan_of(prepared.plan)
    planner = Planner(
        plan=plan,
        plan_id=started.plan.plan_id,
        stored=started.plan.rows_stored,
        known=started.known,
        selection=how.selection,
        max_tokens=job.model.max_tokens,
        counting=Counting(
            meter,
            kept_counts(how.ledger, job),
            sparing=True,
            notify=None if meter.counter.problem else how.notify,
        ),
        limits=job.limits,
        outlook=how.outlook,
        to_send=ToSend(meter),
        too_long=TooLong(job.model, how.window),
        forecasts=how.estimate is None and not meter.is_free,
        repair=job.repair,
        repair_of=exchanger.repair_of,
    )
    run = LocalRun(
        planner=planner,
        limits=job.limits,
        budget=Budget(job.budget_usd, started.plan.spent_usd),
        exchanger=exchanger,
        journal=started.journal,
        loader=Loader(how.ledger, started.journal),
        rules=job.stop,
        notify=how.notify,
        until=how.until,
        total=_total(prepared, started, how),
        done=started.known.done,
        estimate=how.estimate,
    )
    listen(run, asked, job.timeout_seconds)
    looks = asyncio.create_task(look_out(run, lambda: _wanted_to_stop(how, job.name)))
    try:
        return await run.execute(how.watch)
    finally:
        looks.cancel()
        await wire.close()
        await connection.close()
