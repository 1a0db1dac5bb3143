"""Everything that was measured as docs/performance.md: tables between two markers, and the pictures beside them."""

import sys
from dataclasses import replace
from pathlib import Path

import svg
from results import Plot, Result, Table, load, say

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: `python benchmarks/bench.py report` writes everything from here -->", "<!-- to here -->"
ORDER = ("cpu", "memory", "large", "latency", "saturation", "start", "ledger")


def write() -> None:
    """Put what was measured into the document."""
    results = [found for found in map(load, ORDER) if found is not None]
    if not results:
        sys.exit("nothing was measured yet: run `make bench` first")
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{_measured(results)}\n{END}{after}", encoding="utf-8")
    say(f"wrote {DOCUMENT.name}")


def _joined(plots: list[Plot]) -> list[Plot]:
    """Make one picture of those for one file: what was measured with more rows goes on with the same lines."""
    joined: dict[str, Plot] = {}
    for plot in plots:
        lines = dict(joined.get(plot.file, plot).lines)
        for name, points in plot.lines.items():
            lines[name] = sorted(dict([*lines.get(name, []), *points]).items())
        joined[plot.file] = replace(plot, lines=lines)
    return list(joined.values())


def _measured(results: list[Result]) -> str:
    aims = [aim for result in results for aim in result.aims]
    lines = [(aim.what, aim.wanted, aim.found, "yes" if aim.reached else "**no**") for aim in aims]
    parts = [f"{machine}\n" for machine in dict.fromkeys(map(_machine, results))]
    parts.append(Table("What was aimed at", ("", "aim", "measured", "reached"), lines).markdown())
    for plot in _joined([plot for result in results for plot in result.plots]):
        picture = f"performance-{plot.file}.svg"
        (DOCUMENT.parent / picture).write_text(svg.draw(plot), encoding="utf-8")
        parts.append(f"![{plot.title}, {plot.unit}]({picture})\n")
    for result in results:
        parts += [table.markdown() for table in result.tables]
        parts.append(_when(result))
    return "\n".join(parts)


def _when(result: Result) -> str:
    when, commit, load = (result.facts[fact] for fact in ("measured", "commit", "load"))
    return f"*`{result.command}`, {when}, commit {commit}; load average before it {load}*\n"


def _machine(result: Result) -> str:
    facts = result.facts
    return (
        f"On {facts['machine']}, with Python {facts['python']}, {facts['libraries']}; the vendor is {facts['server']}."
    )
