"""Point 5: a stated limit against a vendor that enforces it: the share of it that is used, and the 429s."""

from dataclasses import dataclass
from pathlib import Path

import data
import ours
from results import Aim, Result, Table, say
from vendor import ANSWER_TOKENS, REQUEST_OVERHEAD, Behaviour, serving

SECONDS, SPARE_SECONDS = 30, 2
LATENCY = 0.1
LEAST_SHARE = 0.995
CONCURRENCY = 1024
REQUESTS_PER_MINUTE = (600, 6_000, 60_000, 300_000)
TOKENS_PER_MINUTE = (1_000_000, 20_000_000)
ROWS, MIXED_ROWS = 200_000, 40_000


@dataclass(frozen=True, slots=True)
class Found:
    """What one limit brought: requests, or tokens."""

    name: str
    allowed: float
    sent: float
    refused: int
    cpu: float

    @property
    def share(self) -> float:
        """How much of what is allowed was sent."""
        return self.sent / self.allowed

    def line(self) -> tuple[str, ...]:
        """Write it for the table."""
        amounts = (f"{self.allowed:,.0f}", f"{self.sent:,.0f}", f"{self.share:.2%}")
        return (self.name, *amounts, f"{self.refused:,}", f"{self.cpu:.1f} s")

    def aim(self) -> Aim:
        """Judge it."""
        wanted = f"at least {LEAST_SHARE:.1%}, no 429"
        found = f"{self.share:.2%}, {self.refused or 'no'} 429{'s' if self.refused > 1 else ''}"
        return Aim(f"Share of {self.name}", wanted, found, self.share >= LEAST_SHARE and not self.refused)


def measured() -> Result:
    """Measure every rate."""
    found = [_requests(rate) for rate in REQUESTS_PER_MINUTE] + [_tokens(rate) for rate in TOKENS_PER_MINUTE]
    note = (
        "The vendor enforces the same limit with a bucket of a tenth of a second, and of two requests at least, that"
        f" starts full, and answers after {LATENCY * 1000:.0f} ms. What counts is the {SECONDS} seconds from the first"
        f" request on. Mixed: one row in {data.LARGE_EVERY} is {data.LARGE_TIMES} times as large, and the vendor's"
        " bucket holds the largest row more."
    )
    columns = ("stated limit", "allowed", "sent", "share", "429s", "CPU")
    command = "python benchmarks/bench.py saturation"
    lines = [each.line() for each in found]
    aims = [each.aim() for each in found]
    return Result("saturation", command, [Table(f"Stated limits, {SECONDS} seconds", columns, lines, note)], aims)


def _requests(rate: int) -> Found:
    limit = int(rate / 60 * (SECONDS + SPARE_SECONDS))
    behaviour = Behaviour(median_seconds=LATENCY, per_minute=rate)
    return _measured(f"{rate:,} requests/min", behaviour, data.jsonl(ROWS), limit, f"requests_per_minute = {rate}")


def _tokens(rate: int) -> Found:
    path, rest, limit = data.jsonl(MIXED_ROWS, mixed=True), rate / 60 * (SECONDS + SPARE_SECONDS), 0
    sizes = [tokens + REQUEST_OVERHEAD + ANSWER_TOKENS for tokens in data.tokens(path)]
    while rest > 0:
        rest -= sizes[limit]
        limit += 1
    behaviour = Behaviour(median_seconds=LATENCY, per_minute=rate, counts_tokens=True, largest=max(sizes))
    return _measured(f"{rate:,} tokens/min, mixed rows", behaviour, path, limit, f"tokens_per_minute = {rate}")


def _measured(name: str, behaviour: Behaviour, rows: Path, limit: int, limits: str) -> Found:
    with serving(behaviour) as vendor, ours.project() as project:
        project.job(rows, vendor.base_url, concurrency=CONCURRENCY, limits=limits)
        cost = project.command(*ours.RUN, "--limit", str(limit))
        stats = vendor.stats()
    sent, allowed = sum(stats["tenths"][: SECONDS * 10]), behaviour.per_minute / 60 * SECONDS
    found = Found(name, allowed, sent, stats["refused"], cost.cpu)
    say(f"  {' | '.join(found.line())}")
    return found
