"""Points 1 and 2: processor time per row, ours in every variant and the peers', in one run and in turns."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import data
import ours
from measure import MEGABYTE, Measured
from results import Result, Table, say
from vendor import Vendor, serving


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that sends every row of a file."""

    name: str
    rows: int
    send: Callable[[Path, Vendor], Measured]


@dataclass(frozen=True, slots=True)
class Trial:
    """One contestant's one run."""

    cpu_per_1000: float
    rows_per_second: float
    server_share: float
    """Of a core, while the contestant ran."""
    first_request: float
    """Seconds from the command to the first request."""
    peak_megabytes: float


def own(rows: int) -> list[Contestant]:
    """Return promptmill's variants."""

    def contestant(name: str, program: tuple[str, ...], wire: str, *, kept: bool = False) -> Contestant:
        def send(path: Path, vendor: Vendor) -> Measured:
            with ours.project(program) as project:
                project.job(path, vendor.base_url, wire=wire)
                if kept:
                    project.command("estimate", "job.toml", "--quiet")
                return project.command(*ours.RUN)

        return Contestant(f"promptmill, {name}", rows, send)

    return [
        contestant("counts kept", ours.WITH_TOKTOK, "native", kept=True),
        contestant("toktok counts", ours.WITH_TOKTOK, "native"),
        contestant("tiktoken counts", ours.WITHOUT_TOKTOK, "native"),
        contestant("counts kept, wire httpx", ours.WITH_TOKTOK, "httpx", kept=True),
    ]


def trial(contestant: Contestant, vendor: Vendor) -> Trial:
    """Let a contestant send its rows, and check that the vendor saw each of them."""
    path = data.jsonl(contestant.rows)
    vendor.reset()
    served = vendor.cpu_seconds()
    cost = contestant.send(path, vendor)
    stats, served = vendor.stats(), vendor.cpu_seconds() - served
    if stats["requests"] != contestant.rows:
        raise RuntimeError(f"{contestant.name} sent {stats['requests']} requests for {contestant.rows} rows")
    return Trial(
        cost.cpu / contestant.rows * 1000,
        contestant.rows / (stats["last"] - stats["first"]),
        served / cost.wall,
        stats["first"] - cost.started,
        cost.peak_anonymous / MEGABYTE,
    )


def compete(contestants: list[Contestant], repeats: int) -> dict[str, list[Trial]]:
    """Let the contestants run in turns, so that a change of the machine's mood meets all of them."""
    trials: dict[str, list[Trial]] = {each.name: [] for each in contestants}
    with serving() as vendor:
        for turn in range(repeats):
            for each in contestants:
                found = trial(each, vendor)
                trials[each.name].append(found)
                say(f"  turn {turn + 1}: {each.name}: {found.cpu_per_1000:.3f} CPU s per 1,000 rows")
    return trials


def middle(trials: list[Trial], fact: str) -> float:
    """Return the median of one of the numbers."""
    return statistics.median(getattr(each, fact) for each in trials)


def table(trials: dict[str, list[Trial]], rows: dict[str, int]) -> Table:
    """Put the medians into a table; ratios are to the first contestant."""
    lines = []
    base = middle(next(iter(trials.values())), "cpu_per_1000")
    for name, found in trials.items():
        cpu = middle(found, "cpu_per_1000")
        lines.append(
            (
                name,
                f"{rows[name]:,}",
                f"{cpu:.3f}",
                f"{cpu / base:.1f} x",
                f"{middle(found, 'rows_per_second'):,.0f}",
                f"{middle(found, 'server_share'):.0%}",
                f"{middle(found, 'first_request'):.1f} s",
                f"{middle(found, 'peak_megabytes'):,.0f} MB",
            )
        )
    columns = ("", "rows", "CPU s / 1,000 rows", "ratio", "rows/s", "server, of a core", "first request", "peak memory")
    return Table("Processor time per row", columns, lines)


def quick() -> Result:
    """Measure ours alone, in less than a minute."""
    contestants = own(20_000)
    trials = compete(contestants, 1)
    found = table(trials, {each.name: each.rows for each in contestants})
    return Result("quick", "make bench-quick", [found])
