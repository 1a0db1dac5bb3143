"""A ledger with a few booked attempts, and exports as OpenAI and Anthropic give them, for the tests of `reconcile`."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from bookings import PRICE, Booked

from pipeline.records import Usage

DAY, NEXT = datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC)
SNAPSHOT = "gpt-4o-mini-2024-07-18"


def book(project, *attempts, provider="openai", model="gpt-4o-mini", end=True, returned=None, **run):
    """A run whose attempts are (day, tokens in, of which cached, tokens out, dollars)."""
    returned = returned or (SNAPSHOT if provider == "openai" else "claude-opus-4-5-20251101")
    booked = Booked(project.folder / "promptmill.duckdb", provider=provider, model=model, **run)
    for number, (day, tokens, cached, out, usd) in enumerate(attempts):
        usage = None if tokens is None else Usage(tokens, out, cached_input_tokens=cached)
        cost = None if usd is None else Decimal(usd)
        booked.attempt(f"k{booked.run_id}-{number}", usage=usage, cost=cost, sent_at=day.timestamp(),
                       model_returned=returned)  # fmt: skip
    booked.end() if end else booked.die()


TWO_DAYS = ((DAY, 1000, 400, 200, "0.50"), (DAY, 500, 0, 100, "0.25"), (NEXT, 300, 0, 60, "0.10"))


def usage(model=SNAPSHOT, **changes):
    return {"object": "organization.usage.completions.result", "model": model, "input_tokens": 1500,
            "input_cached_tokens": 400, "output_tokens": 300, "num_model_requests": 2, **changes}  # fmt: skip


def last_day(**changes):
    return usage(**{"input_tokens": 300, "input_cached_tokens": 0, "output_tokens": 60, "num_model_requests": 1,
                    **changes})  # fmt: skip


def costs(usd, line_item=f"{SNAPSHOT}, input", currency="usd"):
    return {"object": "organization.costs.result", "amount": {"value": usd, "currency": currency},
            "line_item": line_item}  # fmt: skip


def page(*days, **more):
    """OpenAI's page: one bucket per day, from DAY on."""
    start = int(DAY.replace(hour=0).timestamp())
    buckets = [
        {"object": "bucket", "start_time": start + n * 86400, "end_time": start + (n + 1) * 86400, "results": results}
        for n, results in enumerate(days)
    ]
    return {"object": "page", "data": buckets, "has_more": False, **more}


def save(project, content, name="export"):
    (project.folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return name


def compared(project, content, *args, code=0):
    """The lines that don't agree, as (day, model, figure, ledger, provider, verdict)."""
    done = project.run("reconcile", save(project, content), "--json", *args, code=code)
    lines = [line for line in json.loads(done.stdout)["lines"] if line["verdict"] != "agrees"]
    return [tuple(line[name] for name in ("day", "model", "figure", "ledger", "provider", "verdict")) for line in lines]


def count(project, content, *args):
    return len(json.loads(project.run("reconcile", save(project, content), "--json", *args).stdout)["lines"])


def lose(project, day=DAY, *, price=PRICE, **facts):
    """An attempt that was cut off: nobody knows what it cost, nor which snapshot of the model would have answered."""
    booked = Booked(project.folder / "promptmill.duckdb", provider="openai", model="gpt-4o-mini", price=price)
    lost = {"usage": None, "cost": None, "output": None, "result": "unavailable", "sent_at": day.timestamp()}
    booked.attempt("lost", **lost | facts)
    booked.end()


def anthropic_page(*results):
    return {"data": [{"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z",
                      "results": list(results)}], "has_more": False, "next_page": None}  # fmt: skip
