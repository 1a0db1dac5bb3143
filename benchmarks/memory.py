"""Point 3: anonymous memory and time against the number of rows; going on with half a job; a finished one."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import data
import ours
import peers
import start
from measure import MEGABYTE, Measured
from results import Aim, Plot, Result, Table, say
from vendor import Vendor, serving

SIZES, LARGE_SIZES = (1_000, 10_000, 50_000, 100_000), (100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Found:
    """What one run took."""

    name: str
    rows: int
    cost: Measured
    first_request: float | None
    """Seconds from the command; None if none was sent."""

    @property
    def megabytes(self) -> float:
        """Its peak."""
        return self.cost.peak_anonymous / MEGABYTE

    def line(self, imported: float) -> tuple[str, ...]:
        """Write it for the table."""
        memory = (f"{self.megabytes:,.0f} MB", f"{self.megabytes - imported:,.0f} MB")
        first = "none" if self.first_request is None else f"{self.first_request:.1f} s"
        return (self.name, *memory, f"{self.cost.cpu:,.1f} s", f"{self.cost.wall:,.1f} s", first)


def measured() -> Result:
    """Measure ours up to 100,000 rows, and the peers."""
    return replace(_measured("memory", "make bench", SIZES, peers.installed(say)), aims=[])  # they are for a million


def large() -> Result:
    """Measure ours up to a million rows: 1 GB of JSONL."""
    return _measured("large", "make bench-large", LARGE_SIZES, [])


def _measured(name: str, command: str, sizes: tuple[int, ...], others: list[peers.Peer]) -> Result:
    imported, largest = start.imported_megabytes(), sizes[-1]
    with serving() as vendor:
        lines = [_whole(rows, data.jsonl(rows), "JSONL", vendor) for rows in sizes]
        parquet = _whole(largest, data.parquet(largest), "Parquet", vendor)
        rest, again = _resumed(largest, vendor)
        plotted = {"promptmill": [(float(each.rows), each.megabytes) for each in lines]}
        plotted |= {peer.name: _grown(peer, vendor) for peer in others}
    before, last = lines[-2:]
    growth = (last.megabytes - before.megabytes) * MEGABYTE / (last.rows - before.rows)
    aims = [
        Aim.at_most(f"Memory above import, {last.name}", 300, last.megabytes - imported, "MB"),
        Aim.at_most(f"Memory above import, {parquet.name}", 300, parquet.megabytes - imported, "MB"),
        Aim.at_most(f"Its growth from {before.rows:,} rows", 64, growth, "bytes a row"),
        Aim.at_most(f"First request of {rest.name}", 5, rest.first_request or math.inf, "s"),
        Aim.at_most(f"Memory of {rest.name}", 400, rest.megabytes, "MB"),
        Aim.at_most(f"Running {again.name} again", 15, again.cost.wall, "s"),
    ]
    note = f"`above import` is the peak less the {imported:.0f} MB of a process that has imported everything."
    columns = ("", "peak memory", "above import", "CPU", "wall", "first request")
    shown = [each.line(imported) for each in (*lines, parquet, rest, again)]
    plot = Plot("memory", "Peak anonymous memory against rows", "MB", lines=plotted)
    return Result(name, command, [Table(f"Memory, up to {largest:,} rows", columns, shown, note)], aims, [plot])


def _whole(rows: int, path: Path, kind: str, vendor: Vendor) -> Found:
    """Run a job of so many rows."""
    with ours.project() as project:
        project.job(path, vendor.base_url)
        return _run(f"{rows:,} rows of {kind}", rows, project, vendor)


def _resumed(rows: int, vendor: Vendor) -> tuple[Found, Found]:
    """Stop a job half-way, go on, and run it once more when it is finished."""
    with ours.project() as project:
        project.job(data.jsonl(rows), vendor.base_url)
        project.command(*ours.RUN, "--limit", str(rows // 2))
        rest = _run(f"the second half of {rows:,} rows", rows, project, vendor)
        return rest, _run(f"{rows:,} rows that are done", rows, project, vendor)


def _run(name: str, rows: int, project: ours.Project, vendor: Vendor) -> Found:
    vendor.reset()
    cost = project.command(*ours.RUN)
    stats = vendor.stats()
    say(f"  {name}: {cost.peak_anonymous / MEGABYTE:.0f} MB, {cost.cpu:.1f} s CPU, {cost.wall:.1f} s")
    return Found(name, rows, cost, stats["first"] - cost.started if stats["requests"] else None)


def _grown(peer: peers.Peer, vendor: Vendor) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for rows in peer.memory_rows:
        peak = peer.send(data.jsonl(rows), vendor).peak_anonymous / MEGABYTE
        points.append((rows, peak))
        say(f"  {peer.name}: {rows:,} rows: {peak:.0f} MB")
    return points
