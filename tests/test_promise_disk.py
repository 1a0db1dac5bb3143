"""Promise 1 on disks that are full, read-only or broken: the run pauses, what was received is kept, nothing is doubled.

Real file systems (tests/disks.py), real processes. The journal's rules 16 and 17 in docs/journal.md.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from bookings import Booked, ask, each_line_once, request
from disks import MIB, block_disk, break_down, fill, make_read_only, make_room, memory_disk, reboot
from dying import dies
from journals import read_all
from project import Project, texts

from pipeline import journal
from pipeline.errors import LedgerError, RunPaused
from pipeline.journal import Journal, JournalFull
from pipeline.ledger import Ledger, schema
from pipeline.reserve import LEAST_BYTES, MOST_BYTES, Reserve, reserve_bytes
from pipeline.runners import _loader
from pipeline.runners._loader import Loader

ROWS = 60
IN_FLIGHT = 8


@pytest.fixture
def disk(tmp_path):
    with memory_disk(tmp_path / "disk", 16 * MIB) as folder:
        yield folder


@pytest.fixture
def device(tmp_path):
    with block_disk(tmp_path / "device") as folder:
        yield folder


def project_on(folder, stub):
    """A job whose ledger and journals are on this disk; job file, data and results are elsewhere."""
    project = Project(folder.parent, stub.base_url, {"PROMPTMILL_LEDGER": str(folder / "l.duckdb")})
    project.rows(texts(ROWS))
    project.job(concurrency=IN_FLIGHT)
    return project


def interrupted_by(accident, project, stub):
    """Let a run meet an accident while 8 requests are on their way; they come home after it."""
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(IN_FLIGHT)
    accident()
    stub.release()
    out, err = run.communicate(timeout=60)
    assert "Traceback" not in err, err
    return run.returncode, out, err


def goes_on(project, stub, *, calls):
    """The same command ends the job; every row has one outcome, and the bill is the ledger's to the last digit."""
    project.run("run", "job.toml", "--yes")
    assert stub.calls == calls
    rows = project.sql("select row_id, status, output from results order by row_index")
    assert [row["row_id"] for row in rows] == [f"r{n}" for n in range(ROWS)]
    assert {row["status"] for row in rows} == {"ok"}
    ledger = project.environ["PROMPTMILL_LEDGER"]
    assert each_line_once(ledger)


def files(folder, pattern):
    return sorted(path.name for path in folder.rglob(pattern))


def nothing_left_over(folder):
    assert files(folder, "*.reserve") == files(folder, "*.new") == []


# -- the disk fills up while a job runs -------------------------------------------------------------


def test_a_full_disk_pauses_the_run_and_keeps_every_answer_that_was_on_its_way(disk, stub):
    project = project_on(disk, stub)
    stub.answer = lambda _: "x" * 5000  # more than what is left of the journal's last page
    code, out, err = interrupted_by(lambda: fill(disk), project, stub)
    assert code == 4
    assert stub.calls == IN_FLIGHT, "nothing went out after the disk was full"
    assert f"{IN_FLIGHT} ok, {ROWS - IN_FLIGHT} pending" in out
    (told,) = [line for line in err.splitlines() if "paused: " in line]
    assert f"the journal {disk}/l.journal/" in told
    assert "can't be written: the disk is full; make room, then run the same command again" in told
    assert Decimal(project.value("select sum(cost_usd) from attempts")) == stub.bill
    assert project.value("select pause_kind from runs") == "disk"
    nothing_left_over(disk)
    make_room(disk)
    goes_on(project, stub, calls=ROWS)


def test_what_not_even_the_reserve_can_hold_is_listed_as_lost_and_only_that_is_asked_again(disk, stub):
    project = project_on(disk, stub)
    stub.answer = lambda _: "x" * (LEAST_BYTES // 4)
    code, _, err = interrupted_by(lambda: fill(disk), project, stub)
    assert code == 4
    assert "the disk is full" in err
    stub.answer = lambda _: "x"
    make_room(disk)
    kept = project.value("select count(*) from attempts where result = 'ok'")
    lost = project.sql("select cost_usd, reserved_usd > 0 as bounded from attempts where result = 'lost'")
    assert 2 <= kept < IN_FLIGHT
    assert lost == [{"cost_usd": None, "bounded": True}] * (IN_FLIGHT - kept)
    goes_on(project, stub, calls=ROWS + len(lost))


def test_a_ledger_without_room_pauses_the_run_while_its_journal_keeps_everything(tmp_path, disk, stub):
    project = project_on(disk, stub)
    (tmp_path / "roomy").mkdir()
    (disk / "l.journal").symlink_to(tmp_path / "roomy")
    stub.answer = lambda _: os.urandom(4000).hex()
    stub.latency = 0.5
    code, _, err = interrupted_by(lambda: fill(disk), project, stub)
    assert code == 4
    assert "the ledger" in err
    assert "can't be written: the disk is full; make room, then run the same command again" in err
    answered = stub.calls
    make_room(disk)
    assert project.value("select count(*) from attempts where result = 'ok'") == answered
    goes_on(project, stub, calls=ROWS)
    nothing_left_over(disk)


@pytest.mark.parametrize(
    ("before", "leave"),
    [
        ("a new ledger", 0),
        ("a new ledger", 600 * 1024),
        ("a ledger with answers", 0),
        ("a ledger with answers", 64 * 1024),
    ],
)
def test_a_disk_that_is_full_before_anything_was_sent_is_a_mistake_that_is_told(disk, stub, leave, before):
    project = project_on(disk, stub)
    if before == "a ledger with answers":
        project.run("run", "job.toml", "--yes", "--limit", "5")
    calls = stub.calls
    fill(disk, leave)
    done = project.process("run", "job.toml", "--yes", code=2)
    assert stub.calls == calls
    (told,) = done.stderr.splitlines()
    assert str(disk) in told
    assert "make room" in told
    nothing_left_over(disk)
    make_room(disk)
    goes_on(project, stub, calls=ROWS)


def test_an_estimate_on_a_full_disk_leaves_nothing_of_the_counts_that_it_could_not_keep(disk, stub):
    project = project_on(disk, stub)
    project.run("run", "job.toml", "--yes", "--limit", "5")
    fill(disk)
    project.run("estimate", "job.toml")
    assert files(disk, "*.part") == []


def test_a_run_never_starts_without_what_a_dead_journal_holds_though_the_disk_was_full_only_for_a_moment(disk):
    path = disk / "l.duckdb"
    died = Booked(path)
    for n in range(300):
        died.answer(f"k{n}", output="x" * 1000)
    died.die()
    fill(disk)
    hasty = Ledger(path, notify=lambda _: make_room(disk))
    with pytest.raises(LedgerError, match="the disk is full; make room, then run the same command again"):
        hasty.begin(request())
    make_room(disk)
    assert len(Booked(path).start.known.own) == 300


# -- a file system that goes read-only --------------------------------------------------------------


def test_a_file_system_that_goes_read_only_pauses_the_run_and_lists_what_could_not_be_written(device, stub):
    project = project_on(device, stub)
    code, out, err = interrupted_by(lambda: break_down(device), project, stub)
    assert code == 4
    assert f"{ROWS} pending" in out
    assert stub.calls == IN_FLIGHT
    (told,) = [line for line in err.splitlines() if "paused: " in line]
    assert f"the journal {device}/l.journal/" in told
    assert "can't be written: its file system is read-only; make it writable, then run the same command again" in told
    reboot(device)
    # The kernel had written any number of the `sent` lines to the device by itself: those are the lost attempts.
    assert 0 <= project.value("select count(*) from attempts where result = 'lost' and reserved_usd > 0") <= IN_FLIGHT
    goes_on(project, stub, calls=ROWS + IN_FLIGHT)
    nothing_left_over(device)


@pytest.mark.parametrize("behind", [False, True])
def test_reading_commands_work_on_a_read_only_file_system_and_say_what_they_cannot_show(device, stub, behind):
    project = project_on(device, stub)
    project.run("run", "job.toml", "--yes", "--limit", "5")
    if behind:
        killed_with_answers_on_file(project, stub)
    make_read_only(device)
    commands = [
        ("status",), ("errors", "job"), ("spend",), ("sql", "select 1"), ("results", "job", "-o", "r.csv"),
    ]  # fmt: skip
    for command in commands:
        done = project.run(*command)
        if behind:
            (told,) = [line for line in done.stderr.splitlines() if "NOT shown" in line]
            assert "holds beyond the ledger is NOT shown" in told
            assert "the next command that can write loads it" in told
        else:
            assert "NOT shown" not in done.stderr
    assert project.value("select count(*) from results where status = 'ok'") == 5
    done = project.process("run", "job.toml", "--yes", code=2)
    assert "can't be written" in done.stderr


def killed_with_answers_on_file(project, stub):
    """The run's journal holds 8 answers that no burst has loaded, and 8 requests nobody heard of again."""
    stub.hold()
    calls = stub.calls
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(IN_FLIGHT)
    stub.release(IN_FLIGHT)
    stub.wait_for_calls(calls + 2 * IN_FLIGHT)  # a slot is free again only when its answer is on file
    run.send_signal(signal.SIGKILL)
    run.communicate()
    stub.release()


def test_on_a_read_only_file_system_a_ledger_is_read_with_the_log_that_a_kill_left(tmp_path, device, stub):
    project = project_on(device, stub)
    stub.latency = 0.4
    committed = f"return pipeline.ledger.loading.transaction {2 * (len(schema.MIGRATIONS) + 2)}"
    dies(project, committed, "run", "job.toml", "--yes")
    assert (device / "l.duckdb.wal").stat().st_size > 0
    question = "select count(*) as n, (select sum(lines) from journal_state)::int as loaded from results"
    committed_so_far = copied(device, tmp_path / "whole", ("l.duckdb", "l.duckdb.wal"))
    without_the_log = copied(device, tmp_path / "less", ("l.duckdb",))
    assert answer_of(committed_so_far, question) != answer_of(without_the_log, question)
    make_read_only(device)
    rows = json.loads(project.run("sql", "--json", question).stdout)
    assert rows == answer_of(committed_so_far, question)
    assert rows[0]["n"] == ROWS


def copied(device, folder, names):
    folder.mkdir()
    for name in names:
        shutil.copyfile(device / name, folder / name)
    return folder / "l.duckdb"


def answer_of(ledger, question):
    """What a ledger's file says, or nothing where it lacks the tables."""
    with duckdb.connect(ledger) as connection:
        try:
            told = connection.sql(question)
        except duckdb.CatalogException:
            return []
        return [dict(zip(told.columns, row, strict=True)) for row in told.fetchall()]


def test_a_ledger_of_an_older_version_cannot_be_read_on_a_read_only_file_system_and_that_is_told(device, monkeypatch):
    path = device / "l.duckdb"
    Booked(path).end()
    newer = schema.Migration(schema.NEWEST + 1, "more", "create table more (x int)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newer))
    monkeypatch.setattr(schema, "NEWEST", newer.step)
    make_read_only(device)
    with pytest.raises(LedgerError, match="an older promptmill made this ledger, and it can't be updated"):
        ask(path, "select 1")


def test_a_ledger_that_is_gone_cannot_be_made_again_on_a_read_only_file_system_and_that_is_told(device, stub):
    project = project_on(device, stub)
    project.run("run", "job.toml", "--yes", "--limit", "5")
    (device / "l.duckdb").unlink()
    make_read_only(device)
    done = project.run("status", code=2)
    assert "the ledger is gone and can't be made again from its journals here" in done.stderr


def test_reading_commands_on_a_full_disk_show_what_is_there(disk, stub):
    project = project_on(disk, stub)
    project.run("run", "job.toml", "--yes", "--limit", "5")
    stub.answer = lambda _: os.urandom(100_000).hex()
    killed_with_answers_on_file(project, stub)
    (disk / "l.journal").joinpath(files(disk, "*.reserve")[0]).unlink()
    fill(disk)
    done = project.run("sql", "--json", "select count(*) n from results where status = 'ok'")
    assert json.loads(done.stdout) == [{"n": 5}]
    assert "holds beyond the ledger is NOT shown" in done.stderr
    assert "the disk is full; make room" in done.stderr
    make_room(disk)
    assert project.value("select count(*) from attempts where result = 'ok'") == 5 + IN_FLIGHT


def test_a_ledger_that_can_not_be_tidied_up_when_a_run_begins_keeps_no_run_from_its_work(tmp_path, stub):
    """It was once booked as begun and then given up, because DuckDB had no room to tidy up what it had committed."""
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(ROWS))
    project.job()
    project.run("run", "job.toml", "--yes")
    project.rows(texts(ROWS + 1))
    most = (tmp_path / "promptmill.duckdb").stat().st_size // 1024 * 1024
    script = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "from pipeline.cli import main\nmain(['run', 'job.toml', '--yes'])"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=project._env(), capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    assert "paused: the list of rows is not whole in the ledger" in done.stderr
    assert stub.calls == ROWS + 1
    project.run("run", "job.toml", "--yes")
    assert stub.calls == ROWS + 1
    assert project.value("select count(*) from results where status = 'ok'") == ROWS + 1
    assert project.value("select count(*) from runs where ended_at is null") == 0


# -- results on a full disk -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_results_that_do_not_fit_leave_no_half_file_and_keep_the_old_one(tmp_path, disk, stub, ending):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(ROWS))
    project.job()
    stub.answer = lambda _: os.urandom(4000).hex()
    project.run("run", "job.toml", "--yes")
    target = disk / f"results.{ending}"
    target.write_text("the old results")
    fill(disk, leave=16 * 1024)
    done = project.run("results", "job", "-o", str(target), code=2)
    assert f"-o {target} can't be written" in done.stderr
    assert "No space left" in done.stderr
    assert target.read_text() == "the old results"
    assert files(disk, "*part*") == []
    make_room(disk)
    project.run("results", "job", "-o", str(target))
    assert target.stat().st_size > ROWS * 4000


def test_results_are_written_elsewhere_while_the_ledgers_disk_is_full(disk, stub):
    project = project_on(disk, stub)
    project.run("run", "job.toml", "--yes")
    fill(disk)
    project.run("results", "job", "-o", "r.jsonl")
    assert len((project.folder / "r.jsonl").read_text().splitlines()) == ROWS


# -- rule 16: the reserve ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concurrency", "kept"), [(1, LEAST_BYTES), (16, MIB), (17, 17 * 65536), (256, MOST_BYTES), (5000, MOST_BYTES)]
)
def test_the_reserve_grows_with_the_requests_in_flight_within_bounds(concurrency, kept):
    assert reserve_bytes(concurrency) == kept


@pytest.mark.parametrize("refusal", [None, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_the_reserve_is_really_allocated(tmp_path, monkeypatch, refusal):
    def refuse(*_):
        raise OSError(refusal, os.strerror(refusal))

    if refusal is not None:  # a file system that can't allocate ahead
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    kept = Reserve(tmp_path / "x.reserve", MIB)
    assert kept.path.stat().st_blocks * 512 >= MIB
    assert kept.give_back()
    assert kept.give_back(), "twice is once"
    assert not kept.path.exists()


def test_where_nothing_can_be_allocated_ahead_the_reserve_is_written_to_the_last_byte_and_can_t_be_compressed(
    tmp_path, monkeypatch
):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # macOS has none
    write, synced = os.write, []
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:100_000]))  # as much as this disk takes at a time
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    kept = Reserve(tmp_path / "x.reserve", MIB + 5)
    assert synced == [kept.path.stat().st_size] == [MIB + 5]
    assert len(zlib.compress(kept.path.read_bytes())) > MIB


def test_a_reserve_that_could_not_be_allocated_leaves_no_file_and_none_open(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(OSError, match="Input/output error"):
        Reserve(tmp_path / "x.reserve", MIB)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_reserve_that_can_t_be_given_back_says_so(tmp_path):
    kept = Reserve(tmp_path / "x.reserve", MIB)
    kept.path.unlink()
    kept.path.mkdir()  # nothing that can be unlinked, for root too
    assert not kept.give_back()


def test_a_reserve_that_does_not_fit_leaves_nothing_behind(disk):
    with pytest.raises(OSError, match="No space left"):
        Reserve(disk / "x.reserve", 17 * MIB)
    assert list(disk.iterdir()) == []
    with pytest.raises(OSError, match="No space left"):
        Journal(disk, "l", reserve_bytes=17 * MIB)
    assert list(disk.iterdir()) == []


def test_the_reserve_is_for_what_came_back_and_nothing_goes_out_once_it_is_used(disk):
    started = Journal(disk, "l", reserve_bytes=MIB)
    fill(disk)
    big = {"key": "k", "text": "x" * 5000}
    with pytest.raises(JournalFull, match="the disk is full"):
        started.append("sent", big)
    assert not started.tight, "a request that did not go out leaves the reserve to those that did"
    started.append("attempt", big, came_back=True)
    assert started.tight
    with pytest.raises(JournalFull, match="the disk is full"):
        started.append("sent", {"key": "k2"})  # though there is room now
    started.append_all([{"type": "attempt", **big}, {"type": "outcome", "key": "k"}], came_back=True)
    started.close()
    kinds = [line.fields["type"] for line in read_all(started.path, dead=True)]
    assert kinds == ["header", "attempt", "attempt", "outcome"]
    assert journal.read(started.path, dead=True).damages == []


def test_the_reserve_vanishes_with_the_run_and_after_a_kill_with_the_next_command(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(ROWS))
    project.job(concurrency=IN_FLIGHT)
    for reading in (("status",), ("run", "job.toml", "--yes", "--limit", "3")):
        killed_with_answers_on_file(project, stub)
        assert len(files(tmp_path, "*.reserve")) == 1
        project.run(*reading)
        nothing_left_over(tmp_path)
    assert len(files(tmp_path, "*.jsonl")) == 1 + 3, "the data and three journals"


def test_the_reserve_of_a_live_run_is_left_to_it(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(ROWS))
    project.job(concurrency=IN_FLIGHT)
    project.job("other", concurrency=IN_FLIGHT)
    stub.hold()
    run = project.start("run", "job.toml", "--yes")
    stub.wait_for_in_flight(IN_FLIGHT)
    (kept,) = files(tmp_path, "*.reserve")
    other = project.start("run", "other.toml", "--yes")  # it looks for left-overs as it starts
    stub.wait_for_in_flight(2 * IN_FLIGHT)
    assert kept in files(tmp_path, "*.reserve")
    stub.release()
    for started in (run, other):
        started.communicate(timeout=60)
        assert started.returncode == 0
    nothing_left_over(tmp_path)


def test_a_burst_in_the_middle_of_a_write_that_is_cut_back_loses_no_answer(tmp_path):
    """A full disk takes the first lines of a write; before the run has cut them off, the loader's thread looks."""
    path = tmp_path / "l.duckdb"
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.sent("k1")
    loader._one_burst(patience=20)
    size = run.journal.size
    line = journal.encode_line({"type": "sent", "key": "never went out", "attempt": 1, "kind": "first", "at": 1.0})
    os.write(run.journal._fd, line + line[:20])
    loader._one_burst(patience=20)
    os.ftruncate(run.journal._fd, size)
    run.answer("k2")
    assert loader.finish() is None
    assert ask(path, "select key, result from attempts order by 1") == [("k1", "lost"), ("k2", "ok")]
    assert each_line_once(path)


# -- somebody deletes files ---------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", ["l.journal/*.jsonl", "l.journal", "l.*", "l.duckdb"])
def test_files_that_are_deleted_under_a_run_cost_no_answer(tmp_path, stub, deleted):
    (tmp_path / "disk").mkdir()
    project = project_on(tmp_path / "disk", stub)

    def delete():
        for path in project.folder.glob(f"disk/{deleted}"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    code, _, err = interrupted_by(delete, project, stub)
    assert code in {0, 4}, err  # all rows may have been sent before anybody looked
    assert "output can't be written" not in err
    goes_on(project, stub, calls=ROWS)


def test_a_run_whose_journal_was_deleted_pauses_as_it_could_lose_answers_by_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(_loader, "SYNC_SECONDS", 0.001)
    path = tmp_path / "l.duckdb"
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    run.path.unlink()
    with pytest.raises(RunPaused, match=r"was deleted while the run wrote to it"):
        loader._sync()
    assert loader.finish() is None
    assert ask(path, "select key, result from attempts") == [("k1", "ok")]
    assert each_line_once(path), "the journal was written anew"


def test_what_can_be_kept_nowhere_is_told(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    run = Booked(folder / "l.duckdb")
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    shutil.rmtree(folder)
    folder.write_text("a file where the folder was")
    assert loader.finish().startswith(f"1 attempts are lost: the journal {run.path} was deleted and can't be written")


def test_a_journal_that_can_t_be_read_back_at_the_end_is_told_closed_and_loaded_by_the_next_command(
    tmp_path, monkeypatch
):
    path = tmp_path / "l.duckdb"
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run.journal, "read", fails)
    told = loader.finish()
    assert "may lack this run's last attempts" in told
    assert "can't be loaded into the ledger: Input/output error. The next command loads them." in told
    assert not journal.is_alive(run.path)
    assert ask(path, "select key, result from attempts") == [("k1", "ok")]
    assert each_line_once(path)


def test_what_is_loaded_already_is_not_read_once_more_at_the_end(tmp_path, monkeypatch):
    run = Booked(tmp_path / "l.duckdb")
    loader = Loader(run.ledger, run.journal)
    run.answer("k1")
    loader._one_burst(patience=5)

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run.journal, "read", fails)
    assert loader.finish() is None


# -- rule 17: the ledger is never ahead of what is on the disk --------------------------------------


def test_after_a_power_cut_the_journal_holds_whatever_the_ledger_has_loaded(device):
    path = device / "l.duckdb"
    run = Booked(path)
    loader = Loader(run.ledger, run.journal)
    for n in range(50):
        run.answer(f"k{n}")
    loader._one_burst(patience=20)
    run.answer("k50")  # on its way to the disk, and lost
    break_down(device)
    with pytest.raises(JournalFull):
        run.journal.close()
    reboot(device)
    said = []
    with Ledger(path, said.append).read() as connection:
        assert connection.execute("select count(*) from attempts").fetchall() == [(50,)]
    assert said == []
    assert each_line_once(path)


def test_a_journal_that_the_ledger_knows_is_on_the_disk_with_its_name_and_its_first_lines(device):
    path = device / "l.duckdb"
    run = Booked(path)
    break_down(device)
    with pytest.raises(JournalFull):
        run.journal.close()
    reboot(device)
    said = []
    with Ledger(path, said.append).read() as connection:
        assert connection.execute("select run_id, job from runs").fetchall() == [(1, "j")]
    assert said == []
    assert [line.fields["type"] for line in read_all(run.path, dead=True)] == ["header", "run", "price"]


def test_a_dead_journal_is_on_the_disk_before_another_command_loads_it(device):
    path = device / "l.duckdb"
    run = Booked(path)
    run.answer("k1")
    os.close(run.journal._fd)  # as a kill leaves it: nothing was synced
    run.journal._fd = -1
    assert ask(path, "select count(*) from attempts") == [(1,)]
    break_down(device)
    reboot(device)
    said = []
    with Ledger(path, said.append).read() as connection:
        assert connection.execute("select count(*) from attempts").fetchall() == [(1,)]
    assert said == []
    assert each_line_once(path)
