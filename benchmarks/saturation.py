"""Point 5: a stated limit against a vendor that enforces it: the share of it that is used, and the 429s."""

from pathlib import Path

import data
import ours
from results import Result, Table, say
from vendor import ANSWER_TOKENS, REQUEST_OVERHEAD, Behaviour, serving

SECONDS, SPARE_SECONDS = 30, 2
LATENCY = 0.1
CONCURRENCY = 1024
REQUESTS_PER_MINUTE = (600, 6_000, 60_000, 300_000)
TOKENS_PER_MINUTE = (1_000_000, 20_000_000)
ROWS, MIXED_ROWS = 200_000, 40_000


def measured() -> Result:
    """Measure every rate."""
    lines = [_requests(rate) for rate in REQUESTS_PER_MINUTE] + [_tokens(rate) for rate in TOKENS_PER_MINUTE]
    note = (
        "The vendor enforces the same limit with a bucket of a tenth of a second, and of two requests at least, that"
        f" starts full, and answers after {LATENCY * 1000:.0f} ms. What counts is the {SECONDS} seconds from the first"
        f" request on. Mixed: one row in {data.LARGE_EVERY} is {data.LARGE_TIMES} times as large, and the vendor's"
        " bucket holds the largest row more."
    )
    columns = ("stated limit", "allowed", "sent", "share", "429s", "CPU")
    command = "python benchmarks/bench.py saturation"
    return Result("saturation", command, [Table(f"Stated limits, {SECONDS} seconds", columns, lines, note)])


def _requests(rate: int) -> tuple[str, ...]:
    limit = int(rate / 60 * (SECONDS + SPARE_SECONDS))
    behaviour = Behaviour(median_seconds=LATENCY, per_minute=rate)
    return _line(f"{rate:,} requests/min", behaviour, data.jsonl(ROWS), limit, f"requests_per_minute = {rate}")


def _tokens(rate: int) -> tuple[str, ...]:
    path, rest, limit = data.jsonl(MIXED_ROWS, mixed=True), rate / 60 * (SECONDS + SPARE_SECONDS), 0
    sizes = [tokens + REQUEST_OVERHEAD + ANSWER_TOKENS for tokens in data.tokens(path)]
    while rest > 0:
        rest -= sizes[limit]
        limit += 1
    behaviour = Behaviour(median_seconds=LATENCY, per_minute=rate, counts_tokens=True, largest=max(sizes))
    return _line(f"{rate:,} tokens/min, mixed rows", behaviour, path, limit, f"tokens_per_minute = {rate}")


def _line(name: str, behaviour: Behaviour, rows: Path, limit: int, limits: str) -> tuple[str, ...]:
    with serving(behaviour) as vendor, ours.project() as project:
        project.job(rows, vendor.base_url, concurrency=CONCURRENCY, limits=limits)
        cost = project.command(*ours.RUN, "--limit", str(limit))
        stats = vendor.stats()
    sent, allowed = sum(stats["tenths"][: SECONDS * 10]), behaviour.per_minute / 60 * SECONDS
    share = f"{sent / allowed:.2%}"
    line = (name, f"{allowed:,.0f}", f"{sent:,.0f}", share, f"{stats['refused']:,}", f"{cost.cpu:.1f} s")
    say(f"  {' | '.join(line)}")
    return line
