"""Point 4: answers that take 200 ms: how much of the ideal throughput is reached, and how late the event loop is."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import data
import ours
from results import Aim, Result, Table
from vendor import Behaviour, serving

ROWS = 100_000
MEDIAN, SIGMA = 0.2, 0.4
CONCURRENCIES = (256, 1024)
MIDDLE = slice(30, -30)
"""Tenths of a second: the ramp and the last answers are not the throughput."""
PERCENTILES = (50, 99, 99.9, 100)
LAG = (sys.executable, str(Path(__file__).parent / "lag.py"))


@dataclass(frozen=True, slots=True)
class Found:
    """What one concurrency brought."""

    concurrency: int
    ideal: float
    """Requests a second."""
    reached: float
    lags: list[float]
    """Milliseconds: p50, p99, p99.9, worst."""
    cpu_per_1000: float

    @property
    def share(self) -> float:
        """How much of the ideal was reached."""
        return self.reached / self.ideal

    def line(self) -> tuple[str, ...]:
        """Write it for the table."""
        rates = (f"{self.ideal:,.0f}/s", f"{self.reached:,.0f}/s", f"{self.share:.1%}")
        return (f"{self.concurrency:,}", *rates, *(f"{lag:.1f} ms" for lag in self.lags), f"{self.cpu_per_1000:.3f}")


def measured() -> Result:
    """Measure at some concurrencies."""
    found = [_measured(concurrency) for concurrency in CONCURRENCIES]
    lines = [each.line() for each in found]
    most = found[-1]
    aims = [
        Aim.at_least(
            f"Share of the ideal throughput, {most.concurrency:,} requests at a time", 95, most.share * 100, "%"
        ),
        Aim.at_most("Event loop's p99 lag meanwhile", 20, most.lags[1], "ms"),
    ]
    note = (
        f"{ROWS:,} rows; a lognormal latency with a median of {MEDIAN * 1000:.0f} ms (sigma {SIGMA}); the ideal is the"
        " concurrency divided by the mean latency that the vendor served. The rate leaves out the first and last three"
        " seconds. Lag: how late a task wakes that wants to every 5 ms, from the first request on, while the ledger"
        " loads and checkpoints."
    )
    columns = ("concurrency", "ideal", "reached", "share", "lag p50", "p99", "p99.9", "worst", "CPU s / 1,000 rows")
    command = "python benchmarks/bench.py latency"
    return Result("latency", command, [Table("Answers that take 200 ms", columns, lines, note)], aims)


def _measured(concurrency: int) -> Found:
    with serving(Behaviour(median_seconds=MEDIAN, sigma=SIGMA)) as vendor, ours.project(LAG) as project:
        project.job(data.jsonl(ROWS), vendor.base_url, concurrency=concurrency)
        cost = project.command(*ours.RUN)
        stats = vendor.stats()
    middle = stats["tenths"][MIDDLE]
    ideal = concurrency / (stats["slept"] / stats["requests"])
    ticks = json.loads(cost.stderr.rpartition("lag ")[2])
    late = sorted(
        seconds for due, seconds in ticks if due >= stats["first"]
    )  # before it there is nothing to be late for
    lags = [1000 * late[min(len(late) - 1, int(len(late) * percentile / 100))] for percentile in PERCENTILES]
    return Found(concurrency, ideal, 10 * sum(middle) / len(middle), lags, cost.cpu / ROWS * 1000)
