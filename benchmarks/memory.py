"""Point 3: anonymous memory and time against the number of rows; going on with half a job; a finished one."""

import data
import ours
import peers
import start
from measure import MEGABYTE, Measured
from results import Plot, Result, Table, say
from vendor import Vendor, serving

SIZES, LARGE_SIZES, PEER_SIZES = (10_000, 50_000, 100_000), (100_000, 1_000_000), (2_000, 10_000, 20_000)


def whole(rows: int, kind: str, vendor: Vendor) -> tuple[Measured, float]:
    """Run a job of so many rows; return what it cost and the seconds to the first request."""
    path = data.jsonl(rows) if kind == "JSONL" else data.parquet(rows)
    with ours.project() as project:
        project.job(path, vendor.base_url)
        vendor.reset()
        cost = project.command(*ours.RUN)
        return cost, vendor.stats()["first"] - cost.started


def resumed(rows: int, vendor: Vendor) -> list[tuple[str, Measured, float | None]]:
    """Stop a job half-way, go on, and run it once more when it is finished."""
    found: list[tuple[str, Measured, float | None]] = []
    rest, again = f"the second half of {rows:,} rows", f"{rows:,} rows, finished before"
    with ours.project() as project:
        project.job(data.jsonl(rows), vendor.base_url)
        project.command(*ours.RUN, "--limit", str(rows // 2))
        for name in (rest, again):
            vendor.reset()
            cost = project.command(*ours.RUN)
            stats = vendor.stats()
            found.append((name, cost, stats["first"] - cost.started if stats["requests"] else None))
    return found


def measured() -> Result:
    """Measure ours up to 100,000 rows, and the peers."""
    return _measured("memory", "make bench", SIZES, peers.installed(say))


def large() -> Result:
    """Measure ours up to a million rows: 1 GB of JSONL."""
    return _measured("large", "make bench-large", LARGE_SIZES, [])


def _measured(name: str, command: str, sizes: tuple[int, ...], others: list[peers.Peer]) -> Result:
    imported = start.imported_megabytes()
    lines: list[tuple[str, ...]] = []
    points: list[tuple[float, float]] = []
    largest = sizes[-1]
    with serving() as vendor:
        for rows, kind in [*((rows, "JSONL") for rows in sizes), (largest, "Parquet")]:
            cost, first = whole(rows, kind, vendor)
            lines.append(_line(f"{rows:,} rows, {kind}", cost, first, imported))
            if kind == "JSONL":
                points.append((rows, cost.peak_anonymous / MEGABYTE))
        lines += [_line(part, cost, first, imported) for part, cost, first in resumed(largest, vendor)]
        plotted = {"promptmill": points} | {peer.name: _grown(peer, vendor) for peer in others}
    (few, low), (many, high) = points[-2:]
    growth = (high - low) * MEGABYTE / (many - few)
    note = (
        f"`above import` is the peak less the {imported:.0f} MB of a process that has imported everything. From {few:,}"
        f" to {many:,} rows of JSONL the peak grew by {growth:.0f} bytes a row."
    )
    columns = ("", "peak memory", "above import", "CPU", "wall", "first request")
    plot = Plot(name, "Peak anonymous memory against rows", "MB", lines=plotted)
    return Result(name, command, [Table(f"Memory, up to {largest:,} rows", columns, lines, note)], [plot])


def _grown(peer: peers.Peer, vendor: Vendor) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for rows in PEER_SIZES:
        peak = peer.send(data.jsonl(rows), vendor).peak_anonymous / MEGABYTE
        points.append((rows, peak))
        say(f"  {peer.name}: {rows:,} rows: {peak:.0f} MB")
    return points


def _line(name: str, cost: Measured, first: float | None, imported: float) -> tuple[str, ...]:
    peak = cost.peak_anonymous / MEGABYTE
    line = (
        name,
        f"{peak:,.0f} MB",
        f"{peak - imported:,.0f} MB",
        f"{cost.cpu:,.1f} s",
        f"{cost.wall:,.1f} s",
        "none" if first is None else f"{first:.1f} s",
    )
    say(f"  {' | '.join(line)}")
    return line
