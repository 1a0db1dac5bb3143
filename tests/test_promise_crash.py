"""Promises 1 to 4 against kill -9 and power cuts, at random moments and at chosen ones.

1. A received answer is never lost and never asked for again. 2. A crash repeats at most what was in flight. 3. Each
row has one outcome, and the answer belongs to it. 4. Costs are the provider's; what is lost is listed with a bound.

The journal file alone: tests/test_journal.py. Loading, locks and the write-ahead log: tests/test_ledger*.py. Disks:
tests/test_promise_disk.py.
"""

import json
import os
import random
from decimal import Decimal

import pytest
from bookings import COST, WORST, Booked, ask, each_line_once, value
from dying import dies
from journals import read_all
from project import Project, texts
from stub import StubServer
from torture import CONCURRENCY, Torture

from pipeline import journal
from pipeline.errors import LedgerError
from pipeline.ledger import Ledger, schema

ROWS = 60
STEPS = len(schema.MIGRATIONS)
TRANSACTION = "pipeline.ledger.loading.transaction"
INSERT = "pipeline.ledger._frames.Bundle.insert"


def journals(project):
    return journal.files_in(project.folder / "promptmill.journal")


def open_requests(project):
    """Keys that dead journals sent and have no answer to."""
    opened = []
    for path in journals(project):
        lines = [line.fields for line in read_all(path, dead=True)]
        heard = {(f["key"], f["attempt"]) for f in lines if f["type"] == "attempt"}
        opened += [f["key"] for f in lines if f["type"] == "sent" and (f["key"], f["attempt"]) not in heard]
    return opened


@pytest.fixture
def project(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(ROWS))
    project.job(concurrency=CONCURRENCY)
    return project


def the_same_command_ends_the_job(project, stub):
    lost = open_requests(project)
    assert len(lost) <= CONCURRENCY
    project.run("run", "job.toml", "--yes")
    asked = [request.payload["messages"][-1]["content"] for request in stub.requests]
    assert len(asked) - len(set(asked)) <= len(lost), "nothing but what was in flight is asked again"
    rows = project.sql("select row_id, status, output from results order by row_index")
    assert [row["row_id"] for row in rows] == [f"r{n}" for n in range(ROWS)]
    assert {row["status"] for row in rows} == {"ok"}
    assert [json.loads(row["output"])["echo"] for row in rows] == [f"row {n} says hello" for n in range(ROWS)]
    assert each_line_once(project.folder / "promptmill.duckdb")
    bill = {f"req-{entry.n}": entry.usd for entry in stub.entries}
    booked = project.sql("select request_id, cost_usd from attempts where cost_usd is not null")
    assert {row["request_id"]: Decimal(row["cost_usd"]) for row in booked} == {
        row["request_id"]: bill[row["request_id"]] for row in booked
    }
    listed = project.sql("select key, reserved_usd > 0 as bounded from attempts where cost_usd is null order by key")
    assert listed == [{"key": key, "bounded": True} for key in sorted(lost)]
    left = {file.suffix for file in (project.folder / "promptmill.journal").iterdir()}
    assert left == {".jsonl", ".lock"}


# -- kill -9 at random moments ----------------------------------------------------------------------


def test_every_promise_holds_after_a_dozen_kills_at_random_moments(tmp_path):
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    torture = Torture(tmp_path, seed, kills=12)
    try:
        torture.run()
    except BaseException as broken:
        broken.add_note(f"SEED={seed} makes the same plan of kills; so far: {torture.moments}")
        raise
    assert len(torture.moments) == 12
    assert torture.open_at_a_kill, "some kill found requests in flight"


# -- kill -9 at chosen moments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        "before posix.rename 1",  # the journal has its header and not its name
        "after posix.rename 1",  # it has its name, and the ledger doesn't know it
        "return pipeline.ledger.store.Ledger.begin 1",  # the run is registered, nothing was planned
        "call pipeline.runners._planner.Planner._place 1",
        f"call pipeline.runners._planner.Planner._place {ROWS}",
        "return pipeline.runners.local.LocalRun._announce 1",  # the first `sent` line is written, nothing went out
        "return pipeline.runners.attempt.Exchanger.send 20",  # an answer is here and not on file
        "return pipeline.runners._desk.Desk._write 20",  # it is on file, and nothing has acted on it
        "call pipeline.runners.local.LocalRun._close 1",  # all is answered, `end` is not written
        "call pipeline.ledger.loading._book_loose_ends 1",  # `end` is written, the journal is not closed in the ledger
    ],
)
def test_a_run_killed_at_any_station_goes_on_with_the_same_command(project, stub, moment):
    stub.latency = lambda n: n % 5 / 1000
    dies(project, moment, "run", "job.toml", "--yes")
    the_same_command_ends_the_job(project, stub)


@pytest.mark.parametrize(
    "moment",
    [
        f"call {INSERT} 2",  # nothing is inserted yet
        f"return {INSERT} 2",  # everything is inserted, nothing is committed
        f"return {TRANSACTION} {2 * (STEPS + 2)}",  # committed, and the run does not know
        "return pipeline.ledger.store.Ledger.burst 1",  # the file is closed again
    ],
)
def test_a_run_killed_while_it_loads_a_burst_has_each_line_once(project, stub, moment):
    stub.latency = 0.4  # the first burst comes in mid-run
    dies(project, moment, "run", "job.toml", "--yes")
    assert 0 < stub.calls < ROWS
    stub.wait_until(lambda: stub.in_flight == 0, "the abandoned requests")
    stub.latency = 0.0
    the_same_command_ends_the_job(project, stub)


@pytest.mark.parametrize(
    ("moment", "step"), [("call", 1), ("return", 1), ("return", STEPS // 2), ("call", STEPS), ("return", STEPS)]
)
def test_a_command_killed_in_a_migration_leaves_whole_steps(project, stub, moment, step):
    """A transaction is a generator: called again before its commit, returning after it."""
    dies(project, f"{moment} {TRANSACTION} {2 * step}", "run", "job.toml", "--yes")
    assert stub.calls == 0
    the_same_command_ends_the_job(project, stub)
    assert stub.calls == ROWS
    assert [row["step"] for row in project.sql("select step from migrations order by 1")] == [*range(1, STEPS + 1)]


@pytest.fixture
def finished(project):
    project.run("run", "job.toml", "--yes")
    return project


@pytest.mark.parametrize(
    ("ending", "moment"),
    [
        ("jsonl", "call pipeline.exporting._write._with_json 50"),
        ("jsonl", "before posix.replace 1"),
        ("parquet", "before posix.replace 1"),
    ],
)
def test_results_killed_before_the_rename_leave_the_old_file_whole(finished, ending, moment):
    target = finished.folder / f"out.{ending}"
    target.write_text("the old results")
    for _ in range(2):
        dies(finished, moment, "results", "job", "-o", target.name)
        assert target.read_text() == "the old results"
        left = finished.folder / f".{target.name}.part"
        assert left.exists(), "left over, under a hidden name that nothing takes for results"
    finished.run("results", "job", "-o", target.name)
    assert target.stat().st_size > ROWS * 20
    assert not left.exists(), "the next command takes it away"


@pytest.mark.parametrize(
    "moment",
    [
        f"call {TRANSACTION} {2 * (STEPS + 1)}",
        f"return {TRANSACTION} {2 * (STEPS + 1)}",
        f"return {TRANSACTION} {2 * (STEPS + 2)}",
    ],
)
def test_a_lost_ledger_whose_rebuilding_is_killed_is_rebuilt_by_the_next_command(project, stub, moment):
    for limit in ("30", "60"):  # two journals
        project.run("run", "job.toml", "--yes", "--limit", limit)
    asked = "select * exclude (run_id) from attempts order by journal_id, journal_offset"
    before = project.sql(asked)
    (project.folder / "promptmill.duckdb").unlink()
    dies(project, moment, "status")
    assert project.sql(asked) == before
    the_same_command_ends_the_job(project, stub)
    assert stub.calls == ROWS


def test_a_run_killed_while_it_loads_what_a_killed_run_left_has_each_line_once(project, stub):
    stub.latency = lambda n: n % 5 / 1000
    dies(project, "return pipeline.runners._desk.Desk._write 20", "run", "job.toml", "--yes")
    for moment in (f"return {INSERT} 1", f"return {TRANSACTION} 2"):
        dies(project, moment, "run", "job.toml", "--yes")
    the_same_command_ends_the_job(project, stub)


# -- what a power cut leaves ------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


def warnings_of(path, sql="select count(*) from attempts where result = 'ok'"):
    """What a reading command says on its way, and the only value it finds."""
    said = []
    with Ledger(path, said.append).read() as connection:
        ((found,),) = connection.execute(sql).fetchall()
    return said, found


def overwrite(file, offset, data):
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def offset_of(file, kind, nth=0):
    return [line.offset for line in read_all(file, dead=True) if line.fields["type"] == kind][nth]


def test_a_damaged_line_is_reported_by_position_and_costs_only_its_own_answer(project, stub):
    # So few rows that no burst has carried them to the ledger yet.
    dies(project, "call pipeline.runners.local.LocalRun._close 1", "run", "job.toml", "--yes", "--limit", "40")
    (file,) = journals(project)
    place = offset_of(file, "attempt", 30)
    overwrite(file, place + 20, b"\x00\xff")
    told = project.run("status").stderr
    assert f"journal {file.stem}: 1 damaged pieces" in told
    assert f"the first at byte {place}: lines in them are lost" in told
    lost = project.sql("select cost_usd, reserved_usd > 0 as bounded from attempts where result = 'lost'")
    assert lost == [{"cost_usd": None, "bounded": True}]
    project.run("run", "job.toml", "--yes")
    assert stub.calls == ROWS + 1, "its outcome is there, but not its answer"
    assert project.value("select count(output) from results where status = 'ok'") == ROWS


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("zeros", [1, 4096, 100_000])
def test_zeros_at_the_end_of_a_journal_cost_nothing_before_them_and_are_reported(path, zeros, loaded):
    """What ext4 may leave: the file has its new size, the blocks were never written."""
    run = Booked(path)
    run.answer("k1")
    if loaded:
        run.load()
    run.answer("k2")
    run.die()
    size = run.path.stat().st_size
    with run.path.open("ab") as file:
        file.write(bytes(zeros))
    assert value(path, "select count(*) from attempts where result = 'ok'") == 2
    assert ask(path, "select journal_offset, length, torn from journal_damage") == [(size, zeros, False)]
    assert value(path, "select bool_and(closed) from journal_state")
    assert each_line_once(path)


@pytest.mark.parametrize("part", ["its last outcome", "its last answer", "all of it"])
def test_zeros_over_what_was_loaded_take_nothing_from_the_ledger_and_make_nothing_up(path, part):
    run = Booked(path)
    run.answer("k1")
    run.sent("k2")
    run.answer("k3")
    run.load()
    run.die()
    size = run.path.stat().st_size
    last = {"its last outcome": "outcome", "its last answer": "attempt"}
    start = 0 if part == "all of it" else offset_of(run.path, last[part], 1)
    overwrite(run.path, start, bytes(size - start))
    said, answers = warnings_of(path)
    assert (said, answers) == ([], 2)
    lost = ask(path, "select key from attempts where result = 'lost'")
    assert lost == ([] if part == "all of it" else [("k2",)]), "an answer that the ledger has is not called lost"
    assert ask(path, "select key, count(*) from outcomes group by 1 order by 1") == [("k1", 1), ("k3", 1)]
    assert Booked(path).start.known.own.keys() == {"k1", "k3"}


@pytest.mark.parametrize("content", [b"", bytes(8192), b"\xff" * 100], ids=["empty", "zeros", "noise"])
def test_a_journal_of_which_nothing_is_left_shuts_nobody_out(path, content):
    other = Booked(path)
    other.answer("k1")
    other.end()
    (other.path.parent / "20260101T000000-1-00000000.jsonl").write_bytes(content)
    assert warnings_of(path) == ([], 1)
    run = Booked(path)
    run.answer("k2")
    run.end()
    assert warnings_of(path) == ([], 2)
    damaged = ask(path, "select journal_id, length, torn from journal_damage")
    assert damaged == ([("20260101T000000-1-00000000", len(content), content[:1] != b"\0")] if content else [])


def test_an_empty_journal_that_the_ledger_knows_shuts_nobody_out(path):
    run = Booked(path)
    run.sent("k1")
    run.die()
    os.truncate(run.path, 0)
    said, _ = warnings_of(path)
    assert len(said) == 1
    assert "is shorter than what was loaded from it" in said[0]
    assert Booked(path).run_id == 2


@pytest.mark.parametrize("loaded", ["nothing", "a part", "everything"])
def test_a_damaged_header_costs_no_answer(path, loaded):
    run = Booked(path)
    run.answer("k1")
    run.load()
    run.answer("k2")
    run.sent("k3")
    run.die()
    if loaded == "everything":
        ask(path, "select 1")
    elif loaded == "nothing":
        path.unlink()
    whole = run.path.read_bytes()
    overwrite(run.path, 20, b"\x00\xff")
    assert warnings_of(path) == ([], 2)
    assert ask(path, "select run_id, job, sum(cost_usd) from attempts join runs using (run_id) group by all") == [
        (1, "j", 2 * COST)
    ]
    assert ask(path, "select key, cost_usd, reserved_usd from attempts where result = 'lost'") == [("k3", None, WORST)]
    assert each_line_once(path)
    again = Booked(path)
    assert again.start.known.own.keys() == {"k1", "k2"}
    assert again.start.plan.spent_usd == 2 * COST + WORST
    run.path.write_bytes(whole)
    assert warnings_of(path) == ([], 2), "a header that was put right changes nothing"


def test_a_ledger_is_made_again_under_its_old_identity_though_the_first_header_is_damaged(path):
    for key in ("k1", "k2"):
        run = Booked(path)
        run.answer(key)
        run.end()
    identity = value(path, "select ledger_id from ledger_identity")
    path.unlink()
    overwrite(journal.files_in(Ledger(path).folder)[0], 20, b"\x00\xff")
    assert warnings_of(path) == ([], 2)
    assert value(path, "select ledger_id from ledger_identity") == identity
    assert Booked(path).run_id == 3


def test_a_copy_of_a_journal_whose_header_is_damaged_is_not_booked_twice_and_named(path):
    run = Booked(path)
    run.answer("k1")
    run.end()
    ask(path, "select 1")
    copy = run.path.with_name("20990101T000000-1-00000000.jsonl")
    copy.write_bytes(run.path.read_bytes())
    overwrite(copy, 20, b"\x00\xff")
    (said,), answers = warnings_of(path)
    assert answers == 1
    assert f"{copy}: its run 1 is in the ledger from the journal {run.path.stem}" in said
    assert "Move it out of the folder" in said
    with pytest.raises(LedgerError, match="it is a copy, or of a run with another copy of this ledger"):
        Booked(path)
    copy.unlink()
    assert Booked(path).run_id == 2


def test_answers_that_nobody_can_attribute_stop_runs_but_no_readers_and_no_other_journal(path):
    broken, whole = Booked(path), Booked(path, job="other")
    for run in (broken, whole):
        run.answer("k1")
        run.die()
    path.unlink()
    overwrite(broken.path, 20, b"\x00\xff")
    overwrite(broken.path, offset_of(broken.path, "run") + 20, b"\x00\xff")
    (said,), answers = warnings_of(path)
    assert answers == 1, "the other journal is loaded"
    assert "which run wrote it is damaged" in said
    assert "move it out of the folder (its answers are then lost)" in said
    with pytest.raises(LedgerError, match="which run wrote it is damaged"):
        Booked(path, job="other")
    broken.path.rename(path.parent / "aside.jsonl")
    assert Booked(path, job="other").start.known.own.keys() == {"k1"}


def test_what_never_became_a_journal_is_taken_away_by_the_next_run(path):
    folder = Ledger(path).folder
    folder.mkdir()
    for name in ("20260101T000000-1-aa.new", "20260101T000000-1-aa.reserve"):
        (folder / name).write_bytes(b"half a head")
    run = Booked(path)
    assert {file.name for file in folder.iterdir()} == {run.path.name, run.path.with_suffix(".reserve").name}
    run.end()
    assert [*folder.iterdir()] == [run.path]


def test_an_empty_ledger_file_is_told_and_once_moved_away_made_again(path):
    run = Booked(path)
    run.answer("k1")
    run.end()
    path.unlink()
    path.touch()
    for look in (lambda: ask(path, "select 1"), lambda: Booked(path)):
        with pytest.raises(
            LedgerError, match="move it away: the next command makes the ledger again from its journals"
        ):
            look()
    path.rename(path.with_suffix(".bad"))
    assert warnings_of(path) == ([], 1)


def test_an_older_copy_of_the_ledger_catches_up_with_whole_journals(path):
    runs = []
    for n in range(3):
        run = Booked(path)
        run.answer(f"k{n}")
        run.load()
        if n == 0:
            copy = path.read_bytes()
        run.answer(f"l{n}")
        run.end()
        runs.append(run)
    path.write_bytes(copy)
    assert warnings_of(path) == ([], 6)
    assert ask(path, "select run_id, count(*) from attempts group by 1 order by 1") == [(1, 2), (2, 2), (3, 2)]
    assert each_line_once(path)
    assert Booked(path).run_id == 4


def test_torture_reproduces_its_plan_of_kills_from_the_seed(tmp_path):
    plans = []
    for _ in range(2):
        with StubServer() as idle:
            torture = Torture(tmp_path, 5, kills=1)
            plans.append([torture.dice.random() for _ in range(5)] + [torture.stub.latency(n) for n in range(5)])
            assert idle.calls == 0
    assert plans[0] == plans[1]
