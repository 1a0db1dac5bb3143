"""Measure promptmill, and the peers beside it.

    python benchmarks/bench.py quick|cpu|memory|latency|saturation|start|ledger|all|large|report

`all` is everything but `large` (a million rows); each prints its tables and keeps its numbers in `benchmarks/.results`.
`report` writes them into docs/performance.md, as `all` and `large` do at their end. The machine should have nothing
else to do: processor time changes little when it has, everything else a lot.
"""

import argparse
from collections.abc import Callable

import cpu
import latency
import ledger_size
import memory
import report
import saturation
import start
from results import Result, say

PARTS: dict[str, Callable[[], Result]] = {
    "quick": cpu.quick,
    "cpu": cpu.measured,
    "memory": memory.measured,
    "latency": latency.measured,
    "saturation": saturation.measured,
    "start": start.measured,
    "ledger": ledger_size.measured,
    "large": memory.large,
}
ALL = ("start", "cpu", "memory", "latency", "saturation", "ledger")


def main() -> None:
    """Measure one part or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all", "report"])
    part: str = parser.parse_args().part
    for name in ALL if part == "all" else [part] if part in PARTS else []:
        say(f"\n{name}")
        PARTS[name]().save()
    if part in {"all", "large", "report"}:
        report.write()


if __name__ == "__main__":
    main()
