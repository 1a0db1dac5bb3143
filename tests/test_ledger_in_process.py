"""The ledger and the process it is used in: connections of the user's own, threads, callbacks and forked processes."""

import os
import pickle
import select
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import duckdb
import pytest
from bookings import Booked, ask, child, finished, hears, kill, value

from pipeline import journal
from pipeline.errors import LedgerBusy, LedgerError
from pipeline.ledger import Ledger, _connect
from pipeline.runners.job_lock import job_lock, live_runs

IN_THIS_PROCESS = "is open in this very process, by a DuckDB connection of your own"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


def in_a_fork(does):
    """What a forked process says, and its exit code."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: of a process with threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(writes, str(does()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        if not select.select([pipe], [], [], 60)[0]:
            os.kill(pid, signal.SIGKILL)
        said = pipe.read().decode()
    return said, os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("config", [None, {"memory_limit": "1GB"}])
def test_a_connection_of_ones_own_keeps_readers_waiting_and_is_named(path, config):
    Booked(path).end()
    assert value(path, "select count(*) from runs") == 1
    with (
        closing(duckdb.connect(str(path))),
        pytest.raises(LedgerBusy, match=rf"{IN_THIS_PROCESS}; close that one; `pipeline\.api\.sql` asks"),
        _connect.reading(path, patience=0.1, config=config),
    ):
        pass
    with _connect.reading(path, patience=0.0, config=config) as connection:
        assert connection.execute("select count(*) from runs").fetchall() == [(1,)]


def test_a_run_waits_for_a_connection_of_ones_own_and_loads_when_it_is_closed(path):
    run = Booked(path)
    run.answer("k1")
    run.load()
    run.answer("k2")
    with closing(duckdb.connect(str(path), read_only=True)) as mine:
        with pytest.raises(LedgerBusy, match=IN_THIS_PROCESS):
            run.ledger.burst(run.path, run.state, run.burst(), patience=0)
        assert mine.execute("select count(*) from attempts").fetchall() == [(1,)]
    run.load()
    run.end()
    assert ask(path, "select count(*) from attempts") == [(2,)]


def test_who_is_told_something_while_the_ledger_is_read_hears_that_it_can_not_be_asked(path):
    Booked(path).end()
    ledger = Ledger(path)
    with ledger.read(), pytest.raises(LedgerError, match="this thread has the ledger open already"):
        ledger.ask("select 1")
    assert ledger.ask("select 1 as one").rows() == [(1,)]


def test_another_thread_waits_its_turn(path):
    Booked(path).end()
    ledger = Ledger(path)
    with ThreadPoolExecutor(1) as pool:
        with ledger.read():
            other = pool.submit(ledger.ask, "select 1 as one")
        assert other.result(timeout=60).rows() == [(1,)]


def test_a_forked_process_reads_with_its_parents_ledger(path):
    Booked(path).end()
    ledger = Ledger(path)
    assert ledger.ask("select count(*) as runs from runs").rows() == [(1,)]
    assert in_a_fork(lambda: ledger.ask("select count(*) as runs from runs").item()) == ("1", 0)
    assert ledger.ask("select count(*) as runs from runs").rows() == [(1,)]


def test_a_process_forked_while_the_ledger_is_read_reads_it_too(path):
    Booked(path).end()
    ledger, others = Ledger(path), threading.Event()
    inside = threading.Event()

    def reads():
        with ledger.read():
            inside.set()
            others.wait()

    thread = threading.Thread(target=reads)
    thread.start()
    inside.wait()
    try:
        assert in_a_fork(lambda: Ledger(path).ask("select count(*) as runs from runs").item()) == ("1", 0)
    finally:
        others.set()
        thread.join()


def test_a_process_forked_while_others_open_the_ledger_is_not_stuck(path):
    Booked(path).end()
    done = threading.Event()

    def asks():
        while not done.is_set():
            Ledger(path).ask("select 1")

    thread = threading.Thread(target=asks)
    thread.start()
    try:
        for _ in range(5):
            assert in_a_fork(lambda: Ledger(path).ask("select count(*) as runs from runs").item()) == ("1", 0)
    finally:
        done.set()
        thread.join()


def test_forks_in_several_threads_give_back_what_they_took(path, monkeypatch):
    Booked(path).end()
    monkeypatch.setattr(_connect, "_FORK_PATIENCE", 0.001)  # so that many don't get it
    done = threading.Event()

    def asks():
        while not done.is_set():
            Ledger(path).ask("select 1")

    def forks():
        for _ in range(20):
            assert in_a_fork(lambda: "there") == ("there", 0)

    asking = threading.Thread(target=asks)
    asking.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            for done_forking in [pool.submit(forks) for _ in range(3)]:
                done_forking.result()
        assert asking.is_alive()
    finally:
        done.set()
        asking.join()
    for turn in set(_connect._turns.values()):
        assert turn.lock.acquire(timeout=10)
        turn.lock.release()
    assert Ledger(path).ask("select 1 as n").item() == 1


def test_two_names_of_one_file_are_one_ledger(tmp_path):
    first, second = tmp_path / "a.duckdb", tmp_path / "b.duckdb"
    Booked(first).end()
    os.link(first, second)
    assert _connect._Turn.at(first) is _connect._Turn.at(second)

    def writes(path):
        for _ in range(20):
            with _connect.writing(path, patience=60) as connection:
                connection.execute("create table if not exists ledger.t (n integer)")
                connection.execute("insert into ledger.t select * from range(200)")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(writes, path) for path in (first, second)]:
            done.result()
    assert Ledger(first).ask("select count(*) from t").item() == 8000


def test_threads_that_ask_for_each_others_ledgers_do_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(_connect, "_NESTED_PATIENCE", 0.2)
    paths = [tmp_path / "a.duckdb", tmp_path / "b.duckdb"]
    for path in paths:
        Booked(path).end()
    both = threading.Barrier(2)

    def asks(mine, other):
        with Ledger(mine).read():
            both.wait()
            try:
                return Ledger(other).ask("select 1 as n").item()
            except LedgerBusy as busy:
                return str(busy)

    with ThreadPoolExecutor(2) as pool:
        said = [pool.submit(asks, *paths), pool.submit(asks, *reversed(paths))]
        assert "another thread of this program has the ledger open" in [each.result(timeout=60) for each in said]


def test_who_is_told_that_a_ledger_is_busy_may_ask_another_one(tmp_path):
    busy, other = tmp_path / "busy.duckdb", tmp_path / "other.duckdb"
    for path in (busy, other):
        Booked(path).end()
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    holder = child(code, busy)
    hears(holder, "held")
    told = []

    def notify(text):
        told.append((text, Ledger(other).ask("select 1 as n").item()))
        kill(holder)

    assert Ledger(busy, notify=notify).ask("select 2 as n").item() == 2
    assert [answer for _, answer in told] == [1]


def test_a_thread_that_let_others_in_waits_for_them_as_long_as_it_would_have(path, monkeypatch):
    monkeypatch.setattr(_connect, "_NESTED_PATIENCE", 0.0)
    turn, there, leave = _connect._Turn.at(path), threading.Event(), threading.Event()

    def holds():
        with turn.taken(None):
            there.set()
            leave.wait()

    holding = threading.Thread(target=holds)
    with turn.taken(None):
        with turn.left():
            holding.start()
            there.wait()
            threading.Timer(0.3, leave.set).start()
        assert turn.is_mine()
        assert _connect._opened_here() == 1
    holding.join()
    assert _connect._opened_here() == 0


def test_an_interrupted_wait_takes_no_other_threads_turn_away(path):
    turn, there, leave = _connect._Turn.at(path), threading.Event(), threading.Event()

    def holds():
        with turn.taken(None):
            there.set()
            leave.wait()

    def interrupt(*_):
        raise KeyboardInterrupt

    holding = threading.Thread(target=holds)

    def waits():
        with turn.taken(None), turn.left():
            holding.start()
            there.wait()
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.2)

    with pytest.raises(KeyboardInterrupt):
        waits()
    assert not turn.is_mine()
    assert not turn.lock.acquire(timeout=0.1), "the other one is still inside"
    leave.set()
    holding.join()
    assert _connect._opened_here() == 0
    with turn.taken(None):
        assert turn.is_mine()


def test_a_forked_process_ends_as_any_other(path):
    """Python destroys what is left at its end: not its parent's DuckDB."""
    Booked(path).end()
    code = (
        "import os, sys, warnings; from bookings import value; warnings.simplefilter('ignore')\n"
        "from pathlib import Path; from pipeline.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.ask('select 1')\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(ledger.ask('select 7 as n').item())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert finished(child(code, path)) == (0, "7\n")


def test_a_ledger_goes_to_another_process(path):
    Booked(path).end()
    ledger = Ledger(path)
    ledger.ask("select 1")
    sent = pickle.loads(pickle.dumps(ledger))
    assert (sent.path, sent.folder) == (ledger.path, ledger.folder)
    assert sent.ask("select count(*) as runs from runs").item() == 1


def test_a_process_forked_during_a_run_keeps_neither_its_job_nor_its_journal_alive(path):
    """As a pool of processes that a notebook makes meanwhile."""
    folder = Ledger(path).folder
    run = Booked(path)
    reads, writes = os.pipe()
    with job_lock(folder, "j", "account"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
        assert list(live_runs(folder)) == ["j"]
        run.end()
    try:
        assert live_runs(folder) == {}
        assert not journal.is_alive(run.path)
    finally:
        os.close(writes)
        os.close(reads)
        os.waitpid(pid, 0)


def test_a_loader_whose_patience_may_end_any_time_says_how_long_it_waits(path, monkeypatch):
    """At a run's end: the time is asked for anew, so that a second Ctrl-C shortens it."""
    Booked(path).end()
    said = []
    monkeypatch.setattr(_connect, "_TELL_AFTER", 0.0)
    holder = child(
        "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('holding', flush=True); sys.stdin.readline()", path
    )
    hears(holder, "holding")
    try:
        with pytest.raises(LedgerBusy):
            Ledger(path, notify=said.append).catch_up(patience=lambda: 0.2)
    finally:
        holder.communicate("go\n", timeout=60)
    assert said == [f"waiting up to 0.2 s: the ledger {path} is open in process {holder.pid}"]
