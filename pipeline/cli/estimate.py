"""`promptmill estimate JOB`."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._options import job_options, json_option, ledger_option, open_ledger, overrides_of, quiet_option, warn
from pipeline.cli._show import duration, money, plural, print_facts, say
from pipeline.cli._ticker import Ticker

if TYPE_CHECKING:
    from pipeline.estimating import Estimate
    from pipeline.runners.launch import Prepared


@click.command("estimate", short_help="Count all input tokens and bound the cost; send nothing.")
@click.argument("job")
@job_options
@ledger_option
@json_option
@quiet_option
def command(
    job: str,
    settings: tuple[str, ...],
    limit: int | None,
    budget: Decimal | None,
    price: str | None,
    ledger_path: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    """Render and count every row of JOB, leave out what is answered already, and say what the rest costs at most.

    Output is bounded by max_tokens: the low figure is the input alone, the ceiling is every answer at its limit.
    Retries come on top of the ceiling; a budget includes them.
    """
    from pipeline import api

    opened = api.open_job(job, overrides_of(settings, limit, budget, price))
    tick = Ticker(quiet=quiet)
    try:
        prepared, result = api.estimate(opened, open_ledger(ledger_path), limit=limit, tick=tick)
    finally:
        tick.clear()
    if as_json:
        print_facts(facts_of(prepared, result), as_json=True)
    else:
        say(show_estimate(prepared, result))
    for warning in prepared.warnings:
        warn(warning)
    if result.duplicate_ids:
        warn(f"{result.duplicate_ids:,} rows repeat the {opened.input.id!r} of an earlier row")
    return 0


def facts_of(prepared: "Prepared", estimate: "Estimate") -> dict[str, Any]:
    """Return the estimate as plain values: what `--json` prints (docs/cli.md lists the keys)."""
    from dataclasses import asdict

    price = prepared.price
    job = prepared.job
    return {
        "job": job.name,
        "provider": job.provider.name,
        "model": job.model.name,
        **asdict(estimate),
        "budget_usd": job.budget_usd,
        "price": None if price is None else price.as_record(),
    }


def show_estimate(prepared: "Prepared", estimate: "Estimate") -> str:
    """Return the estimate as lines for people."""
    job = prepared.job
    lines = {
        "job": f"{job.name}: {job.model.name} at {job.provider.name}",
        "rows": _rows(estimate),
        "to send": plural(estimate.to_send, "request") + _savings(estimate),
        "input": f"{estimate.input_tokens:,} tokens ({_how(estimate)}), the longest {estimate.longest:,}",
        "output": _output(prepared, estimate),
        "cost": _cost(prepared, estimate),
        "price": _price(prepared),
        "time": _time(estimate),
    }
    if job.budget_usd is not None:
        short = estimate.low_usd is not None and estimate.low_usd > job.budget_usd
        lines["budget"] = f"{money(job.budget_usd)} for this plan, all its runs together" + (
            ": not enough for the input alone" if short else ""
        )
    return "\n".join(f"{name.ljust(8)}  {text}" for name, text in lines.items())


def _rows(estimate: "Estimate") -> str:
    more = "" if estimate.complete else " (--limit)"
    return f"{estimate.rows:,}{more}"


def _savings(estimate: "Estimate") -> str:
    saved = {
        "repeated": estimate.repeated,
        "with their outcome already": estimate.already,
        "answered by another job": estimate.reused,
        "can't be sent": estimate.rejected,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in saved.items() if count)
    return f" ({told})" if told else ""


def _how(estimate: "Estimate") -> str:
    if not estimate.to_send:
        return estimate.count_method
    by = "counts kept from before" if estimate.counter is None else f"counted by {estimate.counter}"
    return f"{estimate.count_method}, {by}"


def _output(prepared: "Prepared", estimate: "Estimate") -> str:
    limit = prepared.job.model.max_tokens
    if limit is None:
        return "unbounded: max_tokens is not set"
    return f"at most {estimate.to_send * limit:,} tokens ({limit:,} each)"


def _cost(prepared: "Prepared", estimate: "Estimate") -> str:
    if prepared.price is not None and prepared.price.is_free:
        return "free"
    if estimate.to_send == 0:
        return "nothing to pay"
    if estimate.ceiling_usd is None:
        low = "" if estimate.low_usd is None else f"at least {money(estimate.low_usd)}; "
        return f"{low}no upper bound: " + ("the price is unknown" if prepared.price is None else "set max_tokens")
    return f"{money(estimate.low_usd)} (input alone) to {money(estimate.ceiling_usd)} (ceiling, retries apart)"


def _price(prepared: "Prepared") -> str:
    price = prepared.price
    if price is None:
        return "unknown"
    if price.is_free:
        return f"free ({price.source})"
    since = f"; in force since {price.effective_from}" if price.effective_from else ""
    return f"{money(price.input)} in, {money(price.output)} out per 1M tokens (source: {price.source}{since})"


def _time(estimate: "Estimate") -> str:
    if estimate.seconds is None:
        return "depends on the provider (no rate limits are stated in [limits])"
    return f"at least {duration(estimate.seconds)} ({estimate.binding_limit} binds)"
