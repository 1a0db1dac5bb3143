"""What `run` and `retry` share: ask, run, sum up, and the exit code."""

import contextlib
import os
import sys
from dataclasses import dataclass
from decimal import ROUND_CEILING
from typing import TYPE_CHECKING, Any

import click

from pipeline.budget import ZERO, about, as_booked
from pipeline.cli._options import heard_at_once, keep_secret, open_ledger, warn
from pipeline.cli._show import as_json_text, money, pause_facts, plural, say, status_counts
from pipeline.cli._ticker import Ticker
from pipeline.errors import PAUSED, Pause, RunDeclined, RunPaused, condition_of, pause_of
from pipeline.stopping import Asked, stoppable
from pipeline.text import duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from decimal import Decimal
    from pathlib import Path

    from pipeline.api import Overrides
    from pipeline.estimating import Estimate
    from pipeline.job import Job
    from pipeline.ledger import Ledger
    from pipeline.planning import Selection
    from pipeline.runners.launch import Prepared
    from pipeline.runners.local import LocalRun, RunReport
    from pipeline.runners.runlog import RunLog


@dataclass(frozen=True)
class LogTo:
    """What `--log` and `--log-level` say."""

    path: "Path | None"
    level: str | None


def send(
    path: str,
    wanted: "Callable[[], tuple[Overrides, Selection]]",
    ledger_path: "Path",
    *,
    limit: int | None,
    yes: bool,
    until: float | None,
    quiet: bool,
    as_json: bool,
    command: str,
    log: LogTo,
) -> int:
    """Run a job and return the exit code; `wanted` is asked for what is when signals are heard already."""
    job: Job | None = None
    try:
        with stoppable(leaving=True) as asked, _opened(log, ledger_path, asked) as told:
            import asyncio

            from pipeline import api
            from pipeline.cli._progress import Progress

            overrides, selection = wanted()
            job, ticker = api.open_job(path, overrides), Ticker(quiet=quiet)
            told.secret(os.environ.get(job.api_key_env or "", "").strip())
            ledger = open_ledger(ledger_path, told.say)
            news = NewLedger(ledger, told.say, quiet=quiet)

            def watch(run: "LocalRun") -> "Awaitable[None]":
                asked.begun = True  # at once, and not in a turn of the loop that a short run may never have
                return watching(run)

            async def watching(run: "LocalRun") -> None:
                news.tell()
                with contextlib.suppress(OSError):  # the terminal is gone: the run goes on all the same
                    await asyncio.gather(Progress(quiet=quiet).watch(run), told.watch(run))

            options = api.RunOptions(
                environ=os.environ,
                watch=watch,
                notify=told.say,
                confirm=None if yes else _Confirm(told.say, ticker, news, quiet=quiet),
                tick=ticker,
                limit=limit,
                selection=selection,
                command=command,
                until=until,
            )
            try:
                report = api.run(job, ledger, options)
            except RunDeclined:
                return 2
            finally:
                ticker.clear()
            asked.over()
            _sum_up(job, report, told, as_json=as_json, limited=limit is not None)
            if report.tally.bad:
                told.say(f"see why with: promptmill errors {api.named(job.file, ledger)}")
            return report.exit_code
    except RunPaused as error:
        if as_json:
            with contextlib.suppress(OSError):
                say(as_json_text(_before_it_began(job, error), indent=None))
        raise


class NewLedger:
    """Says, once, that a run makes the ledger: one under a mistyped name pays for everything again."""

    def __init__(self, ledger: "Ledger", say: "Callable[[str], None]", *, quiet: bool) -> None:
        self._path, self._say = ledger.path, say
        self._untold = not quiet and not ledger.exists()

    def tell(self) -> None:
        """Say it, if it is so."""
        if self._untold:
            self._say(f"new ledger {self._path}")
        self._untold = False


class _Told:
    """Whoever hears what the user hears: the terminal, and the log if there is one."""

    def __init__(self, log: "RunLog | None") -> None:
        self._log = log

    def say(self, text: str) -> None:
        """Warn on stderr, and write it down."""
        warn(text)
        if self._log is not None:
            self._log.tell(text)

    def secret(self, value: str) -> None:
        """Hide a key from both."""
        keep_secret(value)
        if self._log is not None and value:
            self._log.hide(value)

    async def watch(self, run: "LocalRun") -> None:
        """Write down the progress."""
        if self._log is not None:
            await self._log.watch(run)

    def end(self, report: "RunReport", sentence: str) -> None:
        """Write down how the run ended."""
        if self._log is not None:
            self._log.ended(report.run_id, report.exit_code, sentence)


@contextlib.contextmanager
def _opened(log: LogTo, ledger_path: "Path", asked: Asked) -> "Iterator[_Told]":
    if log.path is None:
        if log.level is not None:
            raise click.UsageError("--log-level needs --log FILE")
        yield _Told(None)
        return
    from pipeline.ledger import Ledger
    from pipeline.runners import runlog

    forbidden = [ledger_path.with_name(f"{ledger_path.name}{ending}") for ending in ("", ".gate", ".wal")]
    if log.path.resolve().parent == Ledger(ledger_path).folder.resolve():
        raise click.UsageError(f"--log {log.path}: that folder holds the ledger's journals; name a file elsewhere")
    with runlog.opened(log.path, debug=log.level == "debug", notify=warn, forbidden=forbidden) as opened:
        try:
            yield _Told(opened)
        except click.ClickException as error:
            opened.tell(error.format_message())
            raise
        except BaseException as error:
            opened.failed(asked.stopped or error)
            raise


class _Confirm:
    """Show the estimate and ask, where there is somebody to ask and something to pay."""

    def __init__(self, say: "Callable[[str], None]", ticker: Ticker, news: NewLedger, *, quiet: bool) -> None:
        self._say, self._ticker, self._news, self._quiet = say, ticker, news, quiet

    def __call__(self, prepared: "Prepared", estimate: "Estimate") -> bool:
        from pipeline.cli._estimate import show_estimate, trouble_in

        self._ticker.clear()
        nothing_to_pay = estimate.to_send == 0 or prepared.meter.is_free
        if not self._quiet or not nothing_to_pay:
            say(show_estimate(prepared, estimate), err=True)
        for trouble in trouble_in(estimate, prepared.job):
            self._say(trouble)
        if nothing_to_pay:
            return True
        if not sys.stdin.isatty() or not sys.stderr.isatty():
            self._say(
                "nothing was sent: without a terminal nobody can be asked. Look at the estimate above, then add --yes"
            )
            return False
        self._news.tell()
        try:
            with heard_at_once():
                agreed = click.confirm(_question(estimate, prepared.job.budget_usd), err=True)
        except click.Abort:
            click.echo(err=True)
            agreed = False
        if not agreed:
            self._say("nothing was sent")
        return agreed


def _question(estimate: "Estimate", budget: "Decimal | None") -> str:
    """Ask with the dollars in sight: who agrees to thousands of requests agrees to them."""
    forecast = estimate.forecast
    cost = "at a cost that nobody knows" if forecast.bill is None else f"for about {about(forecast.bill.expected)}"
    most = "" if forecast.ceiling_usd is None else f"at most {about(forecast.ceiling_usd, ROUND_CEILING)}; "
    cap = "no budget is set" if budget is None else f"the budget is {money(budget)}"
    return f"Send {plural(estimate.to_send, 'request')} {cost} ({most}{cap})?"


def _before_it_began(job: "Job | None", error: RunPaused) -> "dict[str, Any]":
    """Return the facts of a run that is paused before it has a number, or has read its job, under any other's names."""
    from pipeline.runners.local import RunReport
    from pipeline.runners.tally import Tally

    nothing = RunReport(
        run_id=0, tally=Tally(), complete=False, spent=ZERO, uncertain=ZERO, unbounded=0, plan_spent=None,
        paused=pause_of(error), left_over=None, seconds=0.0, exit_code=PAUSED, free=False, duplicate_ids=0,
        requests_per_minute=None,
    )  # fmt: skip
    return {**_facts(job, nothing), "run_id": None}


def _facts(job: "Job | None", report: "RunReport") -> "dict[str, Any]":
    tally = report.tally
    return {
        "job": None if job is None else job.name, "run_id": report.run_id,
        "rows": tally.rows, "complete": report.complete, "statuses": dict(tally.statuses),
        "sent": tally.sent, "reused": tally.reused, "already": tally.already, "repeated": tally.repeated,
        "spent_usd": None if report.spent is None else as_booked(report.spent),
        "uncertain_usd": as_booked(report.uncertain), "unknown_unbounded": report.unbounded,
        "plan_spent_usd": None if report.plan_spent is None else as_booked(report.plan_spent),
        "rate_limited": tally.rate_limited + tally.limited_alone,
        "shut_seconds": round(tally.shut_seconds, 3),
        "requests_per_minute": None if report.requests_per_minute is None else round(report.requests_per_minute, 1),
        **pause_facts(report.paused), "seconds": round(report.seconds, 3), "exit_code": report.exit_code,
    }  # fmt: skip


def _sum_up(job: "Job", report: "RunReport", told: _Told, *, as_json: bool, limited: bool) -> None:
    sentence = _sentence(job, report, limited=limited)
    shown = as_json_text(_facts(job, report), indent=None) if as_json else sentence
    told.end(report, sentence)
    try:
        say(shown)
    except OSError as error:  # the terminal is closed, a disk is full: the exit code says all the same that it paused
        if report.paused is None and not isinstance(error, BrokenPipeError):
            raise
    for line in _advice(report):
        told.say(line)


def _sentence(job: "Job", report: "RunReport", *, limited: bool) -> str:
    tally = report.tally
    statuses = status_counts(tally.statuses)
    if tally.sent == 0 and report.paused is None:
        if not tally.rows:
            return f"{job.name}: nothing to send: no row is to be asked again"
        others = f", {tally.reused:,} of them from other jobs' answers" if tally.reused else ""
        looked_at = " that --limit looks at" if limited else ""
        return f"{job.name}: nothing to send: every row{looked_at} has its outcome ({statuses}{others})"
    attempts = f"{plural(tally.sent, 'attempt')} in {duration(report.seconds)}, {spent_in_words(report)}"
    if not tally.expected:
        return f"{job.name}: ended before it had looked at a row; {attempts}"
    return f"{job.name}: {_how_far(report, statuses, limited=limited)}; {attempts}"


def _how_far(report: "RunReport", statuses: str, *, limited: bool) -> str:
    """Say how many rows have their outcome, and of how many: a total only where some scan saw the end of the input."""
    tally = report.tally
    facts = [statuses] if statuses else []
    if tally.expected > tally.done:
        facts.append(f"{tally.expected - tally.done:,} pending")
    if tally.reused:
        facts.append(f"{tally.reused:,} from other jobs' answers")
    told = ", ".join(facts)
    at_least = ""
    if not tally.scanned and tally.total is None:
        at_least = "at least "
        told += "; the input was not read to its end"
    more = " (--limit)" if limited else ""
    return f"{tally.done:,} of {at_least}{tally.expected:,} rows{more} have their outcome ({told})"


def spent_in_words(report: "RunReport") -> str:
    """Say what a run spent, and how much more that may be: what is unknown is never left out."""
    if report.free:
        return "free"
    more = []
    if report.uncertain:
        more.append(f"at most {money(report.uncertain)} for attempts of unknown cost")
    if report.unbounded:
        more.append(f"{plural(report.unbounded, 'attempt')} of unknown cost without an upper bound")
    told = " and ".join(more)
    if report.spent is None:
        return f"cost unknown ({told})"
    return f"{money(report.spent)} spent (and {told})" if told else f"{money(report.spent)} spent"


def why_paused(paused: Pause) -> str:
    """Say why a run paused and what brings it further: the same command only where it wouldn't meet the same end."""
    condition = condition_of(paused.kind)
    goes_on = f"{condition}, the same command" if condition else "the same command"
    stop = "" if paused.why.endswith(("?", ".")) else "."
    return f"paused: {paused.why}{stop} {goes_on[0].upper()}{goes_on[1:]} goes on from here"


HELD_SHARE = 0.1
"""Rate limits that kept the door shut for less of a run than this are not worth a line, if they taught no rate."""

ALONE_SHARE = 0.01
"""Of the attempts; fewer that had their own rows alone wait are not worth a line."""


def _held_down(report: "RunReport") -> str | None:
    """Say why a run was slow, if rate limits are the reason."""
    tally, learned = report.tally, report.requests_per_minute
    if not tally.rate_limited or (learned is None and tally.shut_seconds < HELD_SHARE * report.seconds):
        return None
    waited = f"{plural(tally.rate_limited, 'answer')} said to slow down (429), and nothing went out for"
    waited += f" {duration(min(tally.shut_seconds, report.seconds))} of {duration(report.seconds)}"
    most = "" if learned is None else f"; at the end at most {learned:,.0f} requests a minute went out"
    return f"held down by the provider's rate limits: {waited}{most}"


def _advice(report: "RunReport") -> list[str]:
    lines = []
    if report.left_over:
        lines.append(report.left_over)
    if report.paused:
        lines.append(f"{why_paused(report.paused)}.")
    if held := _held_down(report):
        lines.append(held)
    alone = report.tally.limited_alone
    if alone > ALONE_SHARE * report.tally.sent:
        lines.append(
            f"{plural(alone, 'answer')} said to slow down (429) while other requests passed: only their own rows waited"
        )
    return lines
