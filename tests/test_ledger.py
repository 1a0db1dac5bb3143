"""A run's way into the ledger: rules 5 to 8 of docs/journal.md, full disks, kills and damage."""

import shutil
import subprocess
import sys
import threading
from decimal import Decimal

import duckdb
import pytest
from bookings import COST, WORST, Booked, ask, child, each_line_once, finished, hears, kill, value
from journals import read_all

from pipeline import journal
from pipeline.errors import LedgerError
from pipeline.ledger import Burst, Ledger, _connect, loading
from pipeline.ledger._frames import _BOOKERS, RunFacts, missing_outcome
from pipeline.runners._backlog import Backlog
from pipeline.runners._loader import Loader


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


def outside(path, sql):
    """Look at the file with nothing but DuckDB."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 255
    file.write_bytes(data)


def line_of(file, kind, key):
    """Offset and length of a line."""
    for line in read_all(file, dead=True):
        if line.fields["type"] == kind and line.fields.get("key") == key:
            return line.offset, len(journal.encode_line(line.fields))
    raise AssertionError(key)


# -- a run's way into the ledger --------------------------------------------------------------------


def test_everything_a_run_wrote_is_found_again(path):
    run = Booked(path)
    run.attempt("k1", result="unavailable", cost=None, output=None, error_type="http_503", error="down")
    run.attempt("k1", 2, output='{"a": 1}', parsed={"a": 1})
    run.outcome("k1", attempts=2)
    run.rows("k1", plan_end=True)
    run.end()
    with Ledger(path).read() as connection:
        cursor = connection.execute("select * exclude (sent_at) from attempts order by attempt")
        names = [column[0] for column in cursor.description]
        failed, good = (dict(zip(names, row, strict=True)) for row in cursor.fetchall())
    offsets = [line_of(run.path, "attempt", "k1")[0], good["journal_offset"]]
    common = {
        "run_id": 1, "key": "k1", "lane": "realtime", "provider": "stub", "model": "m", "model_returned": None,
        "latency_ms": 12.5, "http_status": 200, "finish_reason": "stop", "input_tokens": 50, "cached_input_tokens": 5,
        "cache_write_tokens": 0, "output_tokens": 10, "reasoning_tokens": 0, "usage_json": '{"prompt_tokens":50}',
        "counted_tokens": 50, "count_method": "exact", "billed_usd": None, "reserved_usd": WORST, "price_id": "p1",
        "request_id": None, "journal_id": run.journal.journal_id,
    }  # fmt: skip
    assert failed == common | {
        "attempt": 1, "kind": "first", "result": "unavailable", "cost_usd": None, "computed_usd": None,
        "error_type": "http_503", "error": "down", "journal_offset": offsets[0],
    }  # fmt: skip
    assert good == common | {
        "attempt": 2, "kind": "retry", "result": "ok", "cost_usd": COST, "computed_usd": COST,
        "error_type": None, "error": None, "journal_offset": offsets[1],
    }  # fmt: skip
    assert ask(path, "select run_id, key, attempt, output, parsed, input_tokens, model from answers") == [
        (1, "k1", 2, '{"a": 1}', '{"a":1}', 50, "m")
    ]
    assert ask(path, "select run_id, key, status, attempts, answer_run, answer_attempt, reused from outcomes") == [
        (1, "k1", "ok", 2, 1, 2, False)
    ]
    assert ask(path, "select price_id, input, output, cached_input from prices") == [
        ("p1", Decimal("0.25"), Decimal("2.00"), None)
    ]
    assert ask(path, "select job, plan_id, command, exit_code, reason from runs") == [
        ("j", 1, "run", 0, "finished")
    ]  # fmt: skip
    assert ask(path, "select job, complete, rows, fingerprint from plans") == [("j", True, 1, "f1")]
    assert each_line_once(path)


def test_times_are_utc_to_the_second(path):
    run = Booked(path)
    run.answer("k1")
    run.end()
    near = "abs(epoch({0}) - epoch(now() at time zone 'UTC')) < 60"
    for column, table in [
        ("sent_at", "attempts"),
        ("started_at", "runs"),
        ("answered_at", "answers"),
        ("created_at", "ledger_identity"),
        ("applied_at", "migrations"),
    ]:
        assert value(path, f"select bool_and({near.format(column)}) from {table}"), table


def test_texts_arrive_as_they_were(path):
    texts = ["", "\x00 nul", "é \U0001f600 \u2028", 'quote " back \\ slash', "line\nbreak\ttab", "x" * 300_000]
    run = Booked(path)
    for n, text in enumerate(texts):
        run.answer(f"k{n}", output=text, parsed={"t": text} if n < 5 else None)
    run.end()
    assert [row[0] for row in ask(path, "select output from answers order by key")] == texts


def test_an_answer_without_text_has_no_answers_row(path):
    run = Booked(path)
    run.attempt("k1", result="refused", output=None)
    run.outcome("k1", "refused", answered=False)
    run.rows("k1")
    run.end()
    assert value(path, "select count(*) from answers") == 0
    assert ask(path, "select status, output from results") == [("refused", None)]


def test_a_line_of_a_kind_this_version_does_not_know_is_left_alone(path):
    run = Booked(path)
    run.journal.append("weather", {"sky": "blue"})
    run.answer("k1")
    run.end()
    assert value(path, "select count(*) from attempts") == 1
    assert "weather" not in _BOOKERS


def test_runs_and_plans_are_numbered_and_a_plan_goes_on_until_its_fingerprint_changes(path):
    seen = []
    for fingerprint, job in [("f1", "j"), ("f1", "j"), ("f2", "j"), ("f1", "other"), ("f2", "j"), ("f1", "j")]:
        run = Booked(path, job, fingerprint=fingerprint)
        seen.append((run.run_id, run.plan_id, run.start.plan.new))
        run.end()
    assert seen == [(1, 1, True), (2, 1, False), (3, 2, True), (4, 3, True), (5, 2, False), (6, 4, True)]


def test_a_plan_knows_how_far_its_rows_are_stored_and_what_was_spent(path):
    first = Booked(path)
    first.answer("k0")
    first.attempt("k1", result="unavailable", cost=None, output=None)
    first.sent("k2")
    first.rows("k0", "k1", "k2")
    first.die()
    plan = Booked(path).start.plan
    assert (plan.rows_stored, plan.complete, plan.unknown) == (3, False, 0)
    assert plan.spent_usd == COST + WORST + WORST, "unknown costs count at their worst case"


def test_a_cost_that_no_column_holds_is_unknown_and_beyond_its_bound(path):
    first = Booked(path)
    first.answer("k0", cost=Decimal(2_000_000))
    first.answer("k1")
    first.end()
    plan = Booked(path).start.plan
    assert (plan.spent_usd, plan.unknown) == (COST, 1)


def test_an_attempt_without_any_bound_is_counted_as_unknown(path):
    first = Booked(path, price=None)
    first.attempt("k0", cost=None, worst=None)
    first.end()
    assert Booked(path, price=None).start.plan.unknown == 1


# -- rules 5 to 8: each line once -------------------------------------------------------------------


def test_the_journal_is_loaded_to_its_last_byte_and_closed(path):
    run = Booked(path)
    run.answer("k1")
    run.load()
    assert outside(path, "select journal_offset, lines, closed, run_id from journal_state") == [
        (run.journal.size, 6, False, 1)
    ]  # fmt: skip
    run.end()
    ask(path, "select 1")
    state = outside(path, "select file, uuid, journal_offset, lines, damaged, closed from journal_state")
    assert state == [(run.path.name, run.journal.uuid, run.path.stat().st_size, 7, 0, True)]


def test_a_loader_that_read_from_where_the_ledger_no_longer_is_changes_nothing(path):
    run = Booked(path)
    run.answer("k1")
    stale, burst = run.state, run.burst()
    run.load()
    with _connect.writing(path) as connection, pytest.raises(loading.Contended):
        loading.load_piece(connection, run.path, stale, burst.piece, last=False)
    assert outside(path, "select count(*), (select lines from journal_state) from attempts") == [(1, 6)]


def test_a_burst_that_is_repeated_loads_nothing_twice(path):
    run = Booked(path)
    run.answer("k1")
    record = {"run_id": 1, "plan_id": 1, "rows": 2, "requests": 2, "input_tokens": 9, "count_method": "exact"}
    burst = run.burst([(1, 0, "a", "k1", False), (1, 1, "b", "k2", False)], (1, 2), record)
    for _ in range(3):
        state = run.ledger.burst(run.path, run.state, burst, patience=20)
    assert state.offset == run.journal.size
    for table, count in {"attempts": 1, "answers": 1, "outcomes": 1, "rows": 2, "estimates": 1, "plans": 1}.items():
        assert value(path, f"select count(*) from {table}") == count, table


def test_a_burst_of_rows_alone_that_is_repeated_loads_nothing_twice(path):
    run = Booked(path)
    rows = [(1, n, f"r{n}", f"k{n}", False) for n in range(5)]
    run.ledger.burst(run.path, run.state, run.burst(rows[:3]), patience=20)
    run.ledger.burst(run.path, run.state, run.burst(rows), patience=20)
    assert ask(path, "select row_index from rows order by 1") == [(n,) for n in range(5)]


def test_a_larger_burst_after_one_that_was_thought_to_have_failed_loads_only_the_rest(path):
    run = Booked(path)
    run.answer("k1")
    run.ledger.burst(run.path, run.state, run.burst(), patience=20)  # and the loader never heard
    run.answer("k2")
    run.load()
    run.end()
    assert each_line_once(path)
    assert value(path, "select lines from journal_state") == 10


def test_a_loader_goes_on_when_duckdb_fails_behind_a_commit(path):
    """Disk full: "COMMIT succeeded and is durable, but the autocheckpoint failed"."""

    class FailsBehindTheCommit(Ledger):
        failures = 1

        def burst(self, *arguments, **more):
            state = super().burst(*arguments, **more)
            if self.failures:
                self.failures -= 1
                raise LedgerError("COMMIT succeeded and is durable, but the autocheckpoint failed")
            return state

    run = Booked(path)
    loader = Loader(FailsBehindTheCommit(path), run.journal)
    run.answer("k1")
    loader.add_rows([(1, 0, "a", "k1", False)])
    loader._one_burst(patience=5)
    assert (loader.problem, loader._state.offset, len(loader._rows)) == (None, run.journal.size, 0)
    run.answer("k2")
    loader.add_rows([(1, 1, "b", "k2", False)])
    loader.planned(1, 2)
    assert loader.finish() is None
    assert each_line_once(path)
    assert ask(path, "select row_index, status from results order by 1") == [(0, "ok"), (1, "ok")]


AUTOCHECKPOINT = """
import os, resource, signal, sys
from bookings import Booked
from pipeline.errors import LedgerError
from pipeline.ledger import loading
from pipeline.runners._loader import Loader
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]
run = Booked(path)
run.rows(*(f"{n:032x}{n * 7919:032x}" for n in range(8000)))
loading.CHECKPOINT_THRESHOLD = "1KB"
loader = Loader(run.ledger, run.journal)
loader._state = run.state
seen = []
real = run.ledger.burst
def burst(*arguments, **more):
    try:
        return real(*arguments, **more)
    except LedgerError as error:
        seen.append(str(error))
        raise
    finally:  # somebody makes room
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.ledger.burst = burst
run.answer("k1")
loader.add_rows([(1, 8000, "last", "k1", False)])
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path), resource.RLIM_INFINITY))
loader._one_burst(patience=5)
assert len(seen) == 1 and "COMMIT succeeded" in seen[0], seen
run.answer("k2")
print(loader.finish(), flush=True)
"""


def test_a_line_that_does_not_say_what_it_is_is_left_to_a_later_version(path):
    run = Booked(path)
    run.answer("v1a")
    run.die()
    with run.path.open("ab") as file:
        file.write(journal.encode_line({"something": "new"}))
    assert value(path, "select count(*) from answers") == 1


def test_on_a_full_disk_nothing_is_loaded_twice_and_the_run_goes_on(path):
    assert finished(child(AUTOCHECKPOINT, path)) == (0, "None\n")
    assert each_line_once(path)
    assert ask(path, "select count(*), count(distinct row_index), count(output) from results") == [(8001, 8001, 1)]


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from pipeline.errors import LedgerError
from pipeline.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with Ledger(Path(sys.argv[1])).read():
        pass
except LedgerError as error:
    print("too large" in str(error), flush=True)
"""


def test_catching_up_on_a_full_disk_is_an_error_and_not_an_endless_loop(path):
    run = Booked(path)
    for n in range(3000):
        run.answer(f"k{n}")
    run.die()
    assert finished(child(NO_ROOM, path, 100_000)) == (0, "True\n")
    assert value(path, "select count(*) from attempts") == 3000
    assert each_line_once(path)


def test_a_line_that_can_not_be_booked_is_an_error_and_not_an_endless_loop(path):
    run = Booked(path)
    run.journal.append("outcome", {"key": None, "status": "ok", "attempts": 1, "at": 0})
    run.die()
    with pytest.raises(LedgerError, match="NOT NULL"):
        ask(path, "select 1")


def test_a_run_whose_ledger_was_taken_away_is_told_and_no_empty_file_is_made(path):
    run = Booked(path)
    run.answer("k1")
    path.unlink()
    with pytest.raises(LedgerError, match=r"work\.duckdb is gone"):
        run.load()
    assert not path.exists()
    run.end()
    assert value(path, "select count(*) from attempts") == 1


def test_a_run_whose_ledger_was_put_back_to_an_older_copy_is_told(path, tmp_path):
    run = Booked(path)
    shutil.copy(path, tmp_path / "copy")
    run.answer("k1")
    run.load([(1, 0, "a", "k1", False)])
    shutil.copy(tmp_path / "copy", path)
    run.answer("k2")
    with pytest.raises(LedgerError, match="lost what this run had loaded"):
        run.load([(1, 1, "b", "k2", False)])
    run.end()
    assert each_line_once(path)
    assert Booked(path).start.plan.rows_stored == 0, "the list of rows has no gap"


@pytest.mark.parametrize(
    ("result", "output", "repairs", "expected"),
    [
        ("ok", "{}", 1, ("ok", 2)),
        ("truncated", "cut", 1, ("invalid", 1)),
        ("refused", "no", 1, ("invalid", 1)),
        ("invalid", "another", 1, ("invalid", 2)),
        ("invalid", " ", 1, ("invalid", 1)),
        ("invalid", "another", 0, None),
    ],
)
def test_an_outcome_that_a_kill_took_is_the_one_that_the_run_had_found(result, output, repairs, expected):
    run = RunFacts(1, "stub", "m", "realtime", None, 100, repair=1)
    line = {"key": "k", "attempt": 2, "result": result, "output": output, "sent_at": 0.0, "repairs": repairs,
            "repaired_attempt": 1}  # fmt: skip
    found = missing_outcome(run, line)
    assert expected == (None if found is None else (found[2], found[5]))


# -- how a run is registered ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100_000, 6_000_000])
@pytest.mark.parametrize("header", ["sound", "damaged"])
def test_a_run_may_have_a_job_file_of_any_length(path, size, header):
    run = Booked(path, config={"prompt": {"system": "x" * size}})
    run.answer("k1")
    run.load()
    run.answer("k2")
    run.sent("k3")
    run.die()
    if header == "damaged":
        flip(run.path, 20)
    assert ask(path, "select key, result from attempts order by 1") == [("k1", "ok"), ("k2", "ok"), ("k3", "lost")]
    assert value(path, "select length(config->>'$.prompt.system') from runs") == size
    path.unlink()
    assert value(path, "select count(*) from attempts where provider = 'stub'") == 3
    assert Booked(path).run_id == 2
    assert each_line_once(path)


def test_a_run_that_can_not_be_registered_leaves_no_journal_and_keeps_no_later_run_out(path, monkeypatch):
    Booked(path).end()
    before = journal.files_in(Ledger(path).folder)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "run_facts", lambda _: None)
        with pytest.raises(LedgerError, match="which run wrote it is damaged"):
            Booked(path)
    assert journal.files_in(Ledger(path).folder) == before
    assert list(Ledger(path).folder.glob("*.reserve")) == []
    assert Booked(path).run_id == 2


def test_the_journal_of_a_run_that_the_ledger_knows_stays_whatever_failed_behind_the_commit(path, monkeypatch):
    real = loading.load_piece

    def fails_behind_the_commit(*arguments, **more):
        real(*arguments, **more)
        raise LedgerError("COMMIT succeeded and is durable, but the autocheckpoint failed")

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load_piece", fails_behind_the_commit)
        with pytest.raises(LedgerError, match="COMMIT succeeded"):
            Booked(path)
    assert len(journal.files_in(Ledger(path).folder)) == 1
    assert Booked(path).run_id == 2, "no journal is missing"


# -- what a run's loader promises -------------------------------------------------------------------

ESTIMATE = {
    "run_id": 1, "plan_id": 1, "rows": 2, "requests": 2, "input_tokens": 1, "count_method": "exact",
}  # fmt: skip


def test_finish_loads_everything_closes_the_journal_and_books_what_was_lost(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    loader.start()
    run.answer("k1")
    run.sent("k2")
    loader.add_rows([(1, 0, "a", "k1", False), (1, 1, "b", "k2", False)])
    loader.planned(1, 2)
    loader.stop()
    run.journal.append("end", {"exit_code": 4, "reason": "stopped", "at": 0})
    assert loader.finish() is None
    assert loader.broken is None
    assert not journal.is_alive(run.path)
    assert outside(path, "select closed from journal_state") == [(True,)]
    assert outside(path, "select key, result from attempts order by key") == [("k1", "ok"), ("k2", "lost")]
    assert outside(path, "select complete, rows from plans") == [(True, 2)]


def test_the_end_of_a_plan_is_never_booked_without_all_its_rows(path):
    """`planned` comes between any two steps of a burst; whatever is loaded first, rows come first."""
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)

    class Rows(Backlog):
        def first(self):
            if loader._plan_end is None and len(self) == 1:
                self.add([(1, 1, "b", "k2", False)])
                loader.planned(1, 2)
                loader.estimated(ESTIMATE)
            return super().first()

    loader._rows = Rows(path.parent)
    loader.add_rows([(1, 0, "a", "k1", False)])
    loader._load(5)
    assert outside(path, "select count(*), (select count(*) from plan_ends) from rows") == [(2, 0)]
    loader._drain(5)
    assert outside(path, "select count(*), (select count(*) from plan_ends) from rows") == [(2, 1)]
    assert outside(path, "select count(*) from estimates") == [(1,)]


def test_an_estimate_is_booked_once_and_needs_no_end_of_the_plan(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    for requests in (2, 3):
        loader.estimated(ESTIMATE | {"requests": requests})
        loader._load(5)
    assert outside(path, "select requests from estimates") == [(2,)]
    assert outside(path, "select complete from plans") == [(False,)]


def test_rows_may_be_planned_while_a_burst_gathers_them(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)

    def plan():
        for number in range(20_000):
            loader.add_rows([(1, number, str(number), f"k{number}", False)])

    planner = threading.Thread(target=plan)
    planner.start()
    while planner.is_alive():
        loader._load(5)
    loader._drain(5)
    assert outside(path, "select count(*), count(distinct row_index) from rows") == [(20_000, 20_000)]


# -- what a kill leaves -----------------------------------------------------------------------------


KILLED = """
import sys
from bookings import Booked
run = Booked(sys.argv[1])
run.rows(*(f"k{n}" for n in range(60)))
for n in range(50):
    run.answer(f"k{n}")
    if n == 20:
        run.load()
run.sent("k50")
run.attempt("k51", result="unavailable", cost=None, output=None)
run.sent("k51", 2)
print("ready", flush=True)
sys.stdin.read()
"""


def test_after_a_kill_every_received_answer_is_there_and_what_was_on_its_way_is_listed_as_lost(path):
    started = child(KILLED, path)
    hears(started, "ready")
    kill(started)
    assert each_line_once(path)
    assert value(path, "select count(*) from results where status = 'ok'") == 50
    assert ask(path, "select key, attempt, result, cost_usd, reserved_usd, error_type from attempts"
                     " where result = 'lost' order by key") == [
        ("k50", 1, "lost", None, WORST, "lost"),
        ("k51", 2, "lost", None, WORST, "lost"),
    ]  # fmt: skip
    assert ask(path, "select key, status from results where key >= 'k50' order by key limit 2") == [
        ("k50", "pending"), ("k51", "pending"),
    ]  # fmt: skip
    assert value(path, "select exit_code from runs") is None
    again = Booked(path)
    assert again.start.plan.spent_usd == 50 * COST + 3 * WORST
    assert len(again.start.known.own) == 50


def test_what_was_lost_is_listed_once_however_often_the_ledger_is_read(path):
    run = Booked(path)
    run.sent("k1")
    run.die()
    for _ in range(3):
        assert ask(path, "select count(*), sum(reserved_usd) from attempts where result = 'lost'") == [(1, WORST)]


def test_a_run_in_progress_is_left_to_load_itself_and_nothing_of_it_is_called_lost(path):
    run = Booked(path)
    run.sent("k1")
    run.answer("k2")
    assert value(path, "select count(*) from attempts") == 0
    run.load()
    assert ask(path, "select key, result from attempts") == [("k2", "ok")]
    run.end()


def test_an_attempt_line_that_is_damaged_becomes_a_lost_attempt(path):
    run = Booked(path)
    run.answer("k1")
    run.answer("k2")
    run.end()
    at, length = line_of(run.path, "attempt", "k1")
    flip(run.path, at + 40)
    assert ask(path, "select key, result, cost_usd, reserved_usd from attempts order by key") == [
        ("k1", "lost", None, WORST), ("k2", "ok", COST, WORST),
    ]  # fmt: skip
    assert ask(path, "select journal_offset, length, torn from journal_damage") == [(at, length, False)]
    assert value(path, "select damaged from journal_state") == 1


def test_a_torn_tail_is_listed_and_everything_before_it_is_loaded(path):
    run = Booked(path)
    run.answer("k1")
    run.die()
    size = run.path.stat().st_size
    with run.path.open("ab") as file:
        file.write(b'0badc0de {"type":"attempt","key":"k2"')
    assert value(path, "select count(*) from attempts") == 1
    assert ask(path, "select journal_offset, length, torn from journal_damage") == [(size, 37, True)]


@pytest.mark.parametrize("gone", ["the ledger's knowledge of the run", "only the line"])
def test_a_damaged_run_line_never_makes_answers_vanish(path, gone):
    run = Booked(path)
    run.answer("k1")
    run.end()
    lines = list(read_all(run.path, dead=True))
    flip(run.path, lines[1].offset + 30)
    if gone == "only the line":
        assert ask(path, "select run_id, provider, model, lane, price_id from attempts") == [
            (1, "stub", "m", "realtime", "p1")
        ]
        return
    path.unlink()
    said = []
    with Ledger(path, said.append).read() as connection:
        assert connection.execute("select count(*) from attempts").fetchall() == [(0,)]
    assert len(said) == 1
    with pytest.raises(LedgerError, match="which run wrote it is damaged") as refused:
        Booked(path)
    assert said == [str(refused.value)], "readers are told, a run that would pay again is refused"


def test_importing_the_errors_and_the_journal_does_not_import_duckdb():
    code = "import sys, pipeline.journal, pipeline.errors; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_burst_is_what_was_read_before_the_file_was_opened(path):
    run = Booked(path)
    run.answer("k1")
    burst = run.burst()
    run.answer("k2")
    run.ledger.burst(run.path, run.state, Burst(burst.piece, []), patience=5)
    assert value(path, "select count(*) from attempts") == 1


def test_a_burst_is_due_early_when_much_waits(path, monkeypatch):
    monkeypatch.setattr("pipeline.runners._loader.BURST_SECONDS", 1e6)
    monkeypatch.setattr("pipeline.runners._loader.DUE_BYTES", 200)
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    loader.start()
    try:
        for key in ("k1", "k2"):  # three lines each
            run.answer(key)
        loaded = any(value(path, "select count(*) from answers") for _ in range(500))
    finally:
        loader.stop()
        loader.finish()
    assert loaded, "by the clock the first burst was days away"
