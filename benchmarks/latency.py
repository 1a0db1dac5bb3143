"""Point 4: answers that take 200 ms: how much of the ideal throughput is reached, and how late the event loop is."""

import sys
from pathlib import Path

import data
import ours
from results import Result, Table
from vendor import Behaviour, serving

ROWS = 100_000
MEDIAN, SIGMA = 0.2, 0.4
CONCURRENCIES = (256, 1024)
MIDDLE = slice(30, -30)
"""Tenths of a second: the ramp and the last answers are not the throughput."""
LAG = (sys.executable, str(Path(__file__).parent / "lag.py"))


def measured() -> Result:
    """Measure at some concurrencies."""
    lines = [_line(concurrency) for concurrency in CONCURRENCIES]
    note = (
        f"{ROWS:,} rows; a lognormal latency with a median of {MEDIAN * 1000:.0f} ms (sigma {SIGMA}); the ideal is the"
        " concurrency divided by the mean latency that the vendor served. The rate leaves out the first and last three"
        " seconds. Lag: how late a task wakes that wants to every 5 ms, while the ledger loads and checkpoints."
    )
    columns = ("concurrency", "ideal", "reached", "share", "lag p50", "p99", "p99.9", "worst", "CPU s / 1,000 rows")
    command = "python benchmarks/bench.py latency"
    return Result("latency", command, [Table("Answers that take 200 ms", columns, lines, note)])


def _line(concurrency: int) -> tuple[str, ...]:
    with serving(Behaviour(median_seconds=MEDIAN, sigma=SIGMA)) as vendor, ours.project(LAG) as project:
        project.job(data.jsonl(ROWS), vendor.base_url, concurrency=concurrency)
        cost = project.command(*ours.RUN)
        stats = vendor.stats()
    middle = stats["tenths"][MIDDLE]
    reached, ideal = 10 * sum(middle) / len(middle), concurrency / (stats["slept"] / stats["requests"])
    lag = [f"{each} ms" for each in cost.stderr.rpartition("lag ")[2].split()]
    share = f"{reached / ideal:.1%}"
    return (str(concurrency), f"{ideal:,.0f}/s", f"{reached:,.0f}/s", share, *lag, f"{cost.cpu / ROWS * 1000:.3f}")
