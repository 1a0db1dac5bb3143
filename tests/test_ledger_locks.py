"""Sharing the file: rules 5 and 9 to 13 of docs/journal.md, and the job's lock; with real processes that get killed.

Nothing here measures time: of rule 11 the gate's mechanism is tested, not how long anybody waits.
"""

import errno
import fcntl
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import duckdb
import pytest
from bookings import COST, WORST, Booked, ask, child, each_line_once, finished, hears, kill, request, value
from project import Project, texts
from stub import StubServer

from pipeline import api, journal
from pipeline.errors import LedgerBusy, LedgerError, UsageError
from pipeline.ledger import Ledger, _connect, _journals, store
from pipeline.runners import _backlog, _loader
from pipeline.runners._loader import Loader
from pipeline.runners.job_lock import asked_to_stop, job_lock, live_runs

HOLDER = """
import sys
import duckdb
with duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading"):
    print("holding", flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


@contextmanager
def held(path, mode):
    """Another process has the ledger open until the block ends; yields it."""
    holder = child(HOLDER, path, mode)
    hears(holder, "holding")
    try:
        yield holder
    finally:
        holder.communicate("go\n", timeout=60)


def leave(holder):
    holder.stdin.write("go\n")
    holder.stdin.flush()


# -- a run's bursts share an engine -----------------------------------------------------------------


def test_between_two_bursts_a_run_has_nothing_open(path):
    run = Booked(path)
    for n in range(3):
        run.answer(f"k{n}")
        run.load()
        with held(path, "writing"):
            pass
    run.end()
    assert each_line_once(path)


def test_a_burst_that_failed_leaves_nothing_open_and_the_next_one_goes_on(path):
    run = Booked(path)
    run.answer("k1")
    run.load()

    def fails(_):
        run.answer("k3")
        raise OSError("the journal can't be read")

    run.answer("k2")
    with pytest.raises(OSError, match="can't be read"):
        run.ledger.burst(run.path, run.state, run.burst(), patience=0, more=fails)
    with held(path, "writing"):
        pass
    run.load()
    assert run.state.offset == run.journal.size
    run.end()
    assert each_line_once(path)


# -- rule 5: many loaders ---------------------------------------------------------------------------


CATCHES_UP = """
import sys
from bookings import value
print("ready", flush=True)
sys.stdin.readline()
print(value(sys.argv[1], "select count(*) from attempts"), flush=True)
"""


def test_processes_that_catch_up_at_once_load_each_line_once(path):
    for n in range(4):
        run = Booked(path)
        for key in range(200):
            run.answer(f"k{key}")
        run.sent("lost")
        if n % 2:
            run.load()
        run.die()
    loaders = [child(CATCHES_UP, path) for _ in range(3)]
    for loader in loaders:
        hears(loader, "ready")
    for loader in loaders:
        leave(loader)
    assert [finished(loader) for loader in loaders] == [(0, "804\n")] * 3
    assert each_line_once(path)
    assert ask(path, "select count(*), count(distinct run_id) from attempts where result = 'lost'") == [(4, 4)]
    assert ask(path, "select bool_and(closed), sum(lines) from journal_state") == [(True, 4 * (3 + 600 + 1))]


def test_threads_of_one_process_share_the_file_without_a_mode_conflict(path):
    run = Booked(path)

    def read(_):
        return value(path, "select count(*) from attempts")

    with ThreadPoolExecutor(4) as pool:
        reads = pool.map(read, range(8))
        for n in range(4):
            run.answer(f"k{n}")
            run.load()
        seen = list(reads)
    assert set(seen) <= set(range(5))
    run.end()
    assert each_line_once(path)


RUNS = """
import sys
from bookings import Booked
print("ready", flush=True)
sys.stdin.readline()
run = Booked(sys.argv[1], sys.argv[2])
for n in range(5):
    for key in range(20):
        run.answer(f"{sys.argv[2]}-{n}-{key}")
    run.load()
run.rows(*(f"{sys.argv[2]}-0-{key}" for key in range(20)))
run.end()
"""


def test_jobs_that_run_at_once_get_numbers_of_their_own_and_lose_nothing(path):
    runs = [child(RUNS, path, job) for job in "ab"]
    for run in runs:
        hears(run, "ready")
    for run in runs:
        leave(run)
    assert [finished(run) for run in runs] == [(0, "")] * 2
    assert each_line_once(path)
    assert ask(path, "select count(distinct run_id), count(distinct plan_id), count(distinct job) from runs") == [
        (2, 2, 2)
    ]  # fmt: skip
    assert ask(path, "select job, count(*) from results where status = 'ok' group by 1 order by 1") == [
        ("a", 20), ("b", 20),
    ]  # fmt: skip


# -- rules 8, 9 and 12: the lock --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reading", "writing"])
def test_a_writer_waits_for_whoever_holds_the_file_and_then_gets_through(path, mode):
    run = Booked(path)
    run.answer("k1")
    with held(path, mode) as holder:
        with pytest.raises(LedgerBusy, match=rf"is open in process {holder.pid}; close it there"):
            run.ledger.burst(run.path, run.state, run.burst(), patience=0)
        loading_thread = threading.Thread(target=run.load)
        loading_thread.start()
        leave(holder)
        hears(holder, "left")
        loading_thread.join()
    assert run.state.offset == run.journal.size
    run.end()
    assert each_line_once(path)


def test_a_reader_waits_for_a_writer_says_who_it_is_and_gives_up_in_the_end(path, monkeypatch):
    Booked(path).end()
    assert value(path, "select count(*) from runs") == 1
    said = []
    monkeypatch.setattr(_connect, "_TELL_AFTER", 0.0)
    with held(path, "writing") as holder:
        with (
            pytest.raises(LedgerBusy, match=f"process {holder.pid}"),
            _connect.reading(path, patience=0.1, waiting=said.append),
        ):
            pass
        assert len(said) == 1, "said once, not at every try"
        assert said[0] == f"waiting up to 0.1 s: the ledger {path} is open in process {holder.pid}"
    with _connect.reading(path, patience=0.0) as connection:
        assert connection.execute("select count(*) from runs").fetchall() == [(1,)]


def test_readers_do_not_keep_each_other_waiting(path):
    Booked(path).end()
    ask(path, "select 1")
    with held(path, "reading"), _connect.reading(path, patience=0.0) as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]


def test_a_run_that_looks_up_what_is_answered_keeps_no_reader_out(path, monkeypatch):
    run = Booked(path)
    run.answer("k1")
    run.end()
    look, seen = store.known_keys, []

    def look_while_others_read(*args, **how):
        with held(path, "reading"):
            seen.append("a reader")
        return look(*args, **how)

    monkeypatch.setattr(store, "known_keys", look_while_others_read)
    started = Ledger(path).begin(request())
    started.journal.close()
    assert seen == ["a reader"]
    assert started.known.own == {"k1": ("ok", 100)}


@pytest.mark.parametrize("loaded_by", ["the run itself", "somebody else"])
def test_a_run_that_looked_while_the_last_one_was_about_to_die_looks_again(path, monkeypatch, loaded_by):
    """A killed process gives back the job's lock and its journal's one after the other."""
    last = Booked(path)
    last.answer("k1")
    look, looks = store.known_keys, []

    def look_while_it_dies(*args, **how):
        found = look(*args, **how)
        if not looks:
            last.die()
        looks.append(found)
        return found

    if loaded_by == "somebody else":
        writing = _connect.writing

        @contextmanager
        def writing_after_somebody_else(*args, **how):
            if len(looks) == 1:
                finished(child("import sys; from bookings import ask; ask(sys.argv[1], 'select 1')", path))
            with writing(*args, **how) as connection:
                yield connection

        monkeypatch.setattr(_connect, "writing", writing_after_somebody_else)
    monkeypatch.setattr(store, "known_keys", look_while_it_dies)
    assert Booked(path).start.known.own == {"k1": ("ok", 100)}
    assert len(looks) == 2


def test_a_run_of_a_caught_up_ledger_opens_it_twice(path, monkeypatch):
    Booked(path).end()
    ask(path, "select 1")
    real, opened = _connect.Engine.attach, []

    def attach_and_count(engine, where, *, read_only):
        opened.append(read_only)
        return real(engine, where, read_only=read_only)

    monkeypatch.setattr(_connect.Engine, "attach", attach_and_count)
    Booked(path)
    assert opened == [True, False]


def test_whoever_opens_a_ledger_often_makes_one_engine_and_readers_bound_its_memory_for_themselves(path, monkeypatch):
    Booked(path).end()
    real, made = duckdb.connect, []

    def connect_and_count(*args, **how):
        made.append(args)
        return real(*args, **how)

    monkeypatch.setattr(duckdb, "connect", connect_and_count)
    engine, said = _connect.Engine(), "select current_setting('memory_limit')"
    limits = []
    for opens in (_connect.reading, _connect.writing, _connect.reading):
        with opens(path, engine=engine) as connection:
            limits.append(connection.execute(said).fetchone())
    assert made == [()]
    assert limits[0] == limits[2] == ("1.8 GiB",)
    assert limits[1] != limits[0]


def test_a_session_leaves_nothing_to_the_next(path):
    Booked(path).end()
    engine = _connect.Engine()
    asked = "select current_setting('memory_limit'), current_setting('preserve_insertion_order'), getvariable('v')"
    with _connect.writing(path, engine=engine) as connection:
        before = connection.execute(asked).fetchone()
    with _connect.reading(path, engine=engine) as connection:
        connection.execute("create temp table t as select 1")
        connection.execute("set preserve_insertion_order = false; set variable v = 'x'; begin")
        connection.execute("select * from range(10)").fetchone()
    with _connect.writing(path, engine=engine) as connection:
        assert connection.execute(asked).fetchone() == before
        assert connection.execute("select count(*) from duckdb_tables() where temporary").fetchone() == (0,)
        connection.begin()
        connection.commit()


def test_an_engine_in_which_anything_failed_is_not_used_again(path):
    Booked(path).end()
    engine = _connect.Engine()
    for opens in (_connect.reading, _connect.writing):
        with pytest.raises(ZeroDivisionError), opens(path, engine=engine) as broken:
            1 / 0  # noqa: B018 -- the error is what it is for
        with opens(path, engine=engine) as connection:
            assert connection is not broken
            assert connection.execute("select count(*) from runs").fetchall() == [(1,)]


def test_the_lock_of_a_killed_process_is_gone_with_it(path):
    Booked(path).end()
    holder = child(HOLDER, path, "writing")
    hears(holder, "holding")
    kill(holder)
    with _connect.writing(path, patience=0.0) as connection:
        assert connection.execute("select count(*) from runs").fetchall() == [(1,)]


OPENS = """
import sys, duckdb
try:
    duckdb.connect(sys.argv[1])
except duckdb.IOException as error:
    print("Could not set lock on file" in str(error))
"""


def test_nothing_that_the_ledger_does_beside_an_open_connection_drops_its_lock(path):
    """Any other open and close of the file in this process would, and a second writer could then come in."""
    run = Booked(path)
    run.answer("k1")
    with _connect.writing(path) as connection:
        assert run.ledger.exists()
        run.ledger._check_writable()
        _journals.behind(_journals.states(connection), run.ledger.folder)
        with job_lock(run.ledger.folder, "j", "account"):
            live_runs(run.ledger.folder)
        assert finished(child(OPENS, path)) == (0, "True\n")


@pytest.mark.parametrize("opened", [_connect.reading, _connect.writing])
def test_duckdb_draws_no_progress_bar_into_the_results(path, opened):
    Booked(path).die()
    with opened(path) as connection:
        asked = "select value from duckdb_settings() where name = 'enable_progress_bar'"
        assert connection.sql(asked).fetchall() == [("false",)]


@pytest.mark.parametrize("name", ["temp", "system", "memory", "main", "o'neil", 'a"b', "select", "x y"])
def test_a_ledger_may_have_any_name(tmp_path, name):
    path = tmp_path / f"{name}.duckdb"
    run = Booked(path)
    run.answer("k1")
    run.end()
    assert value(path, "select count(*) from attempts where result = 'ok'") == 1


def test_a_locked_ledger_never_fails_a_run(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    loader.add_rows([(1, 0, "a", "k1", False)])
    with held(path, "reading") as holder:
        loader._one_burst(patience=0)
        assert f"process {holder.pid}" in loader.problem
        assert loader.broken is None
    loader._one_burst(patience=20)
    assert loader.problem is None
    assert loader._state.offset == run.journal.size
    run.end()
    assert each_line_once(path)
    assert value(path, "select status from results") == "ok"


def test_what_duckdb_makes_of_ctrl_c_is_ctrl_c_again(path):
    Booked(path).die()
    with pytest.raises(KeyboardInterrupt), _connect.reading(path):
        raise RuntimeError("Query interrupted")  # in a long query, where DuckDB looks for signals now and then
    with pytest.raises(KeyboardInterrupt), _connect.reading(path, engine=Interrupted()):
        raise AssertionError


class Interrupted(_connect.Engine):
    """Hears Ctrl-C while it opens the file."""

    def attach(self, path, *, read_only):
        raise RuntimeError("Query interrupted")


def test_whoever_waits_for_a_locked_ledger_can_be_hurried(path, monkeypatch):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    real = time.sleep

    def waits(seconds):
        loader.hurry()
        real(seconds)

    monkeypatch.setattr(time, "sleep", waits)
    with held(path, "writing"):
        assert loader.finish(patience=3600).startswith("1 attempts are safe in the journal")
    assert value(path, "select status from outcomes") == "ok"


HOLDS_SOON = """
import sys, time
import duckdb
while True:
    try:
        connection = duckdb.connect(sys.argv[1], read_only=True)
        break
    except duckdb.IOException:
        time.sleep(0.01)
print("holding", flush=True)
sys.stdin.readline()
connection.close()
"""


def test_a_notebook_that_keeps_the_ledger_open_keeps_no_row_from_being_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(_backlog, "MOST_ROWS", 10)
    monkeypatch.setattr(_backlog, "PIECE_ROWS", 10)
    rows, sent_meanwhile, notebook = 1500, [], []

    def read_for_long(_):
        """With the first request a notebook opens the ledger, and leaves when all rows have been sent."""
        if not notebook:
            notebook.append(child(HOLDS_SOON, tmp_path / "promptmill.duckdb"))
            hears(notebook[0], "holding")
            threading.Thread(target=leave_when_all_are_answered).start()
        return "answer"

    def leave_when_all_are_answered():
        with suppress(TimeoutError):  # the stub's patience: then the rows' number tells
            stub.wait_until(lambda: stub.calls >= rows, "all rows")
        sent_meanwhile.append(stub.calls)
        notebook[0].communicate("go\n")

    with StubServer() as stub:
        stub.answer = read_for_long
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(rows))
        project.job()
        project.run("run", "job.toml", "--yes")
    assert sent_meanwhile == [rows]
    assert project.sql("select count(*) as n, count(distinct row_id) as ids from results where status = 'ok'") == [
        {"n": rows, "ids": rows}
    ]
    assert project.value("select complete and rows = 1500 from plans")


def test_rows_that_wait_for_a_locked_ledger_are_loaded_in_order_when_it_is_free(path, monkeypatch):
    monkeypatch.setattr(_backlog, "MOST_ROWS", 7)
    monkeypatch.setattr(_backlog, "PIECE_ROWS", 3)
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    rows = [(run.plan_id, n, f"r{n}", f"k{n}", False) for n in range(100)]
    with held(path, "reading"):
        for row in rows[:50]:
            loader.add_rows([row])
            loader._one_burst(patience=0)
        assert loader.problem is not None
    loader._one_burst(patience=20)
    assert ask(path, "select count(*), max(row_index) from rows") == [(7, 6)]
    with held(path, "reading"):
        for row in rows[50:]:
            loader.add_rows([row])
        loader.planned(run.plan_id, 100)
    assert loader.finish() is None
    assert ask(path, "select * from rows order by row_index") == rows
    assert ask(path, "select complete, rows from plans") == [(True, 100)]


def test_a_busy_ledger_makes_nobody_read_the_whole_journal_again_for_its_loose_ends(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.sent("k1")
    run.sent("lost")
    with held(path, "reading"):
        for key in ("k2", "k3"):
            run.answer(key)
            loader._one_burst(patience=0)
            assert loader.problem is not None
    run.attempt("k1", 2)
    loader._one_burst(patience=20)
    assert loader._ends.offset == loader._state.offset == run.journal.size
    run.attempt("lost", 2)
    assert loader.finish() is None
    assert ask(path, "select key, attempt from attempts where result = 'lost' order by 1") == [("k1", 1), ("lost", 1)]
    assert ask(path, "select key, status from outcomes order by 1") == [
        ("k1", "ok"), ("k2", "ok"), ("k3", "ok"), ("lost", "ok"),
    ]  # fmt: skip
    assert each_line_once(path)


def test_what_a_dead_journal_leaves_open_is_looked_for_before_the_ledger_is_opened_for_writing(path, monkeypatch):
    run = Booked(path)
    run.sent("lost")
    for n in range(50):
        run.answer(f"k{n}")
    run.load()
    loaded = run.state.offset
    run.answer("k50")
    run.die()
    writing, read, open_for_writing, read_meanwhile = _connect.writing, journal.read, [], []

    @contextmanager
    def watched_writing(*args, **how):
        with writing(*args, **how) as connection:
            open_for_writing.append(True)
            yield connection
            open_for_writing.clear()

    def watched_read(file, offset=0, *, limit=journal.PIECE_BYTES, **how):
        if open_for_writing and limit == journal.PIECE_BYTES:
            read_meanwhile.append(offset)
        return read(file, offset, limit=limit, **how)

    monkeypatch.setattr(_connect, "writing", watched_writing)
    monkeypatch.setattr(journal, "read", watched_read)
    assert value(path, "select count(*) from attempts") == 52
    assert value(path, "select key from attempts where result = 'lost'") == "lost"
    assert read_meanwhile
    assert min(read_meanwhile) == loaded


def test_what_could_not_be_loaded_at_the_end_is_said_and_loaded_by_the_next_command(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    run.sent("k2")
    loader.add_rows([(1, 0, "a", "k1", False)])
    with held(path, "writing") as holder:
        left_over = loader.finish(patience=0)
        assert left_over.startswith("1 attempts are safe in the journal")
        assert "run the same command again" in left_over
        assert f"process {holder.pid}" in left_over
        assert str(run.path) in left_over
    assert not journal.is_alive(run.path)
    assert ask(path, "select key, result from attempts order by 1") == [("k1", "ok"), ("k2", "lost")]
    assert Booked(path).start.plan.rows_stored == 0, "the run command completes the list of rows"


def test_an_estimate_that_could_not_be_booked_at_the_end_is_said(path):
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    loader.estimated({"run_id": 1, "plan_id": 1, "rows": 1, "requests": 1, "input_tokens": 1, "count_method": "exact"})
    with held(path, "writing") as holder:
        left_over = loader.finish(patience=0)
    assert left_over.startswith("The estimate of this run is not in the ledger: ")
    assert f"process {holder.pid}" in left_over


# -- rule 11: the gate ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waited", "shut"), [(0, False), (1.99, False), (2.0, True), (2.99, True), (3.0, False), (4.99, False), (5.5, True)]
)
def test_a_loader_leaves_the_gate_open_for_two_seconds_and_shuts_it_for_one(path, waited, shut):
    with _connect._Gate(path) as loader, _connect._Gate(path) as reader:
        loader.shut_or_open(waited, reader=False)
        if shut:
            with pytest.raises(LedgerBusy, match="a run is waiting to write"):
                reader.shut_or_open(0, reader=True)
        else:
            reader.shut_or_open(0, reader=True)


def test_a_shut_gate_opens_again_when_the_loader_is_through_or_gone(path):
    with _connect._Gate(path) as reader:
        with _connect._Gate(path) as loader:
            loader.shut()
            loader.shut_or_open(0.5, reader=False)
            reader.shut_or_open(0, reader=True)
            reader.open()
            loader.shut()
        reader.shut_or_open(0, reader=True)


def test_readers_pass_the_gate_together_and_hold_it_only_while_opening(path):
    Booked(path).end()
    with _connect.reading(path), _connect._Gate(path) as loader:
        loader.shut()  # would wait for ever if the reader held it


def test_a_process_that_was_stopped_while_it_passed_the_gate_holds_nobody_up_for_ever(path):
    run = Booked(path)
    run.answer("k1")
    with _connect._Gate(path) as stopped:
        stopped.shut_or_open(0, reader=True)
        with _connect._Gate(path) as loader, pytest.raises(LedgerBusy, match=r"one was stopped \(Ctrl-Z\)"):
            loader.shut_or_open(2.5, reader=False)
        run.load()  # and while the gate is open nobody asks for it
    run.end()
    assert each_line_once(path)


def test_a_damaged_log_behind_a_gate_that_is_held_is_left_alone_until_patience_ends(path, monkeypatch):
    Booked(path).end()

    def damaged(*_, **__):
        raise _connect._BadWal(path.with_name("work.duckdb.wal"))

    monkeypatch.setattr(_connect, "_open", damaged)
    with _connect._Gate(path) as stopped:
        stopped.shut_or_open(0, reader=True)
        with pytest.raises(LedgerBusy, match="one was stopped"), _connect.writing(path, patience=0):
            pass


READS = """
import sys
from pathlib import Path
from pipeline.errors import LedgerBusy
from pipeline.ledger import _connect
try:
    with _connect.reading(Path(sys.argv[1]), patience=0.1):
        print("in")
except LedgerBusy as busy:
    print(busy)
"""


def test_new_readers_wait_while_a_loader_that_waited_long_is_at_the_gate(path, monkeypatch):
    run = Booked(path)
    run.answer("k1")
    monkeypatch.setattr(_connect, "_GATE_AFTER", 0.0)
    monkeypatch.setattr(_connect, "_GATE_HELD", 1000.0)
    shut = threading.Event()
    real = _connect._Gate.shut

    def shut_and_tell(gate):
        real(gate)
        shut.set()

    monkeypatch.setattr(_connect._Gate, "shut", shut_and_tell)
    with held(path, "reading") as holder:
        loader = threading.Thread(target=run.load)
        loader.start()
        shut.wait()
        code, said = finished(child(READS, path))
        assert code == 0
        assert "a run is waiting to write" in said
        leave(holder)
        hears(holder, "left")
        loader.join()
    assert run.state.offset == run.journal.size
    assert finished(child(READS, path)) == (0, "in\n")


def test_a_burst_waits_long_enough_to_shut_the_gate():
    assert _loader.BURST_PATIENCE >= _connect._GATE_AFTER + _connect._GATE_HELD


# -- rule 13: DuckDB's messages, and a damaged write-ahead log ----------------------------------------


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            'IO Error: Could not set lock on file "/x": Conflicting lock is held in /usr/bin/python3 (PID 123). See',
            LedgerBusy,
            "process 123",
        ),
        ('IO Error: Could not set lock on file "/x": busy', LedgerBusy, "another process"),
        ('Cannot open database "/x" in read-only mode: database does not exist', LedgerError, "there is no ledger"),
        ("The file exists, but it is not a valid DuckDB database file!", LedgerError, "is not a DuckDB file"),
        ("Something\nelse", LedgerError, "can't be used: Something else"),
    ],
)
def test_what_duckdb_says_becomes_what_to_do(tmp_path, said, kind, told):
    error = _connect.translate(tmp_path / "x", duckdb.IOException(said))
    assert type(error) is kind
    assert told in str(error)


LEAVES_A_LOG = """
import os, signal, sys
from pathlib import Path
from bookings import Booked
from pipeline import journal
from pipeline.ledger import _connect, loading
run = Booked(sys.argv[1])
for n in range(10):
    run.answer(f"k{n}")
run.rows(*(f"k{n}" for n in range(10)))
with _connect.writing(run.ledger.path) as connection:
    for n in range(10, 200):
        run.answer(f"k{n}")
        if n % 50 == 49:
            piece = journal.read(run.path, run.state.offset, dead=False)
            loading.load_piece(connection, run.path, run.state, piece, last=False)
            run.state = loading.JournalState(run.state.journal_id, run.state.uuid, piece.end, closed=False)
    run.sent("k200")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A ledger whose process was killed behind three commits: the file, its log and the journal, as bytes."""
    path = tmp_path_factory.mktemp("crashed") / "work.duckdb"
    code, _ = finished(child(LEAVES_A_LOG, path))
    assert code == -9
    (written,) = journal.files_in(Ledger(path).folder)
    log = path.with_name("work.duckdb.wal").read_bytes()
    assert len(log) > 10_000
    return path.read_bytes(), log, written.name, written.read_bytes()


def lay_out(path, crashed, log):
    data, _, name, lines = crashed
    path.write_bytes(data)
    if log is not None:
        path.with_name("work.duckdb.wal").write_bytes(log)
    folder = Ledger(path).folder
    folder.mkdir()
    (folder / name).write_bytes(lines)


def flipped(log, position):
    damaged = bytearray(log)
    damaged[position] ^= 255
    return bytes(damaged)


WHOLE = """
select (select count(*) from attempts where result = 'ok'), (select count(distinct key) from answers),
       (select sum(cost_usd) from attempts), (select count(*) from results where status = 'ok'),
       (select list((key, reserved_usd)) from attempts where result = 'lost')
"""


def whole(path):
    assert ask(path, WHOLE) == [(200, 200, 200 * COST, 10, [("k200", WORST)])]
    assert each_line_once(path)
    return True


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log,
        lambda log: None,
        lambda log: b"",
        lambda log: log[: len(log) // 2],
        lambda log: log[:-1],
        lambda log: log[: len(log) // 3] + bytes(len(log) - len(log) // 3),
        lambda log: flipped(log, 5),
    ],
    ids=["untouched", "deleted", "emptied", "cut in half", "cut by one", "zeros at the end", "flipped head"],
)
def test_whatever_became_of_the_write_ahead_log_everything_is_there_again(path, crashed, damage):
    lay_out(path, crashed, damage(crashed[1]))
    assert whole(path)


@pytest.mark.parametrize(("who", "place"), [("a reader", 0.2), ("a run", 0.5), ("people's SQL", 0.9)])
def test_a_damaged_write_ahead_log_is_set_aside_and_reported_and_the_journals_bring_everything_back(
    path, crashed, who, place
):
    log = flipped(crashed[1], int(len(crashed[1]) * place))
    lay_out(path, crashed, log)
    with pytest.raises(duckdb.Error, match="Corrupt WAL file"):
        duckdb.connect(str(path))
    said = []
    ledger = Ledger(path, said.append)
    if who == "a reader":
        with ledger.read() as connection:
            assert connection.execute("select count(*) from attempts").fetchall() == [(201,)]
    elif who == "a run":
        assert len(Booked(path).start.known.own) == 200
    else:
        assert ledger.ask("select count(*) from attempts").rows() == [(201,)]
    aside = path.with_name("work.duckdb.wal.bad")
    assert aside.read_bytes() == log
    if who != "a run":
        assert len(said) == 1
        assert str(aside) in said[0]
    assert whole(path)


def test_an_older_log_that_was_set_aside_is_kept(path, crashed):
    aside = path.with_name("work.duckdb.wal.bad")
    aside.write_bytes(b"older")
    log = flipped(crashed[1], 5000)
    lay_out(path, crashed, log)
    assert whole(path)
    assert aside.read_bytes() == b"older"
    assert path.with_name("work.duckdb.wal.bad1").read_bytes() == log


def test_processes_that_meet_a_damaged_log_at_once_set_it_aside_once(path, crashed):
    loaders = [child(CATCHES_UP, path) for _ in range(3)]
    for loader in loaders:
        hears(loader, "ready")
    lay_out(path, crashed, flipped(crashed[1], 5000))
    for loader in loaders:
        leave(loader)
    assert [finished(loader) for loader in loaders] == [(0, "201\n")] * 3
    assert sorted(file.name for file in path.parent.glob("*.bad*")) == ["work.duckdb.wal.bad"]
    assert whole(path)


KILLED_AT_BIRTH = """
import os, signal, sys
from pathlib import Path
from pipeline.ledger import Ledger, _connect
with _connect.writing(Path(sys.argv[1])) as connection:
    Ledger(Path(sys.argv[1]))._prepare(connection)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_ledger_whose_maker_was_killed_is_made_by_the_next(path, damaged):
    code, _ = finished(child(KILLED_AT_BIRTH, path))
    assert code == -9
    log = path.with_name("work.duckdb.wal")
    if damaged:
        log.write_bytes(flipped(log.read_bytes(), log.stat().st_size // 2))
    run = Booked(path)
    run.answer("k1")
    run.end()
    assert each_line_once(path)


# -- one live run per job ---------------------------------------------------------------------------


HAS_THE_JOB = """
import sys
from pathlib import Path
from pipeline.runners.job_lock import job_lock
with job_lock(Path(sys.argv[1]), sys.argv[2], sys.argv[3]) as others:
    print(",".join(others), flush=True)
    sys.stdin.readline()
"""


def test_the_second_run_of_a_job_is_refused_and_named_the_first(tmp_path):
    first = child(HAS_THE_JOB, tmp_path, "night", "stub")
    hears(first, "")
    said = rf"night is already running \(process {first.pid}\).*promptmill stop night"
    with pytest.raises(LedgerBusy, match=said), job_lock(tmp_path, "night", "stub"):
        pass
    facts = live_runs(tmp_path)["night"]
    assert (facts["pid"], facts["account"], facts["hears_signals"]) == (first.pid, "stub", True)
    leave(first)
    assert finished(first)[0] == 0
    assert live_runs(tmp_path) == {}
    with job_lock(tmp_path, "night", "stub") as others:
        assert others == []
        assert live_runs(tmp_path) == {"night": facts | {"pid": os.getpid()}}


def test_the_lock_of_a_killed_run_is_free(tmp_path):
    first = child(HAS_THE_JOB, tmp_path, "night", "stub")
    hears(first, "")
    kill(first)
    with job_lock(tmp_path, "night", "other"):
        pass


def test_other_jobs_of_the_same_account_are_named(tmp_path):
    with job_lock(tmp_path, "a", "stub"), job_lock(tmp_path, "b", "elsewhere"):
        third = child(HAS_THE_JOB, tmp_path, "c", "stub")
        hears(third, "a")
        assert sorted(live_runs(tmp_path)) == ["a", "b", "c"]
        leave(third)
        finished(third)


def test_a_lock_file_that_is_just_being_written_names_nobody(tmp_path):
    with job_lock(tmp_path, "a", "stub"):
        os.truncate(tmp_path / "a.lock", 3)
        assert live_runs(tmp_path) == {"a": {}}
        with pytest.raises(LedgerBusy, match=r"already running \(process \?\)"), job_lock(tmp_path, "a", "stub"):
            pass


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    told = f"nothing can be locked in the folder {tmp_path}: No locks available"
    with pytest.raises(LedgerError, match=told), job_lock(tmp_path, "a", "stub"):
        pass


def test_a_ledger_on_a_disk_without_locks_is_read_all_the_same(path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    Booked(path).end()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    ledger = Ledger(path)
    assert ledger.ask("select count(*) as runs from runs").item() == 1
    assert live_runs(ledger.folder) == {}


def test_duckdb_that_can_lock_nothing_is_not_taken_for_a_busy_ledger(path):
    said = f'IO Error: Could not set lock on file "{path}": No locks available'
    told = _connect.translate(path, duckdb.IOException(said))
    assert (type(told), "nothing can be locked where the ledger" in str(told)) == (LedgerError, True)
    held = f'IO Error: Could not set lock on file "{path}": Conflicting lock is held in python3 (PID 7)'
    assert "is open in process 7" in str(_connect.translate(path, duckdb.IOException(held)))


@pytest.mark.parametrize(("own", "kept"), [("100MB", "95.3 MiB"), ("8GB", "1.8 GiB")])
def test_a_lower_limit_of_memory_that_duckdb_has_itself_is_kept(own, kept):
    connection = duckdb.connect(config={"memory_limit": own})
    _connect._bound(connection, "2GB")
    assert connection.execute("select current_setting('memory_limit')").fetchall() == [(kept,)]


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="file"), job_lock(tmp_path / "file" / "x", "a", "stub"):
        pass


def test_a_run_whose_lock_was_deleted_keeps_a_second_one_out_all_the_same(path):
    first = Booked(path)
    first.answer("k1")
    with pytest.raises(LedgerBusy, match=rf"the job j is already running \(process {os.getpid()}\), though its lock"):
        Booked(path)
    other = Booked(path, "another")
    other.end()
    first.die()
    assert Booked(path).start.known.own == {"k1": ("ok", 100)}


def test_a_lock_that_is_a_link_overwrites_nothing(path):
    folder = Ledger(path).folder
    folder.mkdir()
    precious = path.with_name("precious.txt")
    precious.write_text("precious")
    (folder / "j.lock").symlink_to(precious)
    with pytest.raises(LedgerError, match=r"j\.lock is a link"), job_lock(folder, "j", "account"):
        pass
    assert precious.read_text() == "precious"


def test_a_lock_that_is_a_pipe_hangs_nobody_and_a_link_is_no_run(path):
    folder = Ledger(path).folder
    folder.mkdir()
    os.mkfifo(folder / "pipe.lock")
    with job_lock(path.parent, "elsewhere", "account"):
        (folder / "link.lock").symlink_to(path.parent / "elsewhere.lock")
        assert live_runs(folder) == {}
    with pytest.raises(LedgerError, match=r"pipe\.lock is a link, a pipe"), job_lock(folder, "pipe", "account"):
        pass


@pytest.mark.parametrize("pid", ['"abc"', "0", "-1", "true", "2.5", "null", "99999999999999999999", "9" * 4000])
def test_a_process_that_can_be_no_run_is_not_signalled(path, monkeypatch, pid):
    """What a lock file says may be a stranger's word."""
    folder = Ledger(path).folder
    folder.mkdir()
    signalled = []
    monkeypatch.setattr(os, "kill", lambda *call: signalled.append(call))
    with (folder / "ghost.lock").open("w+") as ghost:
        ghost.write(f'{{"pid": {pid}, "account": "x"}}')
        ghost.flush()
        fcntl.flock(ghost, fcntl.LOCK_EX)
        assert live_runs(folder) == {"ghost": {}}
        with pytest.raises(UsageError, match="the job ghost is starting this moment"):
            api.stop(Ledger(path), "ghost")
    assert signalled == []


def test_a_run_that_is_a_containers_first_process_is_asked_to_stop_by_a_file(path, monkeypatch):
    folder = Ledger(path).folder
    folder.mkdir()
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("process 1 is signalled"))
    with (folder / "j.lock").open("w+") as lock:
        lock.write('{"pid": 1, "account": "x"}')
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert api.stop(Ledger(path), "j") == 1
    assert asked_to_stop(folder, "j")
