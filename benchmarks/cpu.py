"""Points 1 and 2: processor time per row, ours in every variant and the peers', in one run and in turns."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import data
import ours
import peers
from measure import MEGABYTE, Measured
from results import Aim, Plot, Result, Table, say
from vendor import Vendor, serving

QUICK_ROWS, QUICK_SLOW_ROWS, SLOW_ROWS, OWN_ROWS = 20_000, 2_000, 5_000, 100_000
REPEATS = 3
EVERYTHING_ON = ("tiktoken counts", "toktok counts")
"""Which of our variants meet the peers: exact counts, by the library that everybody has and by the extra `fast`."""
PEERS_NOTE = (
    "Each runs in an environment of its own, on the same rows and the same server, in turns; medians. The time to start"
    " is in it; what takes longer than a processor second for 1,000 rows gets fewer of them. Ours renders, counts"
    " tokens, limits, journals and stores in DuckDB; the peers read the rows, do what they do by themselves, and write"
    " the answers to a file."
)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that sends every row of a file."""

    name: str
    rows: int
    send: Callable[[Path, Vendor], Measured]
    of_peer: bool = False


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


def own() -> list[Contestant]:
    """Return promptmill's variants."""

    def contestant(
        name: str, program: tuple[str, ...] = ours.WITH_TOKTOK, *, wire: str = "auto", kept: bool = False
    ) -> Contestant:
        def send(path: Path, vendor: Vendor) -> Measured:
            url = vendor.secure_base_url if "https" in name else vendor.base_url
            with ours.project(program) as project:
                project.job(path, url, wire=wire)
                if kept:
                    project.command("estimate", "job.toml", "--quiet")
                return project.command(*ours.RUN, environ={"SSL_CERT_FILE": str(vendor.authority)})

        return Contestant(f"promptmill, {name}", OWN_ROWS, send)

    return [
        contestant("counts kept", kept=True),
        contestant("toktok counts"),
        contestant("tiktoken counts", ours.WITHOUT_TOKTOK),
        contestant("counts kept, https", kept=True),
        contestant("counts kept, https, wire native", wire="native", kept=True),
        contestant("counts kept, wire httpx", wire="httpx", kept=True),
    ]


def trial(contestant: Contestant, vendor: Vendor) -> Trial:
    """Let a contestant send its rows, and check that the vendor saw each of them."""
    path = data.jsonl(contestant.rows)
    vendor.reset()
    served = vendor.cpu_seconds()
    cost = contestant.send(path, vendor)
    stats, served = vendor.stats(), vendor.cpu_seconds() - served
    if (
        not contestant.rows <= stats["requests"] <= contestant.rows + contestant.of_peer
    ):  # curator asks for limits first
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
    return float(statistics.median(getattr(each, fact) for each in trials))


def table(title: str, contestants: list[Contestant], trials: dict[str, list[Trial]]) -> Table:
    """Put the medians into a table; ratios are to the first contestant."""
    lines = []
    base = middle(next(iter(trials.values())), "cpu_per_1000")
    for each in contestants:
        found = trials[each.name]
        cpu = middle(found, "cpu_per_1000")
        lines.append(
            (
                each.name,
                f"{each.rows:,}",
                f"{cpu:.3f}",
                f"{cpu / base:.1f} x",
                f"{middle(found, 'rows_per_second'):,.0f}",
                f"{middle(found, 'server_share'):.0%}",
                f"{middle(found, 'first_request'):.1f} s",
                f"{middle(found, 'peak_megabytes'):,.0f} MB",
            )
        )
    columns = ("", "rows", "CPU s / 1,000 rows", "ratio", "rows/s", "server, of a core", "first request", "peak memory")
    return Table(title, columns, lines)


def quick() -> Result:
    """Measure ours alone, in less than a minute."""
    contestants = [replace(each, rows=QUICK_SLOW_ROWS if "httpx" in each.name else QUICK_ROWS) for each in own()]
    trials = compete(contestants, 1)
    return Result(
        "quick", "make bench-quick", [table("Processor time per row, ours", contestants, trials)], aims(trials)
    )


def aims(trials: dict[str, list[Trial]]) -> list[Aim]:
    """Judge ours."""
    kept, _, counted, *_ = trials.values()
    return [
        Aim.at_most("CPU per 1,000 rows besides counting", 0.10, middle(kept, "cpu_per_1000"), "s"),
        Aim.at_most("CPU per 1,000 rows, counted by tiktoken", 0.16, middle(counted, "cpu_per_1000"), "s"),
        Aim.at_least(
            "Rows a second on two cores, one of them the server's", 5000, middle(kept, "rows_per_second"), "/s"
        ),
    ]


def measured() -> Result:
    """Measure ours at 100,000 rows; then ours and the peers at the same rows, in turns."""
    many = [replace(each, rows=SLOW_ROWS if "httpx" in each.name else OWN_ROWS) for each in own()]
    own_trials = compete(many, REPEATS)
    alone = table("Processor time per row, ours", many, own_trials)
    missing: list[str] = []
    everything = [each for name in EVERYTHING_ON for each in own() if name in each.name]
    field = [*everything, *contestants_of(peers.installed(missing.append))]
    trials = compete(field, REPEATS)
    beside = table("Processor time per row, ours and the peers'", field, trials)
    note = " ".join([PEERS_NOTE, *missing])
    best = min(middle(trials[each.name], "cpu_per_1000") for each in field if each.of_peer)
    ratios = [
        Aim.at_least(
            f"CPU per row of the best peer, against {each.name.replace(', ', ' with ')}",
            3,
            best / middle(trials[each.name], "cpu_per_1000"),
            "x",
        )
        for each in everything
    ]
    bars = {each.name: middle(trials[each.name], "cpu_per_1000") for each in field}
    plot = Plot("cpu", "Processor time per 1,000 rows", "CPU seconds", bars=bars)
    return Result("cpu", "make bench", [alone, replace(beside, note=note)], [*aims(own_trials), *ratios], [plot])


def contestants_of(installed: list[peers.Peer]) -> list[Contestant]:
    """Let the peers take part."""
    return [Contestant(f"{peer.name} {peer.version}", peer.rows, peer.send, of_peer=True) for peer in installed]
