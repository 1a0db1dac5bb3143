"""Runs without a provider: journals written as a run writes them, for the ledger's tests and their child processes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from journals import read_all

from pipeline import journal
from pipeline.doorman import Ticket
from pipeline.ledger import Burst, JournalState, Ledger, RunRequest
from pipeline.records import Attempt, Outcome, Request, Usage
from pipeline.runners._lines import attempt_line, outcome_line, sent_line

PRICE = {
    "price_id": "p1", "provider": "stub", "model": "m", "input": "0.25", "output": "2.00", "currency": "USD",
    "source": "test", "checked": "2026-11-01",
}  # fmt: skip
COST = Decimal("0.001")
WORST = Decimal("0.004")


def request(job="j", **changes):
    asked = RunRequest(
        job=job, job_file=f"{job}.toml", command="run", fingerprint="f1", prompt_id="q1", input="data.jsonl",
        provider="stub", model="m", lane="realtime", max_tokens=100, price=PRICE, config={"model": {"name": "m"}},
        code_version="0.1.0", reuse="ledger",
    )  # fmt: skip
    return replace(asked, **changes)


class Booked:
    """A run that books what the test says. `die` is what a kill leaves: no `end`, and the lock is free."""

    def __init__(self, path, job="j", **changes):
        self.ledger = Ledger(Path(path))
        self.start = self.ledger.begin(request(job, **changes))
        self.journal = self.start.journal
        self.state = JournalState(self.journal.journal_id, self.journal.uuid, self.journal.size, closed=False)
        self.run_id, self.plan_id = self.start.run_id, self.start.plan.plan_id

    @property
    def path(self):
        return self.journal.path

    def sent(self, key, attempt=1, worst=WORST, kind="first", count_method="exact"):
        ticket = Ticket(Request(key, ()), worst, 150, 50, count_method, attempt=attempt, kind=kind)
        self.journal.append("sent", sent_line(ticket))
        return ticket

    def attempt(self, key, attempt=1, *, result="ok", cost=COST, worst=WORST, output="an answer", parsed=None,
                kind=None, count_method="exact", **more):  # fmt: skip
        """One exchange: its `sent` line and what came back."""
        kind = kind or ("first" if attempt == 1 else "retry")
        ticket = self.sent(key, attempt, worst, kind, count_method)
        usage = Usage(50, 10, cached_input_tokens=5, raw={"prompt_tokens": 50})
        facts = Attempt(
            key=key, attempt=attempt, kind=kind, result=result, latency_ms=12.5, reserved_usd=worst, computed_usd=cost,
            output=output, parsed=parsed,
            **{"http_status": 200, "finish_reason": "stop", "sent_at": time.time(), "usage": usage, **more},
        )  # fmt: skip
        self.journal.append("attempt", attempt_line(facts, ticket))

    def outcome(self, key, status="ok", attempts=1, *, answered=True, **more):
        """How a key ended, with the answer of this run's last attempt."""
        outcome = Outcome(key, status, attempts, self.run_id if answered else None, attempts if answered else None,
                          **{"max_tokens": 100, **more})  # fmt: skip
        self.journal.append("outcome", outcome_line(outcome))

    def answer(self, key, **more):
        """An attempt that went well, and its outcome."""
        self.attempt(key, **more)
        self.outcome(key)

    def rows(self, *keys, first=0, plan_end=False, estimate=None):
        """Load these keys as the plan's rows (equal ones repeat), with what the journal holds."""
        rows = [
            (self.plan_id, first + n, f"r{first + n}", key, key in keys[:n]) for n, key in enumerate(keys)
        ]  # fmt: skip
        self.load(rows, (self.plan_id, first + len(keys)) if plan_end else None, estimate)

    def burst(self, rows=(), plan_end=None, estimate=None):
        piece = journal.read(self.path, self.state.offset, dead=False)
        return Burst(piece, list(rows), plan_end, estimate)

    def load(self, rows=(), plan_end=None, estimate=None):
        """One burst, as the loader thread makes it."""
        self.state = self.ledger.burst(self.path, self.state, self.burst(rows, plan_end, estimate), patience=20)

    def end(self, exit_code=0):
        """End as a run does."""
        self.journal.append("end", {"exit_code": exit_code, "reason": "finished", "at": time.time()})
        self.journal.close()

    def die(self):
        self.journal.close()


def ask(path, sql):
    """All rows of a query, after catching up, as a reading command would see them."""
    with Ledger(Path(path)).read() as connection:
        return connection.execute(sql).fetchall()


def value(path, sql):
    ((only,),) = ask(path, sql)
    return only


def each_line_once(path):
    """Rule 6: every `attempt` line of every journal is in `attempts` exactly once, and nothing else is."""
    written = sorted(
        (file.stem, line.offset)
        for file in journal.files_in(Ledger(Path(path)).folder)
        for line in read_all(file, dead=True)
        if line.fields["type"] == "attempt"
    )
    loaded = ask(path, "select journal_id, journal_offset from attempts where result <> 'lost' order by all")
    return written == loaded


def child(code, *arguments):
    """Start a Python process that can import this module; talk to it through its pipes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hears(started, line):
    """Wait until the child says this."""
    said = started.stdout.readline()
    assert said == f"{line}\n", said


def finished(started):
    """Let the child end by itself; its exit code and what it said last."""
    said, _ = started.communicate(timeout=60)
    return started.returncode, said


def kill(started):
    """End the child as the kernel does when memory runs out."""
    started.send_signal(signal.SIGKILL)
    started.communicate()
