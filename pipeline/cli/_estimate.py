"""An estimate for people and for programs."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

from pipeline.budget import ZERO, about, as_booked
from pipeline.cli._histogram import histogram
from pipeline.cli._show import money, pause_facts, plural, table
from pipeline.text import duration

if TYPE_CHECKING:
    from pipeline.api import Piloted
    from pipeline.comparing import Compared
    from pipeline.estimating import Bill, Estimate, Outlook
    from pipeline.forecasting import Outputs
    from pipeline.job import Job
    from pipeline.pricing import Price, Rates
    from pipeline.runners.launch import Prepared

_MARGIN = 10
_WIDEST = 72
"""Longer bars say no more."""
NOTABLE_SHARE = 0.005
"""Shares below it are not worth a word."""


def facts_of(
    prepared: "Prepared", estimate: "Estimate", compared: Sequence["Compared"] = (), piloted: "Piloted | None" = None
) -> dict[str, Any]:
    """Return the estimate as plain values: what `--json` prints (docs/cli.md lists the keys)."""
    from pipeline import api

    job, price, forecast = prepared.job, prepared.price, estimate.forecast
    outlook, finish, bill, too_long = estimate.outlook, forecast.finish, forecast.bill, estimate.too_long
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
        "saved_usd": _saved(estimate),
        "input_tokens": forecast.input_tokens,
        "count_method": forecast.count_method,
        "counter": estimate.counter,
        "longest": estimate.longest,
        "images": estimate.attached.images,
        "files": estimate.attached.files,
        "billed_ratio": round(float(outlook.input_ratio), 6),
        "billed_beyond": round(float(outlook.billed_beyond), 3),
        "cached_share": round(float(outlook.cached_share), 6),
        "billed_factor": round(float(outlook.billed_factor), 6),
        "output": _output_facts(forecast.outputs, _most_tokens(estimate), estimate.to_send),
        "input_usd": forecast.input_usd,
        "low_usd": forecast.low_usd,
        "expected_usd": None if bill is None else bill.expected,
        "high_usd": None if bill is None else bill.high,
        "ceiling_usd": forecast.ceiling_usd,
        "cut_off": estimate.cut_off,
        "doubled_max_tokens_usd": _doubled(estimate),
        "seconds": None if finish is None else finish.seconds,
        "binding_limit": None if finish is None else finish.limit,
        "doubled_limit_seconds": None if finish is None else finish.doubled_seconds,
        "context_window": None if too_long.window is None else too_long.window.tokens,
        "too_long": too_long.requests,
        "too_long_rows": [{"row_id": row_id, "input_tokens": tokens} for row_id, tokens in too_long.rows],
        "sizes": {str(size): estimate.sizes[size] for size in sorted(estimate.sizes)},
        "duplicate_ids": estimate.duplicate_ids,
        "complete": estimate.complete,
        "budget_usd": job.budget_usd,
        "plan_spent_usd": None if estimate.spent_usd is None else as_booked(estimate.spent_usd),
        "price": _price_facts(price),
        "contradictions": [asdict(one) for one in api.contradictions(prepared, estimate)],
        "compare": [_compared_facts(line) for line in compared],
        "pilot": None if piloted is None else _pilot_facts(piloted),
    }


def _price_facts(price: "Price | None") -> dict[str, Any] | None:
    return None if price is None else {**price.as_record(), "blended": price.blended}


def _doubled(estimate: "Estimate") -> Decimal | None:
    longer, again = estimate.forecast.longer_usd, estimate.forecast.again_usd
    return None if longer is None or again is None else longer + again


def _saved(estimate: "Estimate") -> Decimal | None:
    """Return what the rows that need no request would cost, about; None if nobody knows, or nothing is to be sent.

    Rows with an answer of the job as much as those cost that are known, all others as one that is to be sent. What was
    rejected or failed saves nothing.
    """
    bill = estimate.forecast.bill
    if bill is None or not estimate.to_send:
        return None
    from pipeline.pricing import COST_UNIT

    each = bill.expected / estimate.to_send
    known = estimate.forecast.known_usd
    saved = each * (estimate.repeated + estimate.reused) + (each if known is None else known) * estimate.answered
    return saved.quantize(COST_UNIT)


def _output_facts(outputs: "Outputs | None", most_tokens: int | None, requests: int) -> dict[str, Any] | None:
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
        "most_tokens": None if most_tokens is None else most_tokens * requests,
        "truncated_share": outputs.truncated_share,
    }


def _compared_facts(line: "Compared") -> dict[str, Any]:
    return {
        "as": str(line.target),
        "low_usd": line.low_usd,
        "expected_usd": line.expected_usd,
        "high_usd": line.high_usd,
        "ceiling_usd": line.ceiling_usd,
        "price": _price_facts(line.price),
        "note": line.note,
    }


def _pilot_facts(piloted: "Piloted") -> dict[str, Any]:
    report = piloted.report
    spent, uncertain = (ZERO, ZERO) if report is None else (report.spent, report.uncertain)
    return {
        "requests": piloted.requests,
        "run_id": None if report is None else report.run_id,
        "sent": 0 if report is None else report.tally.sent,
        "spent_usd": None if spent is None else as_booked(spent),
        "uncertain_usd": as_booked(uncertain),
        "unknown_unbounded": 0 if report is None else report.unbounded,
        **pause_facts(None if report is None else report.paused),
    }


def show_estimate(prepared: "Prepared", estimate: "Estimate", compared: Sequence["Compared"] = ()) -> str:
    """Return the estimate as lines for people."""
    job = prepared.job
    lines = {
        "job": f"{job.name}: {job.destination}",
        "rows": f"{estimate.rows:,}" + ("" if estimate.complete else " (--limit)"),
        "to send": plural(estimate.to_send, "request") + _savings(estimate),
        "input": _input(estimate),
        "attached": _attached(prepared.job, estimate),
        "output": _output(prepared, estimate),
        "cost": _cost(prepared, estimate),
        "at most": _ceiling(prepared, estimate),
        "cut off": _cut_off(prepared, estimate),
        "price": _price(prepared),
        "but": _contradictions(prepared, estimate),
        "time": _time(prepared, estimate),
        "budget": _budget(prepared, estimate),
    }
    blocks = ["\n".join(f"{name.ljust(_MARGIN - 2)}  {text}" for name, text in lines.items() if text)]
    if len(estimate.sizes) > 1:
        bars = histogram(estimate.sizes, min(shutil.get_terminal_size().columns, _WIDEST) - _MARGIN)
        blocks.append("\n".join(["requests by input tokens", *(f"{' ' * _MARGIN}{line}" for line in bars)]))
    if compared:
        blocks.append(_compared(compared))
    return "\n\n".join(blocks)


def trouble_in(estimate: "Estimate", job: "Job", *, told: bool = False) -> list[str]:
    """Name rows that may come to no good, before they are paid for. `told`: the user knows which are too long."""
    from pipeline.planning import repeated_ids

    too_long = None if told else estimate.too_long.said()
    said = [] if too_long is None else [too_long]
    if estimate.held_back:
        said.append(
            f"{plural(estimate.held_back, 'request')} can't be sent: larger than [limits] tokens_per_minute ="
            f" {job.limits.tokens_per_minute:,.0f} (input + max_tokens); raise it, or shorten these rows"
        )
    if estimate.duplicate_ids:
        said.append(repeated_ids(estimate.duplicate_ids, job.input.id))
    return said


def _compared(compared: Sequence["Compared"]) -> str:
    lines = [
        {
            "the same tokens as": str(line.target),
            "low": _figure(line.low_usd, ROUND_FLOOR),
            "expected": _figure(line.expected_usd),
            "high": _figure(line.high_usd, ROUND_CEILING),
            "at most": _figure(line.ceiling_usd, ROUND_CEILING),
            "": line.note or "",
        }
        for line in compared
    ]
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    return table(names, lines) + "\nOther models count and answer differently: a pilot on them says how much."


def _figure(amount: Decimal | None, rounding: str = ROUND_HALF_EVEN) -> str:
    return "" if amount is None else about(amount, rounding)


def _contradictions(prepared: "Prepared", estimate: "Estimate") -> str:
    from pipeline import api

    said = [
        f'if "{one.says}" is true {about(one.usd)}'
        for one in api.contradictions(prepared, estimate)
        if one.usd is not None
    ]
    return f"the same source contradicts itself: {', '.join(said)}" if said and estimate.to_send else ""


def _savings(estimate: "Estimate") -> str:
    saved = {
        "repeated": estimate.repeated,
        "with their outcome already": estimate.already,
        "answered by another job": estimate.reused,
        "can't be sent": estimate.rejected,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in saved.items() if count)
    dollars = _saved(estimate)
    return f" ({told}{f': saves about {about(dollars)}' if dollars else ''})" if told else ""


def _billed_as(outlook: "Outlook") -> str:
    beyond = round(outlook.billed_beyond)
    if not beyond:
        return f"{float(outlook.input_ratio):.3f} times as many"
    return f"{abs(beyond):,} {'more' if beyond > 0 else 'fewer'} for each exchange"


def _input(estimate: "Estimate") -> str:
    forecast, outlook = estimate.forecast, estimate.outlook
    how = forecast.count_method
    if estimate.to_send:
        how += ", counts kept from before" if estimate.counter is None else f", counted by {estimate.counter}"
    text = f"{forecast.input_tokens:,} tokens ({how}), the longest {estimate.longest:,}"
    if abs(outlook.input_ratio - 1) >= NOTABLE_SHARE:
        text += f"; earlier requests were billed {_billed_as(outlook)}"
    if outlook.cached_share >= NOTABLE_SHARE:
        text += f"; {float(outlook.cached_share):.0%} cached"
    return text


def _attached(job: "Job", estimate: "Estimate") -> str:
    """Say what is taken for an image and for a file: nobody knows what they cost before they are billed."""
    from pipeline.tokens import FILE_BOUND, IMAGE_BOUND, IMAGE_TOKENS

    kinds = (("image", estimate.attached.images, IMAGE_BOUND), ("file", estimate.attached.files, FILE_BOUND))
    said = [
        f"{plural(number, name)}, taken for {IMAGE_TOKENS:,} tokens each and at most {bound:,}"
        for name, number, bound in kinds
        if number
    ]
    window = job.context_window
    if said and window is not None and window < (FILE_BOUND if estimate.attached.files else IMAGE_BOUND):
        said.append(f"a request with them at most {window:,} (context_window)")
    elif estimate.attached.files and window is None:
        said.append("[model] context_window bounds a request with them")
    if said and not estimate.outlook.used:
        said.append("--pilot finds out what they cost")
    return "; ".join(said)


def _most_tokens(estimate: "Estimate") -> int | None:
    """Return the most output of one request; of repairs nothing is known before any answer."""
    outlook = estimate.outlook
    return outlook.most_tokens if outlook.used else outlook.max_tokens


def _output(prepared: "Prepared", estimate: "Estimate") -> str:
    outputs, limit, most = estimate.forecast.outputs, prepared.job.model.max_tokens, _most_tokens(estimate)
    if not estimate.to_send:
        return ""
    if outputs is None:
        return f"unknown: max_tokens is not set, and {_no_answers(estimate)}"
    repairs = ", repairs apart" if not estimate.outlook.used else f", and {plural(prepared.job.repair, 'repair')}"
    repairs = repairs if prepared.job.repair else ""
    at_most = (
        ""
        if limit is None or most is None
        else f", at most {estimate.to_send * most:,} (max_tokens = {limit:,}{repairs})"
    )
    if estimate.to_send == _guessed(estimate):
        return (
            f"{outputs.expected:,.0f} tokens, {outputs.low:,.0f} to {outputs.high:,.0f}{at_most}: rough, as these were"
            " cut off before, and nothing says how much longer they get"
        )
    if outputs.basis == "limit":
        found = "--pilot finds out" if not estimate.outlook.answered else _no_answers(estimate)
        return f"{outputs.expected:,.0f} tokens{at_most}: rough, taking half of max_tokens for each; {found}"
    whose = "the pilot's" if outputs.basis == "pilot" else "this job's"
    rough = "; rough: fewer than 50" if outputs.rough else ""
    if estimate.outlook.guessed or _guessed(estimate):
        rough = "; rough: some were cut off at a lower max_tokens"
    return (
        f"{outputs.expected:,.0f} tokens, {outputs.low:,.0f} to {outputs.high:,.0f}{at_most};"
        f" from {whose} {plural(outputs.observed, 'answer')}{rough}"
    )


def _guessed(estimate: "Estimate") -> int:
    """Count requests that were cut off at a lower limit, and of which nothing says how much longer they get."""
    return sum(group.sizes.total() for group in estimate.forecast.groups if group.is_guess)


def _no_answers(estimate: "Estimate") -> str:
    """Say why there is nothing to forecast from, and what helps."""
    outlook = estimate.outlook
    if outlook.basis == "pilot":
        return "no request of the pilot brought an answer with its usage"
    return "no answer so far came with its usage" if outlook.answered else "nothing was answered yet; --pilot finds out"


def _cost(prepared: "Prepared", estimate: "Estimate") -> str:
    price = prepared.price
    if prepared.meter.is_free:
        return "free"
    if estimate.to_send == 0:
        return "nothing to pay"
    if estimate.forecast.bill is not None:
        return _interval(prepared, estimate, estimate.forecast.bill)
    if prepared.meter.charged:
        return "unknown: the provider charges for what is free by the price"
    return (
        "unknown: no price"
        if price is None
        else f"at least {_figure(estimate.forecast.low_usd, ROUND_FLOOR)}, the input alone"
    )


def _interval(prepared: "Prepared", estimate: "Estimate", bill: "Bill") -> str:
    low, high = about(bill.low, ROUND_FLOOR), about(bill.high, ROUND_CEILING)
    outputs, factor = estimate.forecast.outputs, estimate.outlook.billed_factor
    if outputs is not None and estimate.to_send == _guessed(estimate):
        return f"{about(bill.expected)}, from {low} (as long as before) to {high} (all that is allowed): rough"
    if outputs is not None and outputs.basis == "limit":
        none = "as little as there can be" if outputs.low else "no output"
        return f"{about(bill.expected)}, from {low} ({none}) to {high} (all of it): rough"
    text = f"{about(bill.expected)}, 9 times of 10 from {low} to {high}"
    if outputs is not None and outputs.rough:
        text += ": rough"
    if prepared.meter.charged:
        text += ", going by what the provider said it charged: by the price it is free"
    elif prepared.price is None:
        text += ", going by what the provider said it charged: no price is known"
    elif abs(factor - 1) >= Decimal(NOTABLE_SHARE):
        text += f"; earlier answers were charged {factor:.3f} times what this price says"
    return text


def _ceiling(prepared: "Prepared", estimate: "Estimate") -> str:
    if estimate.to_send == 0 or prepared.price is None or prepared.meter.is_free:
        return ""
    ceiling = estimate.forecast.ceiling_usd
    if prepared.meter.charged:
        return "no upper bound: the provider charges for what is free by the price"
    if ceiling is None:
        return "no upper bound: set [model] max_tokens"
    apart = "retries after errors apart"
    if prepared.job.repair:
        apart = f"with {plural(prepared.job.repair, 'repair')}, {apart}"
    return f"{about(ceiling, ROUND_CEILING)} if every request is as dear as it can be ({apart})"


def _cut_off(prepared: "Prepared", estimate: "Estimate") -> str:
    forecast, limit = estimate.forecast, prepared.job.model.max_tokens
    share = None if forecast.outputs is None else forecast.outputs.truncated_share
    share = share if estimate.to_send else None
    if limit is None or not (share or estimate.cut_off):
        return ""
    if share:
        said = f"{_percent(share)} of those answers hit max_tokens"
    else:
        said = f"{plural(estimate.cut_off, 'request')} that ended hit max_tokens"
    again = estimate.cut_off_below
    if _doubled(estimate) is None or not (estimate.to_send or again) or prepared.meter.is_free:
        return said
    costs = []
    if estimate.to_send:
        costs.append(f"this costs up to about {_figure(forecast.longer_usd, ROUND_CEILING)} more")
    if again:
        whom = "them" if again == estimate.cut_off and not estimate.to_send else f"the {again:,} cut off before"
        costs.append(f"asking {whom} again up to about {_figure(forecast.again_usd, ROUND_CEILING)}")
    return f"{said}; with max_tokens = {2 * limit:,} {', and '.join(costs)}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"  # noqa: PLR2004 -- two digits say enough


def _price(prepared: "Prepared") -> str:
    price = prepared.price
    if price is None:
        return "unknown"
    if price.is_free:
        return f"free ({price.source})" + ("; but the provider charges" if prepared.meter.charged else "")
    since = f"; in force since {price.effective_from}" if price.effective_from else ""
    checked = f"; checked {price.checked}" if price.checked else ""
    later = "".join(
        f"; from {one.effective_from} on {_rates(one)}" for one in prepared.meter.prices[1:] if one.effective_from
    )
    return f"{_rates(price)} (source: {price.source}{since}{checked}){later}"


def _number(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _rates(price: "Price") -> str:
    """Say everything that is charged: what is not said is not charged apart."""
    text = f"{_rates_in_words(price.tariff.rates)} per 1M tokens"
    for tier in price.tariff.above:
        text += f", above {tier.input_tokens_over:,} input tokens {_rates_in_words(tier.rates)}"
    if price.per_request:
        text += f", {money(price.per_request)} a request"
    if price.minimum_charge:
        text += f", at least {money(price.minimum_charge)} a request"
    for window in price.windows:
        change = window.variant
        other = f"{_number(change.multiplier)} times that"
        if change.tariff is not None:
            other = _rates_in_words(change.tariff.rates)
        text += f", {other} at {window.in_words()}"
    if price.markup:
        text += f", and {_number(price.markup * 100)} % on everything"
    return text


def _rates_in_words(rates: "Rates") -> str:
    said = [f"{money(rates.input)} in"]
    said += [
        f"{money(rate)} {name}"
        for name, rate in (("cached", rates.cached_input), ("cache writes", rates.cache_write))
        if rate != rates.input
    ]
    said.append(f"{money(rates.output)} out")
    if rates.reasoning != rates.output:
        said.append(f"{money(rates.reasoning)} reasoning")
    return ", ".join(said)


def _time(prepared: "Prepared", estimate: "Estimate") -> str:
    finish = estimate.forecast.finish
    if not estimate.to_send:
        return ""
    if finish is None:
        outlook = estimate.outlook
        heard = outlook.answered or outlook.basis == "pilot"
        why = "no answer says how long one takes" if heard else "nothing was answered yet"
        return f"depends on the provider (no rate limits are stated in [limits], and {why})"
    value = getattr(prepared.job.limits, finish.limit)
    text = f"at least {duration(finish.seconds)}: {finish.limit} = {value:,.10g} binds"
    if round(finish.doubled_seconds) < round(finish.seconds):
        text += f"; with {2 * value:,.10g}: {duration(finish.doubled_seconds)}"
    return text


def _budget(prepared: "Prepared", estimate: "Estimate") -> str:
    budget, forecast, spent = prepared.job.budget_usd, estimate.forecast, estimate.spent_usd
    if budget is None:
        return ""
    text = f"{money(budget)} for this plan, all its runs together"
    if spent is None:
        return f"{text}; what is spent of it nobody knows"
    if spent:
        text += f"; {money(spent)} of it is spent"
    left = budget - spent
    least = prepared.meter.worst_case(min(forecast.worst)) if estimate.to_send and forecast.worst else None
    for usd, said in (
        (forecast.low_usd, "not enough even for the low figure"),
        (None if forecast.bill is None else forecast.bill.expected, "not enough for what is expected"),
        (least, f"not enough for one request, which may cost up to {money(least or ZERO)}"),
        (forecast.ceiling_usd, "enough for what is expected, not for the worst case"),
    ):
        if usd is not None and usd > left:
            return f"{text}: {said}"
    return text
