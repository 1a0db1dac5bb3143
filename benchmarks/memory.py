"""Point 3: anonymous memory and time against the number of rows; going on with half a job; a finished one."""

import data
import ours
import start
from cpu import Contestant
from measure import MEGABYTE, Measured
from results import Plot, Result, Table, say
from vendor import Vendor, serving

HALF_DONE = "a resumed run"


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
    with ours.project() as project:
        project.job(data.jsonl(rows), vendor.base_url)
        project.command(*ours.RUN, "--limit", str(rows // 2))
        for name in (f"the second half of {rows:,} rows", f"{rows:,} rows, finished before"):
            vendor.reset()
            cost = project.command(*ours.RUN)
            stats = vendor.stats()
            found.append((name, cost, stats["first"] - cost.started if stats["requests"] else None))
            say(f"  {name}: {cost.wall:.1f} s, {cost.peak_anonymous / MEGABYTE:.0f} MB")
    return found


def measured(sizes: list[int], peers: list[Contestant], peer_sizes: list[int]) -> Result:
    """Measure ours at some sizes, the last one also as Parquet and resumed; and the peers at theirs."""
    imported = start.imported_megabytes()
    lines, points = [], []
    largest = sizes[-1]
    with serving() as vendor:
        for rows, kind in [*((rows, "JSONL") for rows in sizes), (largest, "Parquet")]:
            cost, first = whole(rows, kind, vendor)
            lines.append(_line(f"{rows:,} rows, {kind}", cost, first, imported))
            say(f"  {lines[-1]}")
            if kind == "JSONL":
                points.append((rows, cost.peak_anonymous / MEGABYTE))
        lines += [_line(name, cost, first, imported) for name, cost, first in resumed(largest, vendor)]
        plotted = {"promptmill": points, **{peer.name: _grown(peer, peer_sizes, vendor) for peer in peers}}
    note = f"Importing everything takes {imported:.0f} MB; `above import` is the peak less that."
    if len(points) > 1:
        (few, low), (many, high) = points[-2], points[-1]
        note += f" From {few:,} to {many:,} rows the peak grew by {(high - low) * MEGABYTE / (many - few):.0f} bytes a row."
    columns = ("", "peak memory", "above import", "CPU", "wall", "first request")
    plot = Plot("memory", "Peak anonymous memory against rows", "MB", lines=plotted)
    return Result("memory", "make bench-large", [Table("Memory", columns, lines, note)], [plot])


def _grown(peer: Contestant, sizes: list[int], vendor: Vendor) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for rows in sizes:
        peak = peer.send(data.jsonl(rows), vendor).peak_anonymous / MEGABYTE
        points.append((rows, peak))
        say(f"  {peer.name}: {rows:,} rows: {peak:.0f} MB")
    return points


def _line(name: str, cost: Measured, first: float | None, imported: float) -> tuple[str, ...]:
    peak = cost.peak_anonymous / MEGABYTE
    return (
        name,
        f"{peak:,.0f} MB",
        f"{peak - imported:,.0f} MB",
        f"{cost.cpu:,.1f} s",
        f"{cost.wall:,.1f} s",
        "none" if first is None else f"{first:.1f} s",
    )
