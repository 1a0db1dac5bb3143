"""An estimate for people and for programs."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

from pipeline.cli._show import duration, money, plural

if TYPE_CHECKING:
    from pipeline.api import Piloted
    from pipeline.estimating import Estimate
    from pipeline.forecasting import Outputs
    from pipeline.runners.launch import Prepared

SHOWN_DIGITS = 4
"""Of a forecast's dollars; --json has them all."""
NOTABLE_SHARE = 0.005
"""Shares below it are not worth a word."""


def facts_of(prepared: "Prepared", estimate: "Estimate", piloted: "Piloted | None" = None) -> dict[str, Any]:
    """Return the estimate as plain values: what `--json` prints (docs/cli.md lists the keys)."""
    job, price, forecast = prepared.job, prepared.price, estimate.forecast
    outlook, finish, bill = estimate.outlook, estimate.finish, forecast.bill
    return {
        "job": job.name,
        "provider": job.provider.name,
        "model": job.model.name,
        "rows": estimate.rows,
        "to_send": estimate.to_send,
        "repeated": estimate.repeated,
        "already": estimate.already,
        "reused": estimate.reused,
        "rejected": estimate.rejected,
        "input_tokens": forecast.input_tokens,
        "count_method": forecast.count_method,
        "counter": estimate.counter,
        "longest": estimate.longest,
        "billed_ratio": round(float(outlook.input_ratio), 6),
        "cached_share": round(float(outlook.cached_share), 6),
        "output": _output_facts(forecast.outputs, job.model.max_tokens, estimate.to_send),
        "input_usd": forecast.input_usd,
        "low_usd": forecast.low_usd,
        "expected_usd": None if bill is None else bill.expected,
        "high_usd": None if bill is None else bill.high,
        "ceiling_usd": forecast.ceiling_usd,
        "doubled_max_tokens_usd": forecast.doubled_usd,
        "seconds": None if finish is None else finish.seconds,
        "binding_limit": None if finish is None else finish.limit,
        "doubled_limit_seconds": None if finish is None else finish.doubled_seconds,
        "duplicate_ids": estimate.duplicate_ids,
        "complete": estimate.complete,
        "budget_usd": job.budget_usd,
        "price": None if price is None else price.as_record(),
        "pilot": None if piloted is None else _pilot_facts(piloted),
    }


def _output_facts(outputs: "Outputs | None", max_tokens: int | None, requests: int) -> dict[str, Any] | None:
    if outputs is None:
        return None
    return {
        "basis": outputs.basis,
        "estimator": outputs.estimator,
        "observed": outputs.observed,
        "rough": outputs.rough,
        "low_tokens": round(outputs.low),
        "expected_tokens": round(outputs.expected),
        "high_tokens": round(outputs.high),
        "most_tokens": None if max_tokens is None else max_tokens * requests,
        "truncated_share": outputs.truncated_share,
    }


def _pilot_facts(piloted: "Piloted") -> dict[str, Any]:
    report = piloted.report
    return {
        "requests": piloted.requests,
        "run_id": None if report is None else report.run_id,
        "sent": 0 if report is None else report.tally.sent,
        "spent_usd": None if report is None else report.spent,
        "paused": None if report is None else report.paused,
    }


def show_estimate(prepared: "Prepared", estimate: "Estimate") -> str:
    """Return the estimate as lines for people."""
    job = prepared.job
    lines = {
        "job": f"{job.name}: {job.model.name} at {job.provider.name}",
        "rows": f"{estimate.rows:,}" + ("" if estimate.complete else " (--limit)"),
        "to send": plural(estimate.to_send, "request") + _savings(estimate),
        "input": _input(estimate),
        "output": _output(prepared, estimate),
        "cost": _cost(prepared, estimate),
        "at most": _ceiling(prepared, estimate),
        "cut off": _cut_off(prepared, estimate),
        "price": _price(prepared),
        "time": _time(prepared, estimate),
        "budget": _budget(prepared, estimate),
    }
    return "\n".join(f"{name.ljust(8)}  {text}" for name, text in lines.items() if text)


def _savings(estimate: "Estimate") -> str:
    saved = {
        "repeated": estimate.repeated,
        "with their outcome already": estimate.already,
        "answered by another job": estimate.reused,
        "can't be sent": estimate.rejected,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in saved.items() if count)
    return f" ({told})" if told else ""


def _input(estimate: "Estimate") -> str:
    forecast, outlook = estimate.forecast, estimate.outlook
    how = forecast.count_method
    if estimate.to_send:
        how += ", counts kept from before" if estimate.counter is None else f", counted by {estimate.counter}"
    text = f"{forecast.input_tokens:,} tokens ({how}), the longest {estimate.longest:,}"
    if abs(outlook.input_ratio - 1) >= NOTABLE_SHARE:
        text += f"; earlier requests were billed {float(outlook.input_ratio):.3f} times as many"
    if outlook.cached_share >= NOTABLE_SHARE:
        text += f"; {float(outlook.cached_share):.0%} cached"
    return text


def _output(prepared: "Prepared", estimate: "Estimate") -> str:
    outputs, limit = estimate.forecast.outputs, prepared.job.model.max_tokens
    if not estimate.to_send:
        return ""
    if outputs is None:
        return "unknown: max_tokens is not set, and nothing was answered yet; --pilot finds out"
    most = "" if limit is None else f", at most {estimate.to_send * limit:,} (max_tokens = {limit:,})"
    if outputs.basis == "limit":
        return f"{outputs.expected:,.0f} tokens{most}: rough, taking half of max_tokens for each; --pilot finds out"
    whose = "the pilot's" if outputs.basis == "pilot" else "this job's newest"
    rough = "; rough: fewer than 50" if outputs.rough else ""
    return (
        f"{outputs.expected:,.0f} tokens, {outputs.low:,.0f} to {outputs.high:,.0f}{most};"
        f" from {whose} {plural(outputs.observed, 'answer')}{rough}"
    )


def _cost(prepared: "Prepared", estimate: "Estimate") -> str:
    bill = estimate.forecast.bill
    if prepared.price is not None and prepared.price.is_free:
        return "free"
    if estimate.to_send == 0:
        return "nothing to pay"
    if prepared.price is None:
        return "unknown: no price"
    if bill is None:
        return f"at least {rounded(estimate.forecast.low_usd, ROUND_FLOOR)}, the input alone"
    low, high = rounded(bill.low, ROUND_FLOOR), rounded(bill.high, ROUND_CEILING)
    outputs = estimate.forecast.outputs
    if outputs is not None and outputs.basis == "limit":
        return f"{rounded(bill.expected)}, from {low} (no output) to {high} (all of it): rough"
    return f"{rounded(bill.expected)}, 9 times of 10 from {low} to {high}" + (
        ": rough" if outputs is not None and outputs.rough else ""
    )


def _ceiling(prepared: "Prepared", estimate: "Estimate") -> str:
    if estimate.to_send == 0 or prepared.price is None or prepared.price.is_free:
        return ""
    ceiling = estimate.forecast.ceiling_usd
    if ceiling is None:
        return "no upper bound: set [model] max_tokens"
    return f"{rounded(ceiling, ROUND_CEILING)} if every request is as dear as it can be (retries after errors apart)"


def _cut_off(prepared: "Prepared", estimate: "Estimate") -> str:
    forecast, limit = estimate.forecast, prepared.job.model.max_tokens
    outputs = forecast.outputs
    if outputs is None or not outputs.truncated_share or limit is None or not estimate.to_send:
        return ""
    text = f"{_percent(outputs.truncated_share)} of those answers hit max_tokens"
    if forecast.doubled_usd is None or (prepared.price is not None and prepared.price.is_free):
        return text
    more = rounded(forecast.doubled_usd, ROUND_CEILING)
    return f"{text}; with max_tokens = {2 * limit:,} this costs at most {more} more"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"  # noqa: PLR2004 -- two digits say enough


def _price(prepared: "Prepared") -> str:
    price = prepared.price
    if price is None:
        return "unknown"
    if price.is_free:
        return f"free ({price.source})"
    since = f"; in force since {price.effective_from}" if price.effective_from else ""
    checked = f"; checked {price.checked}" if price.checked else ""
    return f"{money(price.input)} in, {money(price.output)} out per 1M tokens (source: {price.source}{since}{checked})"


def _time(prepared: "Prepared", estimate: "Estimate") -> str:
    finish = estimate.finish
    if not estimate.to_send:
        return ""
    if finish is None:
        return "depends on the provider (no rate limits are stated in [limits], and nothing was answered yet)"
    value = getattr(prepared.job.limits, finish.limit)
    text = f"at least {duration(finish.seconds)}: {finish.limit} = {value:,.10g} binds"
    if round(finish.doubled_seconds) < round(finish.seconds):
        text += f"; with {2 * value:,.10g} {duration(finish.doubled_seconds)}"
    return text


def _budget(prepared: "Prepared", estimate: "Estimate") -> str:
    budget, forecast = prepared.job.budget_usd, estimate.forecast
    if budget is None:
        return ""
    text = f"{money(budget)} for this plan, all its runs together"
    if forecast.low_usd is not None and forecast.low_usd > budget:
        return f"{text}: not enough even for the low figure"
    if forecast.bill is not None and forecast.bill.expected > budget:
        return f"{text}: not enough for what is expected"
    return text


def rounded(amount: Decimal | None, rounding: str = ROUND_HALF_EVEN) -> str:
    """Write a forecast's dollars with the digits that mean something."""
    if amount is None or not amount:
        return money(amount)
    place = Decimal(1).scaleb(amount.adjusted() - SHOWN_DIGITS + 1)
    return money(amount.quantize(min(place, Decimal("0.01")), rounding=rounding))
