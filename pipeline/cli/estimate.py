"""`promptmill estimate JOB`."""

import contextlib
import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._options import (
    Count,
    job_options,
    json_option,
    keep_secret,
    ledger_option,
    open_ledger,
    overrides_of,
    price_file,
    quiet_option,
    warn,
)
from pipeline.cli._show import plural, print_facts, say
from pipeline.cli._ticker import Ticker
from pipeline.errors import PAUSED, UserError

if TYPE_CHECKING:
    from pipeline.api import Piloted, RunOptions
    from pipeline.cli._sending import NewLedger
    from pipeline.estimating import Estimate
    from pipeline.job import Job
    from pipeline.ledger import Ledger
    from pipeline.runners.local import LocalRun

DEFAULT_PILOT = 100


class _PilotMayStandAlone(click.Command):
    """Reads `--pilot JOB` as `--pilot 100 JOB`: click would take what follows for the option's number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give --pilot its number where a word follows that is none."""
        told = [
            f"--pilot={DEFAULT_PILOT}" if word == "--pilot" and not _is_number(after) else word
            for word, after in zip(args, [*args[1:], ""], strict=True)
        ]
        return super().parse_args(ctx, told)


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


@click.command("estimate", cls=_PilotMayStandAlone, short_help="What a run would cost, and how long it would take.")
@click.argument("job")
@click.option(
    "--pilot",
    type=Count(),
    is_flag=False,
    flag_value=DEFAULT_PILOT,
    metavar="[N]",
    help="Send (and pay for) N random requests now, without a question, keep their answers, and estimate the rest from"
    f" them.  [N: {DEFAULT_PILOT}]",
)
@click.option(
    "--compare",
    metavar="MODEL,...",
    help="What the same tokens would cost as MODEL[@PROVIDER][:batch|:flex], and so on.",
)
@job_options
@ledger_option
@json_option
@quiet_option
def command(
    job: str,
    pilot: int | None,
    compare: str | None,
    settings: tuple[str, ...],
    limit: int | None,
    budget: Decimal | None,
    price: str | None,
    ledger_path: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    """Count every row of JOB as it would be sent, leave out what is answered already, and say what the rest costs.

    Input is counted; output is forecast: from a pilot (--pilot), from the job's earlier answers, or else roughly from
    max_tokens. The interval holds 9 of 10 times; the ceiling is every answer at max_tokens, repairs included. Retries
    after errors come on top; a budget includes them. Without --pilot nothing is sent.
    """
    from pipeline import api
    from pipeline.cli._estimate import facts_of, show_estimate, trouble_in
    from pipeline.cli._sending import NewLedger
    from pipeline.pricebook import Target

    targets = [] if compare is None else [Target.parse(text.strip()) for text in compare.split(",")]
    opened = api.open_job(job, overrides_of(settings, budget, price))
    ledger, ticker, piloted = open_ledger(ledger_path), Ticker(quiet=quiet), None
    result: Estimate | UserError
    try:
        if pilot is None:
            prepared, result = api.estimate(opened, ledger, limit=limit, tick=ticker)
        else:
            news = NewLedger(ledger, warn, quiet=quiet)
            piloted = api.pilot(opened, ledger, pilot, _options(opened, ticker, news, limit, quiet=quiet))
            prepared, result = piloted.prepared, piloted.estimate
    finally:
        ticker.clear()
    exit_code = 0 if piloted is None else _tell(opened, ledger, piloted)
    if isinstance(result, UserError):
        warn(f"the estimate is not there: {result}. The same command makes it, and sends nothing for that")
        return exit_code or PAUSED
    compared = api.compare(prepared, result, targets, price_file=price_file())
    if as_json:
        print_facts(facts_of(prepared, result, compared, piloted), as_json=True)
    else:
        say(show_estimate(prepared, result, compared))
    told = piloted is not None and piloted.report is not None
    for warning in (*(() if told else prepared.warnings), *trouble_in(result, opened, told=told)):
        warn(warning)
    return exit_code


def _options(job: "Job", ticker: Ticker, news: "NewLedger", limit: int | None, *, quiet: bool) -> "RunOptions":
    """Say how the pilot is to be sent: as a run that nobody needs to be asked about, for --pilot asks for it."""
    from pipeline import api
    from pipeline.cli._progress import Progress

    keep_secret(os.environ.get(job.api_key_env or "", "").strip())

    async def watch(run: "LocalRun") -> None:
        ticker.clear()
        news.tell()
        with contextlib.suppress(OSError):  # the terminal is gone: the pilot goes on all the same
            await Progress(quiet=quiet).watch(run)

    return api.RunOptions(environ=os.environ, watch=watch, notify=warn, tick=ticker, limit=limit)


def _tell(job: "Job", ledger: "Ledger", piloted: "Piloted") -> int:
    """Say on stderr what the pilot did; return the exit code."""
    report, requests = piloted.report, plural(piloted.requests, "random request")
    if report is None:
        warn(f"pilot: {requests} had their answers already: nothing was sent")
        return 0
    from pipeline import api
    from pipeline.cli._sending import spent_in_words, why_paused

    spent, bad = spent_in_words(report), report.tally.bad
    badly = f", {plural(bad, 'row')} did not end well (promptmill errors {api.named(job.file, ledger)})" if bad else ""
    warn(f"pilot: {plural(report.tally.sent, 'attempt')} for {requests}, {spent}{badly}; the answers are kept")
    if report.left_over:
        warn(report.left_over)
    if report.paused:
        warn(f"{why_paused(report.paused)}; the estimate stands on what was answered.")
    return report.exit_code if report.paused else 0
