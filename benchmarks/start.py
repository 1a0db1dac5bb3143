"""Point 6: how long a person waits for the first sign of life."""

import statistics
import sys

import data
import ours
from measure import MEGABYTE, measure
from results import Aim, Result, Table
from vendor import serving

REPEATS = 7
PEEK = """
import importlib, pkgutil, sys
import pipeline
for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
"""


def imported_megabytes() -> float:
    """Return the anonymous memory of a process that has imported everything and done nothing."""
    with ours.project() as project:
        said = measure([sys.executable, "-c", PEEK], project.folder).stdout
    return int(said) * 1024 / MEGABYTE


def measured() -> Result:
    """Measure `--help`, and `run` on a small job up to the first request."""
    firsts, runs, cpus = [], [], []
    with ours.project() as project:
        helps = [project.command("--help") for _ in range(REPEATS)]
    with serving() as vendor:
        for _ in range(REPEATS):
            with ours.project() as project:
                project.job(data.jsonl(100), vendor.base_url)
                vendor.reset()
                cost = project.command(*ours.RUN)
                firsts.append(vendor.stats()["first"] - cost.started)
                runs.append(cost.wall)
                cpus.append(cost.cpu)
    lines = [
        ("`promptmill --help`", *_seconds([each.wall for each in helps]), *_seconds([each.cpu for each in helps])[:1]),
        ("`promptmill run`, 100 rows: first request", *_seconds(firsts), ""),
        ("`promptmill run`, 100 rows: whole command", *_seconds(runs), *_seconds(cpus)[:1]),
    ]
    columns = ("", "median", "fastest", "CPU")
    note = f"Medians of {REPEATS}. Everything imported takes {imported_megabytes():.0f} MB of anonymous memory."
    aims = [
        Aim.at_most("`promptmill --help`", 0.25, statistics.median(each.wall for each in helps), "s"),
        Aim.at_most("`run` on a small job, to the first request", 1, statistics.median(firsts), "s"),
    ]
    return Result("start", "python benchmarks/bench.py start", [Table("Start", columns, lines, note)], aims)


def _seconds(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f} s", f"{min(values):.2f} s"
