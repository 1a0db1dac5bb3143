"""The attacks that other tools failed, on this one: a table, made by `make promises` in about a minute.

Each attack runs the installed command in a process of its own against the tests' vendor, which bills what it serves.
The field's numbers were measured in November 2026 on eight tools, with the same attacks.
"""

import atexit
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the vendor and the project folder are the tests' own

from project import Project, texts
from stub import StubServer
from stub_faults import status

CAP = Decimal("0.10")
LIMIT_PER_SECOND = 20
ROWS = 300
SEED = 7


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    attack: str
    field: str
    must_be: str
    ours: str
    holds: bool


def cap() -> Finding:
    """Give a job that would cost about $0.60 a budget of $0.10: 256 requests at a time, answers of any length."""
    dice = random.Random(SEED)  # noqa: S311 -- a seeded attack
    with StubServer(answer=lambda _: " ".join(["word"] * dice.randint(1, 50)), latency=0.02) as stub:
        project = _project(stub, texts(10_000), concurrency=256)
        project.process("run", "job.toml", "--yes", "--budget", str(CAP), code=4)
        over = max(stub.bill - CAP, Decimal(0))
        used = stub.bill / CAP
    ours = f"${stub.bill:.4f} served: {over:f} over, {used:.1%} used"
    return Finding("a cap of $0.10", "$0.12 to $1.25 served", "0 over, 97 % used", ours, over == 0 and used >= _MOST)


_MOST = Decimal("0.97")


def kill() -> Finding:
    """Kill -9 at a random moment, five times over; the vendor counts answers it delivered and was asked for again."""
    dice = random.Random(SEED)  # noqa: S311 -- a seeded attack
    with StubServer(latency=0.05) as stub:
        project = _project(stub, texts(2000), concurrency=32)
        in_flight = 0
        for _ in range(5):
            goal = stub.calls + dice.randint(50, 300)
            run = project.start("run", "job.toml", "--yes")
            stub.wait_for_calls(goal)
            run.send_signal(signal.SIGKILL)
            run.communicate()
            in_flight += 32
        project.process("run", "job.toml", "--yes")
        again = stub.calls - 2000
        lost = int(project.value("select count(*) from attempts where result = 'lost'"))
    ours = f"{again} asked again, {lost} in flight at 5 kills; {max(again - lost, 0)} bought twice"
    holds = again <= lost <= in_flight
    return Finding("kill -9 and the same command", "8 to 180 bought twice", "only in flight", ours, holds)


def quota() -> Finding:
    """Let the quota be gone after 100 answers."""
    with StubServer() as stub:
        stub.faults = lambda n, _: status(429, "quota", code="insufficient_quota") if n > 100 else None  # noqa: PLR2004
        project = _project(stub, texts(2000), concurrency=32)
        project.process("run", "job.toml", "--yes", code=4)
        useless = stub.calls - 100
    return Finding("a dead quota", "250 to 1,750 useless calls", "at most 32", str(useless), useless <= 32)  # noqa: PLR2004


def rate() -> Finding:
    """Let a server pass 20 requests a second and state that nowhere."""
    with StubServer(requests_per_second=LIMIT_PER_SECOND, latency=0.05) as stub:
        project = _project(stub, texts(ROWS), concurrency=32)
        start = time.monotonic()
        project.process("run", "job.toml", "--yes")
        seconds = time.monotonic() - start
        wasted = stub.calls - ROWS
        lost = ROWS - int(project.value("select count(*) from results where status = 'ok'"))
    ours = f"{wasted} wasted ({wasted / stub.calls:.1%}), {lost} lost, {seconds:.0f} s"
    wanted = "under 5 %, none lost, ideal 15 s"
    return Finding("20 requests/s, unstated", "420 to 510 wasted, up to 113 of 300 lost", wanted, ours,
                   wasted < 0.05 * stub.calls and lost == 0)  # fmt: skip


def duplicates() -> Finding:
    """Ask 300 rows with 10 distinct prompts."""
    with StubServer() as stub:
        project = _project(stub, [{"id": str(n), "text": f"prompt {n % 10}"} for n in range(ROWS)], concurrency=32)
        project.process("run", "job.toml", "--yes")
    return Finding("300 rows, 10 prompts", "300 calls", "10", str(stub.calls), stub.calls == 10)  # noqa: PLR2004


def cut_off() -> Finding:
    """Cut every third answer off at max_tokens."""

    def answer(payload: dict[str, list[dict[str, str]]]) -> str:
        number = int(payload["messages"][-1]["content"].split()[1])
        return " ".join(["word"] * (80 if number % 3 == 0 else 5))

    with StubServer(answer=answer) as stub:
        project = _project(stub, texts(ROWS), concurrency=32)
        project.process("run", "job.toml", "--yes", code=3)
        stored = project.value("select count(*) from results where status = 'ok' and finish_reason = 'length'")
        truncated = project.value("select count(*) from results where status = 'truncated'")
    ours = f"{stored} ({truncated} are `truncated`)"
    return Finding("100 of 300 answers cut off", "stored as successes by all", "none", ours, int(stored) == 0)


ATTACKS: tuple[Callable[[], Finding], ...] = (cap, kill, quota, rate, duplicates, cut_off)


def _project(stub: StubServer, rows: list[dict[str, str]], *, concurrency: int) -> Project:
    project = Project(Path(tempfile.mkdtemp(prefix="promises-")), stub.base_url)
    atexit.register(shutil.rmtree, project.folder)
    project.rows(rows)
    project.job(concurrency=concurrency)
    return project


def main() -> None:
    """Run every attack, print the table, and exit with 1 if a promise does not hold."""
    findings = [attack() for attack in ATTACKS]
    rows = [("attack", "the field", "must be", "promptmill"), ("---",) * 4]
    rows += [(f.attack, f.field, f.must_be, f.ours + ("" if f.holds else "  FAILS")) for f in findings]
    click.echo("\n".join(f"| {' | '.join(row)} |" for row in rows))
    sys.exit(0 if all(finding.holds for finding in findings) else 1)


if __name__ == "__main__":
    main()
