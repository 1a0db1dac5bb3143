"""`promptmill prices`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._options import json_option, price_file
from pipeline.cli._show import as_json_text, cell, say, width

if TYPE_CHECKING:
    from pipeline.pricebook import Quote

WHAT = "dollars per 1M tokens"
HEADINGS = {
    "input": "input", "cached_input": "cached", "cache_write": "cache_write", "cache_write_1h": "write_1h",
    "output": "output", "reasoning": "reasoning",
}  # fmt: skip
AS_OTHERS = {"cache_write": "input", "cache_write_1h": "cache_write", "reasoning": "output"}
"""What a kind of token costs unless a price says otherwise; a column that says nothing else is left out."""


@click.command("prices", short_help="What would be charged for a model, and who says so.")
@click.argument("model", required=False)
@click.option("--provider", help="Only what this provider charges.")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%d"]),
    callback=lambda _, __, day: None if day is None else day.replace(tzinfo=UTC),
    metavar="DATE",
    help="Prices in force on this UTC day, such as 2026-11-03.",
)
@json_option
def command(model: str | None, provider: str | None, at: datetime | None, as_json: bool) -> int:
    """Show what MODEL[@PROVIDER] costs at everybody who sells it, in dollars per 1M tokens; alone the price files.

    The first list that has a price counts: your file, promptmill's, then the genai-prices package. A job's [price] and
    --price go before all of them.
    """
    from pipeline import api

    moment = at or datetime.now(UTC)
    quotes = api.prices(model, provider=provider, at=moment, price_file=price_file())
    facts = [_facts(quote, moment) for quote in quotes]
    if as_json:
        click.echo(as_json_text(facts))
        return 0
    for line in _listing(facts, width()):
        say(line)
    for quote, fact in zip(quotes, facts, strict=True):
        claims = (f'if "{claim.says}" is true: {claim.in_words()}' for claim in quote.price.contradictions)
        for said in filter(None, (fact["note"], *claims, fact["stale"])):
            say(f"{fact['provider']} {fact['model']}: {said}", err=True)
    return 0


def _facts(quote: "Quote", at: datetime) -> dict[str, Any]:
    """Return a price as plain values: what `--json` prints (docs/cli.md lists the keys)."""
    from pipeline.pricebook import stale

    price = quote.price
    return {
        "provider": price.provider,
        "model": price.model,
        "list": quote.where,
        "counts": quote.counts,
        "price_id": price.price_id,
        "effective_from": price.effective_from,
        "source": price.source,
        "checked": price.checked,
        "stale": stale(price, at.date()),
        "note": price.note,
        "contradictions": [asdict(claim) for claim in price.contradictions],
        "per_request": price.per_request,
        "minimum_charge": price.minimum_charge,
        "markup": price.markup,
        "charges": [
            {
                "lane": charge.lane,
                "input_tokens_over": charge.input_tokens_over,
                "hours": None if charge.window is None else charge.window.in_words(),
                **charge.dollars,
            }
            for charge in price.charges()
        ],
    }


def _listing(facts: Sequence[Mapping[str, Any]], room: int) -> Iterator[str]:
    """Yield the lines for people: who charges, what is known of the price, and a line of dollars for each condition.

    Everything that tells one line of dollars from another stands in its first column; nothing is left out for want of
    room.
    """
    charges = [charge for fact in facts for charge in fact["charges"]]
    shown = [name for name in HEADINGS if any(charge[name] != charge.get(AS_OTHERS.get(name)) for charge in charges)]
    widths = [max(len(HEADINGS[name]), *(len(cell(charge[name])) for charge in charges)) for name in shown]
    longest = max(len(_condition(charge)) + 2 for charge in charges)
    names = max(len(WHAT), min(longest, room - sum(widths) - 2 * len(widths)))

    def aligned(first: str, texts: Iterable[str]) -> str:
        columns = (text.rjust(width) for text, width in zip(texts, widths, strict=True))
        return "  ".join([first.ljust(names), *columns])

    yield aligned(WHAT, (HEADINGS[name] for name in shown))
    first = ""
    for fact in facts:
        yield f"{fact['provider']} {fact['model']}"
        first = fact["list"] if fact["counts"] else first
        for text in _about(fact, first):
            # A path is not broken: it may be longer than the line, and be copied.
            yield from wrap(
                text,
                room,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
                break_long_words=False,
            )
        for charge in fact["charges"]:
            condition = f"  {_condition(charge)}"
            if len(condition) > names:  # its dollars get a line of their own
                yield condition
                condition = ""
            yield aligned(condition, (cell(charge[name]) for name in shown))


def _about(fact: Mapping[str, Any], first: str) -> Iterator[str]:
    """Yield whether a price counts, since when it holds and who says so; `first` is the list that counts."""
    counts = "yes" if fact["counts"] else f"no, after {first}"
    since, checked = fact["effective_from"] or "not said", fact["checked"] or "not said"
    yield f"counts: {counts}; list: {fact['list']}; since: {since}; checked: {checked}"
    if fact["source"] != fact["list"]:
        yield f"source: {fact['source']}"
    sums = {"per_request": "per request", "minimum_charge": "at least", "markup": "markup"}
    fees = [f"{words}: {cell(fact[name])}" for name, words in sums.items() if fact[name]]
    if fees:
        yield "; ".join(fees)


def _condition(charge: Mapping[str, Any]) -> str:
    """Name the lane, the context tier and the hours."""
    over = charge["input_tokens_over"]
    tier = None if over is None else f">{over:,}"
    return " ".join(part for part in (charge["lane"], tier, charge["hours"]) if part)
