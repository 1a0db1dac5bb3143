"""What a job will cost, here and elsewhere, going by all that its ledger knows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from pipeline import comparing
from pipeline.api._jobs import Name, at_least_1, path_of, several
from pipeline.budget import dollars
from pipeline.comparing import Compared, Contradiction, Load, Work
from pipeline.counting import Counting
from pipeline.errors import PriceError
from pipeline.estimating import Estimate, Outlook, Sample, Scan, Tick, TooLong
from pipeline.forecasting import Outputs
from pipeline.job import Job
from pipeline.ledger import ANY_LIMIT, Elsewhere, History, HistoryRequest, Ledger
from pipeline.planning import Selection, cut_again
from pipeline.pricebook import Prices, Target
from pipeline.reports.settings import changed
from pipeline.runners.launch import (
    Prepared,
    fingerprint,
    kept_counts,
    prepare,
    prompt_id,
    retry_of,
)
from pipeline.windows import ContextWindow, context_window


def estimate(
    job: Job,
    ledger: Ledger,
    *,
    limit: int | None = None,
    selection: Selection = Selection(),  # noqa: B008 -- a frozen value
    tick: Tick | None = None,
) -> tuple[Prepared, Estimate]:
    """Say what a run would send now, and what that would cost. Sends nothing. Raises UserError."""
    at_least_1(limit, "limit")
    prepared = prepare(job, limit=limit)
    return prepared, estimated_cost(prepared, ledger, selection, tick)


def estimated_cost(prepared: Prepared, ledger: Ledger, selection: Selection, tick: Tick | None) -> Estimate:
    scan, counter = scanned(prepared, ledger, selection, tick)
    return scan.answer(prepared.plan, *look_back(prepared, ledger, selection), counter)


def scanned(
    prepared: Prepared, ledger: Ledger, selection: Selection, tick: Tick | None, sample: Sample | None = None
) -> tuple[Scan, str | None]:
    """Scan the plan and count; return the sums, and the name of the library that counted, if anything was counted."""
    job, meter = prepared.job, prepared.meter
    known = ledger.known(job.name, job.reuse, fresh=selection.fresh, retry=retry_of(prepared, selection))
    counting = Counting(
        meter, kept_counts(ledger, job), writes=selection.retry is None, notify=prepared.warnings.append
    )
    scan = Scan(known, selection, job.limits, meter, TooLong(job.model, window_of(job)), sample)
    scan.run(prepared.plan, counting, tick)
    return scan, meter.counter.library if counting.made else None


def window_of(job: Job) -> ContextWindow | None:
    """Return the model's context, as the job says it; else nobody knows what stands behind another address."""
    if job.context_window is not None:
        return ContextWindow(job.context_window, f"[model] context_window of {job.file}")
    return None if job.model.base_url else context_window(job.provider.name, job.model.name)


def compare(
    prepared: Prepared, estimated: Estimate, targets: Sequence[Target | str], *, price_file: Name | None = None
) -> list[Compared]:
    """Return what the requests would cost as MODEL[@PROVIDER][:LANE], at the prices in force while they are sent.

    Tokens are taken as they are: other models count and answer differently.
    """
    asked = [Target.of(target) for target in several(targets, "targets")]
    return comparing.compare(Prices(path_of(price_file)), asked, _work(prepared, estimated), at=datetime.now(UTC))


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


def look_back(
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
