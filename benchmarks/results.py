"""What a benchmark found: tables for people, numbers for plots, and the facts without which neither means anything."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import vendor

FOLDER = Path(__file__).parent / ".results"
LOAD_BEFORE = os.getloadavg()[0]
"""What others do on the machine: processes that ran or waited, in the minute before anything was measured."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is printed; every cell is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Write it as Markdown; numbers are set to the right."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{text}\n" + (f"\n{self.note}\n" if self.note else "")

    def plain(self) -> str:
        """Write it for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        text = [
            "  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
                ]
            )
            for line in lines
        ]
        return "\n".join([f"\n{self.title}", *text, *([self.note] if self.note else [])])


@dataclass(frozen=True, slots=True)
class Aim:
    """What was to be reached, and whether it was."""

    what: str
    wanted: str
    found: str
    reached: bool

    @classmethod
    def at_most(cls, what: str, wanted: float, found: float, unit: str) -> "Aim":
        """Want a number that is no higher."""
        return cls(what, f"at most {wanted:,g} {unit}", f"{found:,.{_digits(wanted)}f} {unit}", found <= wanted)

    @classmethod
    def at_least(cls, what: str, wanted: float, found: float, unit: str) -> "Aim":
        """Want a number that is no lower."""
        return cls(what, f"at least {wanted:,g} {unit}", f"{found:,.{_digits(wanted)}f} {unit}", found >= wanted)


def _digits(wanted: float) -> int:
    """Return the digits behind the point that a number of this size needs."""
    return 3 if wanted < 1 else 1 if wanted < 100 else 0  # noqa: PLR2004 -- a matter of looks


@dataclass(frozen=True, slots=True)
class Plot:
    """Numbers for one picture: bars have one number for each name, lines have points (x, y)."""

    file: str
    title: str
    unit: str
    bars: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def machine() -> dict[str, str]:
    """Say what everything ran on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    ours = ("duckdb", "polars", "pyreqwest", "httpx", "tiktoken", "toktok-rs")
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "load": f"{LOAD_BEFORE:.1f}",
        "machine": f"{os.cpu_count()} cores of {cpu}, {platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "server": vendor.version(),
        "libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ours),
    }


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 -- whichever git there is
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found."""

    name: str
    command: str
    tables: list[Table]
    aims: list[Aim] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=machine)

    def save(self) -> None:
        """Keep it for the report, and print it."""
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{self.name}.json").write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        for table in self.tables:
            say(table.plain())
        for aim in self.aims:
            say(f"{'reached' if aim.reached else 'MISSED'}: {aim.what}: {aim.wanted}; {aim.found}")


def load(name: str) -> Result | None:
    """Return what was kept, None if there is nothing."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return None
    kept: dict[str, Any] = orjson.loads(path.read_bytes())
    return Result(
        kept["name"],
        kept["command"],
        [Table(**table) for table in kept["tables"]],
        [Aim(**aim) for aim in kept["aims"]],
        [Plot(**plot) for plot in kept["plots"]],
        kept["facts"],
    )


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
