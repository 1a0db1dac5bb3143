"""`promptmill prices`."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._options import at_option, json_option, price_file
from pipeline.cli._show import as_json_text, print_chosen, say

if TYPE_CHECKING:
    from pipeline.pricebook import Quote

HEADINGS = {
    "provider": "provider", "model": "model", "counts": "counts", "lane": "lane", "over": "over", "hours": "hours",
    "input": "input", "cached_input": "cached", "cache_write": "cache_write", "cache_write_1h": "write_1h",
    "output": "output", "reasoning": "reasoning", "per_request": "per_request", "minimum_charge": "minimum",
    "markup": "markup", "effective_from": "since", "checked": "checked", "list": "list",
}  # fmt: skip
ALWAYS = ("provider", "model", "counts", "lane", "input", "cached_input", "output", "list")


@click.command("prices", short_help="What would be charged for a model, and who says so.")
@click.argument("model", required=False)
@click.option("--provider", help="Only what this provider charges.")
@at_option
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
    lines = [_line(fact, charge) for fact in facts for charge in fact["charges"]]
    print_chosen(lines, HEADINGS, always=ALWAYS, kept=("over", "hours", "cache_write", "effective_from", "checked"))
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


def _line(fact: dict[str, Any], charge: dict[str, Any]) -> dict[str, Any]:
    since, checked = fact["effective_from"], fact["checked"]
    return {
        **fact,
        **charge,
        "counts": "yes" if fact["counts"] else "no",
        "over": charge["input_tokens_over"],
        "effective_from": None if since is None else str(since),
        "checked": None if checked is None else str(checked),
    }
