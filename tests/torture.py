"""Kill -9 at random moments, again and again, until the job is done: what must be true then, whatever the moments were.

`Torture` is the crash test's engine; as a script (`make torture SEED=7 KILLS=300`) it does the same with hundreds of
kills. The seed decides the faults, the latencies and when kills come; how far a run got by then, the machine decides.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from bookings import each_line_once
from journals import read_all
from project import Project
from stub import StubServer
from stub_faults import CUT, NO_USAGE, RESET, seeded, status
from stub_log import StubRequest

from pipeline import journal

CONCURRENCY = 8
ROWS_PER_KILL = 30
FAULT_SHARE = 0.15
FAULTS = (status(429, retry_after=0.01), *2 * (status(500), status(503), RESET, CUT, NO_USAGE))
"""A 429 is rarer than the others: it holds everybody up for half a second."""
UNKNOWN_COST = ("reset", "cut", "no usage")
BRINGS_AN_ANSWER = ("answered", "no usage")
"""How requests end (in the stub's log) that must not be sent a second time."""
MOMENTS = ("starting", "planning", "loading", "sending", "sending", "sending")
KILLS_A_ROUND = 50
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.001


@dataclass
class Torture:
    """One job, killed so many times, then left to end by itself. `run` raises AssertionError for a broken promise."""

    folder: Path
    seed: int
    kills: int
    moments: list[str] = field(default_factory=list)
    """When the kills came."""
    open_at_a_kill: Counter[str] = field(default_factory=Counter)
    """Key -> how many kills found its request on its way (its journal has `sent`, and nothing behind it)."""
    text_of: dict[str, str] = field(default_factory=dict)
    """Key -> text, for keys whose answers are on file: paid for, never to be asked for again."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.stub = StubServer(
            faults=seeded(FAULT_SHARE, FAULTS, self.seed),
            latency=lambda n: random.Random(f"{self.seed}:late:{n}").uniform(0.002, 0.04),
        )
        self.journals = self.folder / "promptmill.journal"
        self.seen: set[Path] = set()
        self.texts: list[str] = []

    def run(self) -> None:
        with self.stub:
            self.project = Project(self.folder, self.stub.base_url)
            self.project.job(concurrency=CONCURRENCY, more="[retry]\nattempts = 12")
            self._add_rows(self.kills * ROWS_PER_KILL)
            while len(self.moments) < self.kills:
                self._run_until_killed()
            self.project.process("run", "job.toml", "--yes", "--quiet")
            self._read_newest_journal()
            self._verify()

    def _add_rows(self, count: int) -> None:
        """Every seventh text repeats the one before, so that rows share a key."""
        start = len(self.texts)
        self.texts += [f"row {n - (n % 7 == 6)} says hello" for n in range(start, start + count)]
        self.project.rows({"id": f"r{n}", "text": text} for n, text in enumerate(self.texts))

    # -- killing ------------------------------------------------------------------------------------

    def _run_until_killed(self) -> None:
        on_file, calls = set(self.text_of.values()), self.stub.calls
        started = self.project.start("run", "job.toml", "--yes", "--quiet")
        moment = self._wait_for_a_moment(started, calls)
        started.kill()
        _, said = started.communicate()
        self.stub.wait_until(lambda: self.stub.in_flight == 0, "the abandoned requests")
        opened = self._read_newest_journal()
        again = on_file.intersection(map(_text_of, self.stub.requests[calls:]))
        assert not again, f"asked again, though the answers were on file: {sorted(again)}"
        if started.returncode == 0:  # it was faster than the kill
            self._add_rows(5 * ROWS_PER_KILL)
            return
        assert started.returncode == -9, f"a run ended by itself with exit code {started.returncode}: {said}"
        assert len(opened) <= CONCURRENCY, f"a kill found {len(opened)} requests in flight"
        self.open_at_a_kill.update(opened)
        self.moments.append(moment)
        somebody_looks = self.dice.random() < 0.3  # and so loads what the dead left
        if somebody_looks and (self.folder / "promptmill.duckdb").exists():  # the first kills may come before it does
            self.project.run(self.dice.choice(("status", "spend")))

    def _wait_for_a_moment(self, started: "subprocess.Popen[str]", calls: int) -> str:
        """Wait until a random moment of a random kind; say which it was."""
        kind, wait = self.dice.choice(MOMENTS), self.dice.uniform(0, 0.03)
        wanted = calls + self.dice.randint(1, ROWS_PER_KILL)
        log = self.folder / "promptmill.duckdb.wal"  # DuckDB's, there while a burst is; to stat it is allowed
        happens: dict[str, Callable[[], bool]] = {
            "starting": lambda: True,
            "planning": lambda: self._newest_journal() is not None,
            "loading": lambda: log.exists() or self.stub.calls >= wanted,
            "sending": lambda: self.stub.calls >= wanted,
        }
        if kind == "starting":
            wait *= 20
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happens[kind]() and started.poll() is None:
            assert time.monotonic() < deadline, f"the run does nothing ({kind})"
            time.sleep(POLL_SECONDS)
        time.sleep(wait)
        return f"{kind} + {wait * 1000:.1f} ms"

    def _newest_journal(self) -> Path | None:
        return next(iter(set(journal.files_in(self.journals)) - self.seen), None)

    def _read_newest_journal(self) -> set[str]:
        """Note which answers are on file now; return the keys whose requests are open."""
        path = self._newest_journal()
        if path is None:  # the run did not come so far
            return set()
        self.seen.add(path)
        opened: set[str] = set()
        for line in read_all(path, dead=True):
            kind, fields = line.fields["type"], line.fields
            if kind == "sent":
                opened.add(fields["key"])
            elif kind == "attempt":
                opened.remove(fields["key"])
                if fields["result"] == "ok":
                    self.text_of[fields["key"]] = json.loads(fields["output"])["echo"]
        return opened

    # -- what must be true --------------------------------------------------------------------------

    def _verify(self) -> None:
        self._every_row_ended_once_with_its_own_answer()
        self._only_what_was_in_flight_was_answered_twice()
        self._the_known_cost_is_the_bill_for_what_was_received()
        self._the_rest_is_listed_with_an_upper_bound()
        assert each_line_once(self.folder / "promptmill.duckdb")
        assert self.project.sql("select * from journal_damage where not torn") == []
        assert [file.name for file in self.journals.iterdir() if file.suffix in {".reserve", ".new"}] == []

    def _every_row_ended_once_with_its_own_answer(self) -> None:
        found = self.project.sql("select row_id, status, output from results order by row_index")
        assert [row["row_id"] for row in found] == [f"r{n}" for n in range(len(self.texts))]
        assert {row["status"] for row in found} == {"ok"}
        assert [json.loads(row["output"])["echo"] for row in found] == self.texts

    def _only_what_was_in_flight_was_answered_twice(self) -> None:
        """A request that is answered goes out once, and once more for each kill that found it on its way."""
        answers = Counter(_text_of(request) for request in self.stub.requests if request.outcome in BRINGS_AN_ANSWER)
        assert set(answers) == set(self.texts)
        repeated = answers - Counter(set(answers))
        assert repeated <= self._killed_texts(), "answered again, though no kill found the request in flight"

    def _killed_texts(self) -> Counter[str]:
        return Counter({self.text_of[key]: count for key, count in self.open_at_a_kill.items()})

    def _the_known_cost_is_the_bill_for_what_was_received(self) -> None:
        """Each booked cost is one line of the bill; a delivered answer that isn't booked was in flight at a kill."""
        bill = {f"req-{entry.n}": entry.usd for entry in self.stub.entries}
        delivered = {f"req-{r.n}": _text_of(r) for r in self.stub.requests if r.outcome == "answered"}
        booked = self.project.sql("select request_id, cost_usd from attempts where cost_usd > 0")
        costs = {row["request_id"]: Decimal(row["cost_usd"]) for row in booked}
        assert len(costs) == len(booked), "booked twice"
        assert costs == {name: bill[name] for name in costs}
        assert costs.keys() <= delivered.keys()
        unread = Counter(text for name, text in delivered.items() if name not in costs)
        assert unread <= self._killed_texts()
        assert Decimal(self.project.value("select sum(cost_usd) from attempts")) == sum(costs.values())

    def _the_rest_is_listed_with_an_upper_bound(self) -> None:
        lost = self.project.sql("select run_id, key, count(*) n from attempts where result = 'lost' group by all")
        assert {row["n"] for row in lost} <= {1}
        assert Counter(row["key"] for row in lost) == self.open_at_a_kill
        assert max(Counter(row["run_id"] for row in lost).values(), default=0) <= CONCURRENCY
        unbounded = "select count(*) from attempts where cost_usd is null and not coalesce(reserved_usd > 0, false)"
        assert self.project.value(unbounded) == 0
        told = self.project.value("select count(*) from attempts where cost_usd is null and result <> 'lost'")
        failed = sum(request.outcome in UNKNOWN_COST for request in self.stub.requests)
        assert failed - self.open_at_a_kill.total() <= told <= failed


def _text_of(request: StubRequest) -> str:
    return str(request.payload["messages"][-1]["content"])


def main() -> None:
    """Torture in rounds of 50 kills; each has a folder and a seed of its own."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same plan of kills")
    parser.add_argument("--kills", type=int, default=300)
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    for start in range(0, options.kills, KILLS_A_ROUND):
        with tempfile.TemporaryDirectory() as folder:
            kills = min(KILLS_A_ROUND, options.kills - start)
            torture = Torture(Path(folder), seed * 1000 + start, kills)
            try:
                torture.run()
            except BaseException:
                sys.stdout.write(f"BROKEN after {start} kills: SEED={seed} KILLS={options.kills}; {torture.moments}\n")
                raise
        lost, rows = torture.open_at_a_kill.total(), len(torture.texts)
        sys.stdout.write(
            f"{start + kills:5} kills: {rows} rows ended once, {torture.stub.calls} calls, {lost} requests in flight"
            f" at a kill, {torture.stub.bill} dollars billed\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"every promise held (SEED={seed} KILLS={options.kills})\n")


if __name__ == "__main__":
    main()
