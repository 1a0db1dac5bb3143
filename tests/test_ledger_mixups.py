"""Files that don't belong together, or aren't what they seem: rules 10 and 14 of docs/journal.md.

Not implemented, so not tested: rule 14's copying of an old ledger's rows, and rule 15's deleting of journals (no
command does either; a closed journal that is gone is no error).
"""

import shutil

import duckdb
import pytest
from bookings import COST, WORST, Booked, ask, each_line_once, request, value

from pipeline.errors import LedgerError
from pipeline.ledger import Ledger, schema


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work.duckdb"


def outside(path, sql):
    """Look at the file with nothing but DuckDB."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


# -- rule 10: mix-ups -------------------------------------------------------------------------------


@pytest.fixture
def finished_run(path):
    run = Booked(path)
    run.answer("k1")
    run.load()
    run.end()
    return run


@pytest.mark.parametrize("size", [0, 200])
def test_a_journal_that_became_shorter_than_what_was_loaded_takes_nothing_from_the_ledger(path, finished_run, size):
    """A power cut may do that on a disk that had said it was done; nobody can bring the rest back."""
    whole = finished_run.path.read_bytes()
    with finished_run.path.open("r+b") as file:
        file.truncate(size)
    said = []
    for _ in range(2):
        with Ledger(path, said.append).read() as connection:
            assert connection.execute("select result, cost_usd from attempts").fetchall() == [("ok", COST)]
    assert len(said) == 1
    assert "is shorter than what was loaded from it: the ledger keeps what it has" in said[0]
    assert Booked(path).start.plan.spent_usd == COST
    finished_run.path.write_bytes(whole)
    assert value(path, "select count(*) from run_ends where run_id = 1") == 1, "a restored file is loaded further"
    assert each_line_once(path)


def test_another_file_under_a_known_name_is_an_error(path, finished_run, tmp_path):
    other = Booked(tmp_path / "other.duckdb")
    for n in range(20):
        other.answer(f"k{n}")
    other.end()
    shutil.copy(other.path, finished_run.path)
    with pytest.raises(LedgerError, match="another file than the one the ledger knows by this name"):
        ask(path, "select 1")


def test_a_journal_of_another_ledger_is_an_error(path, finished_run, tmp_path):
    other = Booked(tmp_path / "other.duckdb")
    other.end()
    shutil.copy(other.path, finished_run.path.parent)
    with pytest.raises(LedgerError, match="belongs to another ledger"):
        ask(path, "select 1")


def test_a_journal_that_vanished_before_it_was_loaded_stops_a_run_and_warns_a_reader(path, finished_run):
    finished_run.path.unlink()
    with pytest.raises(LedgerError, match=rf"{finished_run.journal.journal_id} is missing .* paid for again"):
        Booked(path)
    said = []
    with Ledger(path, said.append).read() as connection:
        assert connection.execute("select count(*) from attempts").fetchall() == [(1,)]
    assert len(said) == 1
    assert "is missing" in said[0]


def test_a_live_run_keeps_its_number_though_its_ledger_was_deleted(path):
    live = Booked(path)
    live.answer("v1a")
    path.unlink()
    other = Booked(path, "other")
    assert (other.run_id, other.plan_id) == (live.run_id + 1, live.plan_id + 1)
    other.answer("v1b")
    other.end()
    live.end()
    assert ask(path, "select run_id, job, plan_id from runs order by all") == [(1, "j", 1), (2, "other", 2)]
    assert value(path, "select count(*) from answers") == 2


def test_a_journal_that_was_loaded_to_its_end_may_go(path, finished_run):
    assert value(path, "select count(*) from attempts") == 1
    finished_run.path.unlink()
    assert Booked(path).start.plan.spent_usd == COST


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300], ids=["empty", "text"])
def test_a_file_that_is_not_duckdb_is_an_error_and_stays_as_it_was(path, content):
    path.write_bytes(content)
    for look in (lambda: ask(path, "select 1"), lambda: Booked(path)):
        with pytest.raises(LedgerError, match="is not a DuckDB file; name another with --ledger"):
            look()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "tables",
    ["create table sales (x int)", "create table migrations (id int, name text); create table users (x int)"],
    ids=["without", "with migrations of its own"],
)
def test_a_duckdb_file_with_other_tables_is_an_error_and_stays_as_it_was(path, tables):
    with duckdb.connect(str(path)) as connection:
        connection.execute(tables)
    before = outside(path, "select table_name from duckdb_tables() order by 1")
    for look in (lambda: ask(path, "select 1"), lambda: Booked(path)):
        with pytest.raises(LedgerError, match="holds other tables"):
            look()
    assert outside(path, "select table_name from duckdb_tables() order by 1") == before


def test_a_ledger_of_a_newer_version_is_an_error(path, finished_run):
    ask(path, "select 1")
    with duckdb.connect(str(path)) as connection:
        connection.execute("insert into migrations values (99, 'tomorrow', now()::timestamp)")
    for look in (lambda: ask(path, "select 1"), lambda: Booked(path)):
        with pytest.raises(LedgerError, match=r"newer promptmill \(schema step 99\); upgrade"):
            look()


def test_reading_where_there_is_no_ledger_is_an_error_and_makes_none(path):
    with pytest.raises(LedgerError, match="there is no ledger"):
        ask(path, "select 1")
    assert not path.exists()
    assert not Ledger(path).exists()
    assert Ledger(path).known("j", "ledger").own == {}


def test_a_folder_that_does_not_exist_is_named(path):
    with pytest.raises(LedgerError, match=r"the folder .*nowhere of the ledger doesn't exist"):
        Ledger(path.parent / "nowhere" / "x.duckdb").begin(request())


def test_migrations_are_applied_once_and_in_order(path, finished_run):
    Booked(path).end()
    steps = [migration.step for migration in schema.MIGRATIONS]
    assert steps == list(range(1, len(steps) + 1))
    assert ask(path, "select step from migrations order by step") == [(step,) for step in steps]
    assert value(path, "select count(*) from ledger_identity") == 1


def test_an_older_ledger_is_brought_up_to_date_by_the_first_reader(path, finished_run, monkeypatch):
    ask(path, "select 1")
    newer = schema.Migration(schema.NEWEST + 1, "more", "create table more (x int)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newer))
    monkeypatch.setattr(schema, "NEWEST", newer.step)
    assert value(path, "select count(*) from more") == 0
    assert value(path, "select count(*) from attempts") == 1


# -- rule 14: a lost ledger -------------------------------------------------------------------------


def test_a_ledger_that_was_deleted_is_made_again_from_its_journals_under_its_old_identity(path):
    for n, ending in enumerate(["end", "die"]):
        run = Booked(path)
        run.answer(f"k{n}")
        run.sent("k9", n + 1)
        run.rows("k0", "k1", "k9")
        getattr(run, ending)()
    kept = "select * exclude (run_id) from attempts order by journal_id, journal_offset"
    before, identity = ask(path, kept), value(path, "select ledger_id from ledger_identity")
    path.unlink()
    assert ask(path, kept) == before
    assert value(path, "select ledger_id from ledger_identity") == identity
    assert each_line_once(path)
    assert ask(path, "select run_id, plan_id, exit_code from runs order by 1") == [(1, 1, 0), (2, 1, None)]
    again = Booked(path)
    assert (again.run_id, again.plan_id) == (3, 1)
    assert again.start.plan.rows_stored == 0, "the list of rows is planned again from the input"
    assert again.start.plan.spent_usd == 2 * COST + 2 * WORST


# -- rule 10: copies --------------------------------------------------------------------------------


def paid(path, said=None):
    with Ledger(path, None if said is None else said.append).read() as connection:
        return connection.execute("select count(*), sum(cost_usd) from attempts").fetchall()


@pytest.mark.parametrize("name", ["{}-copy", "{} (1)", "a{}"])
def test_a_copy_of_a_journal_counts_once_warns_a_reader_and_stops_a_run(path, finished_run, name):
    said, copy = [], finished_run.path.with_stem(name.format(finished_run.path.stem))
    shutil.copy(finished_run.path, copy)
    assert paid(path, said) == [(1, COST)]
    assert said == [
        f"{copy} is a copy of the journal {finished_run.path.stem}, which is in the ledger: move it out of the folder"
    ]
    with pytest.raises(LedgerError, match="is a copy of the journal"):
        Booked(path)
    copy.unlink()
    assert Booked(path).start.plan.spent_usd == COST


def test_a_copy_counts_once_in_a_ledger_that_is_made_again_too(path, finished_run):
    shutil.copy(finished_run.path, finished_run.path.with_stem(f"{finished_run.path.stem}-copy"))
    path.unlink()
    said = []
    assert paid(path, said) == [(1, COST)]
    assert len(said) == 1


def test_a_run_with_a_copy_of_the_ledger_is_not_booked_beside_one_of_the_same_number(path, finished_run):
    assert value(path, "select count(*) from runs") == 1
    fork = path.with_name("fork.duckdb")
    shutil.copy(path, fork)
    shutil.copytree(Ledger(path).folder, Ledger(fork).folder)
    for each, key in ((path, "k2"), (fork, "k3")):
        run = Booked(each)
        run.answer(key)
        run.load()
        run.end()
    shutil.copy(run.path, Ledger(path).folder)
    said = []
    assert paid(path, said) == [(2, 2 * COST)]
    (told,) = said
    assert "its run 2 is in the ledger from the journal" in told
    assert ask(path, "select count(*) from runs") == [(2,)]
    with pytest.raises(LedgerError, match=r"what it holds is not booked\. Move it out of the folder"):
        Booked(path)


@pytest.mark.parametrize("loaded", ["to its end", "in part", "not"])
def test_a_journal_behind_another_in_one_file_is_not_booked(path, loaded):
    run = Booked(path)
    run.answer("k1")
    if loaded != "not":
        run.load()
    run.end()
    if loaded == "to its end":
        assert paid(path) == [(1, COST)]
    size = run.path.stat().st_size
    with run.path.open("ab") as file:
        file.write(run.path.read_bytes())
    said = []
    assert paid(path, said) == [(1, COST)]
    assert f"at byte {size} another journal begins, which somebody has put behind it" in said[0]
    with pytest.raises(LedgerError, match="Cut it off there, or restore the file"):
        Booked(path)
    with run.path.open("r+b") as file:
        file.truncate(size)
    assert Booked(path).start.plan.spent_usd == COST
