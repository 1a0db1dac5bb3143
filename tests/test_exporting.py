"""Results as files: what the view `results` says, in pieces of bounded size, whatever became of the rows."""

import csv
import json
import signal
from decimal import Decimal
from itertools import chain

import duckdb
import polars as pl
import pytest
from bookings import child, finished
from dying import hears
from project import Project, texts
from stub import StubServer
from stub_faults import status

from pipeline import api, exporting
from pipeline.errors import InputError
from pipeline.exporting import _write
from pipeline.ledger import Ledger
from pipeline.sources import InputSpec, open_source


def column(path, name):
    with path.open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def compact(value):
    return json.dumps(value, separators=(",", ":"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """45 rows, five of them repeated; some failed, some cut off, some reused from another job; one is pending."""
    monkeypatch.setattr(exporting, "PIECE_ROWS", 7)
    with StubServer(answer=lambda payload: payload["messages"][-1]["content"]) as stub:
        stub.faults = lambda number, _: status(400) if number % 9 == 0 else None
        project = Project(tmp_path, stub.base_url)
        project.rows([*texts(10), *({"id": f"l{n}", "text": "long " * (4 * n)} for n in range(5))])
        project.job("other", model="max_tokens = 8", concurrency=1)
        project.run("run", "other.toml", "--yes", code=None)
        project.rows([*texts(35), *texts(5), *({"id": f"l{n}", "text": "long " * (4 * n)} for n in range(5))])
        project.job(model="max_tokens = 8", concurrency=1)
        project.run("run", "job.toml", "--yes", "--limit", "44", code=None)
        project.run("retry", "job.toml", "--yes", "--limit", "10", code=None)
        yield project


def view(project):
    return project.sql("select * exclude (job, plan_id) from results where job = 'job' order by row_index")


def test_a_file_holds_what_the_view_says_to_the_last_digit(project):
    expected = view(project)
    assert {row["status"] for row in expected} >= {"ok", "rejected", "truncated"}
    assert {row["reused"] for row in expected} == {True, False}
    project.run("results", "job", "-o", "r.jsonl")
    lines = [json.loads(line) for line in (project.folder / "r.jsonl").read_text().splitlines()]
    assert [line | {"answered_at": None} for line in lines] == [row | {"answered_at": None} for row in expected]
    project.run("results", "job", "-o", "r.parquet")
    frame = pl.read_parquet(project.folder / "r.parquet")
    assert frame["key"].to_list() == [row["key"] for row in expected]
    assert frame["cost_usd"].to_list() == [Decimal(row["cost_usd"]) for row in expected]
    project.run("results", "job", "-o", "r.csv")
    with (project.folder / "r.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["output"] for row in cells] == [row["output"] or "" for row in expected]
    assert list(cells[0]) == frame.columns == list(expected[0])


OPENS = """
import sys, duckdb
with duckdb.connect(sys.argv[1]):
    print("open")
"""


def test_lines_are_written_after_the_ledger_was_closed(project, monkeypatch):
    real, seen = _write._write_jsonl, []

    def write_while_a_run_loads(part, rows):
        first = next(rows)
        seen.append(finished(child(OPENS, project.folder / "promptmill.duckdb")))
        return real(part, chain([first], rows))

    monkeypatch.setattr(_write, "_write_jsonl", write_while_a_run_loads)
    done = project.run("results", "job", "-o", "r.jsonl")
    assert seen == [(0, "open\n")], done


def test_with_input_each_row_has_its_own_text_and_answer(project):
    expected = {row["row_id"]: row for row in view(project)}
    others = {row["row_id"]: row for row in project.sql("from results where job = 'other'")}
    (project.folder / "day=1").mkdir()
    for name in ("r.jsonl", "r.parquet", "day=1/*[r].parquet"):
        project.run("results", "job.toml", "--with-input", "-o", name)
        file = (project.folder / name).read_bytes()
        rows = (pl.read_ndjson(file) if name.endswith("jsonl") else pl.read_parquet(file)).to_dicts()
        assert len(rows) == 45
        assert [row["row_index"] for row in rows] == list(range(45))
        for row in rows:
            said = expected.get(row["row_id"])
            if said is not None and row["row_index"] != said["row_index"]:
                continue  # a repeated id
            said = said or others[row["row_id"]]  # what a run would take over
            assert (row["status"], row["output"]) == (said["status"], said["output"])
        assert sum(Decimal(row["cost_usd"] or 0) for row in rows) == sum(
            Decimal(row["cost_usd"] or 0) for row in expected.values()
        )


def with_input(project, job, *args):
    project.run("results", job, "--with-input", "-o", "w.jsonl", *args)
    return [json.loads(line) for line in (project.folder / "w.jsonl").read_text().splitlines()]


def test_an_input_column_stands_for_no_result_column_in_whatever_case(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows([{"id": "a", "text": "t", "Status": "open", "STATUS": "shut", "input_status": "x", "Key": 1}])
    project.job()
    project.run("run", "job.toml", "--yes")
    (row,) = with_input(project, "job.toml")
    assert (row["status"], row["input_Key"], row["input_status"]) == ("ok", 1, "x")
    assert sorted(name.casefold() for name in row) == sorted({name.casefold() for name in row})
    assert {"open", "shut"} <= {value for name, value in row.items() if name.casefold().endswith("input_status")}


def test_with_input_too_it_is_said_that_an_earlier_plan_has_more_answers(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(6))
    project.job()
    project.run("run", "job.toml", "--yes")
    other = ("--set", "model.temperature=1")
    project.run("run", "job.toml", "--yes", "--limit", "1", *other)
    said = project.run("results", "job.toml", "--with-input", "-o", "w.jsonl", *other).stderr
    assert "plan 1 (run 1) has 6 rows that ended well, the newest one (run 2) 1" in said
    assert project.run("results", "job.toml", "--with-input", "-o", "w.jsonl").stderr == "", "all have their answers"


def test_with_input_finds_the_answers_of_every_plan_of_the_job(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows([*texts(6), *texts(2)])
    project.job()
    project.run("run", "job.toml", "--yes")
    first = project.sql("select row_index, output, cost_usd, attempts from results order by row_index")
    project.run("run", "job.toml", "--yes", "--set", "model.temperature=1", "--limit", "2")
    calls = stub.calls
    rows = with_input(project, "job.toml")
    assert [{name: row[name] for name in first[0]} for row in rows] == first
    assert [row["status"] for row in rows] == ["ok"] * 8
    changed = with_input(project, "job.toml", "--set", "model.temperature=1")
    assert [row["status"] for row in changed] == [*["ok"] * 2, *["pending"] * 4, *["ok"] * 2]
    assert [row["reused"] for row in changed] == [*[False] * 6, *[True] * 2]
    assert (changed[3]["attempts"], changed[3]["cost_usd"]) == (0, "0.000000000000"), "as by name"
    nothing = project.run("run", "job.toml", "--yes").stdout
    assert stub.calls == calls, nothing


@pytest.mark.parametrize(("reuse", "found"), [("ledger", "ok"), ("job", "pending")])
def test_with_input_finds_what_a_run_would_take_from_another_job(tmp_path, stub, reuse, found):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job("other")
    project.run("run", "other.toml", "--yes")
    project.rows(texts(4))
    project.job(more=f'[run]\nreuse = "{reuse}"')
    project.run("run", "job.toml", "--yes", "--set", "model.temperature=1")
    rows = with_input(project, "job.toml")
    assert [row["status"] for row in rows] == [found] * 3 + ["pending"]
    if reuse == "job":
        return
    assert [(row["reused"], row["attempts"], Decimal(row["cost_usd"])) for row in rows[:3]] == [(True, 0, 0)] * 3
    assert [json.loads(row["output"])["echo"] for row in rows[:3]] == [row["text"] for row in texts(3)]
    project.run("run", "job.toml", "--yes")
    after = with_input(project, "job.toml")
    assert after[:3] == rows[:3], "a run takes over what was shown before"


def test_with_input_shows_a_better_answer_of_another_job_as_a_run_would_take_it(project):
    before = {row["key"]: row["status"] for row in with_input(project, "job.toml")}
    project.job("third", model="max_tokens = 100", concurrency=1)
    project.run("run", "third.toml", "--yes", code=None)
    theirs = {row["key"] for row in project.sql("select key from results where job = 'third' and status = 'ok'")}
    after = {row["key"]: row["status"] for row in with_input(project, "job.toml")}
    assert after == {key: "ok" if key in theirs else status for key, status in before.items()}
    assert {before[key] for key in theirs} >= {"ok", "truncated"}


def test_dollars_are_spelled_alike_on_every_line(project):
    project.run("results", "job.toml", "--with-input", "-o", "r.jsonl")
    spelled = {json.loads(line)["cost_usd"] for line in (project.folder / "r.jsonl").read_text().splitlines()} - {None}
    assert {len(cost.partition(".")[2]) for cost in spelled} == {12}


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_nothing_is_left_beside_the_file(project, ending):
    (project.folder / f".r.{ending}.pieces").mkdir()
    (project.folder / f".r.{ending}.pieces" / "000000000.parquet").write_text("of a command that was killed")
    project.run("results", "job", "-o", f"r.{ending}")
    left = [path.name for path in project.folder.iterdir() if path.name.startswith(".r")]
    assert left == ([f".r.{ending}.pieces"] if ending == "csv" else [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_beside_the_file_of_a_command_that_is_told_to_end(project, number):
    """A service that is stopped, a terminal that is closed: with dated names nobody would ever clean up."""
    moment = "return pipeline.exporting._pieces.Pieces.add 1"
    done = hears(project, moment, number, "results", "job", "-o", "r.parquet")
    assert (done.returncode, "interrupted" in done.stderr) == (130, True), done.stderr
    assert [path.name for path in project.folder.iterdir() if "r.parquet" in path.name] == []


ODD = [
    {"n": 1, "deep": {"a": 1}, "list": [], "big": 1, "gone": None},
    {"n": True, "deep": {"b": [1]}, "list": [1], "big": 2**70, "gone": None},
    {"n": None, "deep": None, "list": [2.5], "big": 0, "gone": None, "more": "x"},
    {"n": 2.5, "deep": {"a": "text", "b": []}, "list": None, "big": -1, "gone": None},
]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_columns_of_a_file_are_those_of_all_rows_however_they_are_cut(tmp_path, monkeypatch, ending):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": f"r{number}", "text": f"t{number}", **odd} for number, odd in enumerate(ODD)])
        project.job()
        project.run("run", "job.toml", "--yes", "--limit", "2")
    project.run("results", "job.toml", "--with-input", "-o", f"whole.{ending}")
    monkeypatch.setattr(exporting, "PIECE_ROWS", 1)
    project.run("results", "job.toml", "--with-input", "-o", f"cut.{ending}")
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    if ending == "csv":
        assert cut.read_text() == whole.read_text()
    else:
        assert pl.read_parquet(cut).schema == pl.read_parquet(whole).schema
        assert pl.read_parquet(cut).equals(pl.read_parquet(whole))


@pytest.mark.parametrize(
    ("one", "other", "piece_rows"),
    [
        ({"a": 1}, "text", 1),
        (1, [1], 1),
        ({"a": 1}, {"a": {"b": 1}}, 50_000),
        ({"a": {"b": 1}}, {"a": [1]}, 1),
        ({"a": {"b": 1}}, {"a": "text"}, 50_000),
        ([{"a": 1}], [1], 1),
        (["text"], [{"a": 1}], 1),
        (1, 2**130, 1),
        (1, 2**130, 50_000),
    ],
)
def test_what_no_type_holds_is_an_error_that_names_the_column(tmp_path, monkeypatch, one, other, piece_rows):
    monkeypatch.setattr(exporting, "PIECE_ROWS", piece_rows)
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": "1", "text": "a", "odd": one}, {"id": "2", "text": "b", "odd": other}])
        project.job()
        project.run("run", "job.toml", "--yes")
    done = project.run("results", "job.toml", "--with-input", "-o", "out.parquet", code=2)
    assert "no type fits a column of the input ('odd'" in done.stderr
    assert "write .jsonl or .csv instead" in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]
    project.run("results", "job.toml", "--with-input", "-o", "out.csv")
    assert column(tmp_path / "out.csv", "odd") == [
        each if isinstance(each, str) else compact(each) for each in (one, other)
    ]
    project.run("results", "job.toml", "--with-input", "-o", "out.jsonl")
    assert [json.loads(line)["odd"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [one, other]


def of_many_types(rows):
    columns = {
        "id": (pl.String, str),
        "text": (pl.String, lambda n: f"text {n % 6}"),
        "status": (pl.UInt64, lambda n: 2**63 + n),
        "wide": (pl.Int128, lambda n: 10**20 + n),
        "at": (pl.Datetime("ns", "UTC"), lambda n: n * 10**9 + 1),
        "kind": (pl.Enum(["a", "b"]), lambda n: "ab"[n % 2]),
        "short": (pl.Float32, lambda _: 0.1),
        "price": (pl.Decimal(18, 10), Decimal),
        "map": (pl.Map(pl.String, pl.Int64), lambda n: {f"k{n}": n}),
        "parts": (pl.List(pl.Struct({"n": pl.UInt8, "b": pl.Binary})), lambda n: [{"n": n, "b": b"\xff"}]),
    }
    frame = pl.DataFrame({name: pl.Series([of(n) for n in rows], dtype=dtype) for name, (dtype, of) in columns.items()})
    endless = pl.Series([2**31 - 1 if n == 4 else n for n in rows], dtype=pl.Int32)
    return frame.with_columns(endless.cast(pl.Date).alias("day"))


@pytest.mark.parametrize("piece_rows", [2, 50_000])
def test_from_parquet_to_parquet_columns_keep_their_types(tmp_path, monkeypatch, piece_rows):
    monkeypatch.setattr(exporting, "PIECE_ROWS", piece_rows)
    (tmp_path / "data").mkdir()
    for name, rows in (("a", range(3)), ("b", range(0)), ("c", range(3, 8))):
        of_many_types(rows).write_parquet(tmp_path / f"data/{name}.parquet")
    with StubServer(answer=lambda payload: payload["messages"][-1]["content"]) as stub:
        project = Project(tmp_path, stub.base_url)
        project.job(data="data", more_input="where = \"id <> '2'\"")
        project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "--with-input", "-o", "out.parquet")
    given = of_many_types([0, 1, 3, 4, 5, 6, 7]).rename({"status": "input_status"})
    given = given.with_columns(pl.col("wide").cast(pl.Decimal(38, 0)))
    found = pl.read_parquet(tmp_path / "out.parquet")
    own = found.select(given.columns)
    assert own.schema == given.schema
    assert own.with_columns(pl.col("day").to_physical()).equals(given.with_columns(pl.col("day").to_physical()))
    assert found["row_index"].to_list() == [0, 1, 3, 4, 5, 6, 7]
    assert found["reused"].to_list() == [False] * 5 + [True] * 2
    assert found["output"].to_list() == given["text"].to_list()
    columns = ", ".join(f"typeof({name})" for name in ("input_status", "wide", "map", "day"))
    assert duckdb.sql(f"select {columns} from '{tmp_path}/out.parquet' limit 1").fetchall() == [
        (
            "UBIGINT",
            "DECIMAL(38,0)",
            "MAP(VARCHAR, BIGINT)",
            "DATE",
        )
    ]


def exported(project, name):
    project.run("results", "job.toml", "--with-input", "-o", name)
    return pl.read_parquet(project.folder / name)


def of(dtype, value=1):
    return pl.Series([value], dtype=dtype)


def days(number):
    return pl.Series([number], dtype=pl.Int32).cast(pl.Date)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((days(2**31 - 1), pl.Series(["n/a"])), ["infinity", "n/a"]),
        ((days(2**31 - 1), pl.Series([0]).cast(pl.Datetime("us"))), ["infinity", "1970-01-01T00:00:00.000000"]),
        ((of(pl.Duration("ns")), of(pl.Duration("ms"))), ["PT0.000000001S", "PT0.001S"]),
        ((pl.Series([0.1], dtype=pl.Float32), pl.Series([0.5])), [0.1, 0.5]),
        ((of(pl.Enum(["a"]), "a"), of(pl.Enum(["b"]), "b")), ["a", "b"]),
        ((pl.Series([b"\xff"]), pl.Series(["x"])), ["/w==", "x"]),
        ((of(pl.Int128, 2**127 - 1), of(pl.Int128)), [str(2**127 - 1), "1"]),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("piece_rows", [1, 50_000])
def test_values_whose_types_differ_between_files_are_what_a_prompt_says(
    tmp_path, monkeypatch, columns, expected, piece_rows
):
    monkeypatch.setattr(exporting, "PIECE_ROWS", piece_rows)
    (tmp_path / "data").mkdir()
    for name, series in zip("ab", columns, strict=True):
        pl.DataFrame({"text": [name], "k": series}).write_parquet(tmp_path / f"data/{name}.parquet")
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.job(data="data", more_input="")
        project.run("run", "job.toml", "--yes")
    assert exported(project, "out.parquet")["k"].to_list() == expected


@pytest.mark.parametrize("piece_rows", [1, 50_000])
def test_a_column_has_one_name_in_all_files_and_what_a_file_lacks_is_null(tmp_path, monkeypatch, piece_rows):
    monkeypatch.setattr(exporting, "PIECE_ROWS", piece_rows)
    (tmp_path / "data").mkdir()
    pl.DataFrame({"text": ["a"], "status": [1]}).write_parquet(tmp_path / "data/a.parquet")
    pl.DataFrame({"input_status": [2], "status": [3], "text": ["b"]}).write_parquet(tmp_path / "data/b.parquet")
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.job(data="data", more_input="")
        project.run("run", "job.toml", "--yes")
    found = exported(project, "out.parquet").select("text", "input_input_status", "input_status", "status")
    assert found.rows() == [("a", 1, None, "ok"), ("b", 3, 2, "ok")]


def test_a_parquet_file_that_changes_meanwhile_lends_its_rows_to_no_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"text": ["a", "b", "c"]}).write_parquet("rows.parquet")
    source = open_source(InputSpec("rows.parquet"))
    assert len([row for batch in source.batches() for row in batch]) == 3
    assert pl.concat(source.stored([0, 2]))["text"].to_list() == ["a", "c"]
    for rows in (["z", "a", "b", "c"], ["a"], []):
        pl.DataFrame({"text": pl.Series(rows, dtype=pl.String)}).write_parquet("rows.parquet")
        with pytest.raises(InputError, match=r"rows\.parquet was changed while it was read; give the command again"):
            list(source.stored([0, 2]))


def test_a_map_may_have_any_keys_in_every_file(tmp_path):
    copy = "copy (select 'a' as text, map {1: 'x'} as n, map {1.50: 'y'} as d, map {date '2026-01-02': 'z'} as t,"
    duckdb.execute(f"{copy} [{2**70}::hugeint] as l) to '{tmp_path}/rows.parquet'")
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.job(data="rows.parquet", more_input="")
        project.run("run", "job.toml", "--yes")
    expected = {"n": {"1": "x"}, "d": {"1.50": "y"}, "t": {"2026-01-02": "z"}}
    for ending in ("csv", "jsonl"):
        project.run("results", "job.toml", "--with-input", "-o", f"out.{ending}")
    with (tmp_path / "out.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert {name: json.loads(cells[name]) for name in expected} == expected
    assert {name: line[name] for name in expected} == expected


def test_a_cell_of_a_csv_file_has_the_members_of_its_own_row_only(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": str(n), "text": f"t{n}", "tags": {f"tag{n}": n}} for n in range(3)])
        project.job()
        project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "--with-input", "-o", "out.csv")
    assert column(tmp_path / "out.csv", "tags") == [f'{{"tag{n}":{n}}}' for n in range(3)]


def test_times_of_a_jsonl_file_are_utc_with_z_on_every_line(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": str(n), "text": f"t{n}", "order": order} for n, order in enumerate((1, 2**70))])
        project.job()
        project.run("run", "job.toml", "--yes")
    for more in ((), ("--with-input",)):
        project.run("results", "job.toml", *more, "-o", "out.jsonl")
        times = [json.loads(line)["answered_at"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert times == [
            row["answered_at"] for row in project.sql("select answered_at from results order by row_index")
        ]
        assert all(each.endswith("Z") for each in times)


def test_a_cell_of_a_csv_file_has_the_number_that_the_row_has(tmp_path):
    numbers = [9007199254740993, 1.5, 7, -3, 2**70, 0.1, True, None]
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": str(n), "text": f"t{n}", "order": order} for n, order in enumerate(numbers)])
        project.job()
        project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "--with-input", "-o", "out.csv")
    assert column(tmp_path / "out.csv", "order") == [
        "9007199254740993", "1.5", "7", "-3", str(2**70), "0.1", "true", ""
    ]  # fmt: skip


def test_columns_may_have_names_that_look_like_patterns_in_every_format(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows([{"id": "1", "text": "a", "^x$": "=1", "*": "b"}])
        project.job()
        project.run("run", "job.toml", "--yes")
    for ending in ("jsonl", "csv", "parquet"):
        project.run("results", "job.toml", "--with-input", "-o", f"out.{ending}")
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert (row["^x$"], row["*"]) == ("'=1", "b")


def test_a_program_exports_one_ledger_again_and_again(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(3))
        project.job()
        project.run("run", "job.toml", "--yes")
    ledger = Ledger(tmp_path / "promptmill.duckdb")
    for number in range(2):
        api.results(ledger, "job", tmp_path / f"{number}.jsonl")
    assert (tmp_path / "0.jsonl").read_text() == (tmp_path / "1.jsonl").read_text()


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_an_error_in_the_middle_of_a_file_leaves_nothing_behind(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(exporting, "PIECE_ROWS", 1)
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)
        rows = project.rows(texts(3))
        project.job()
        project.run("run", "job.toml", "--yes")
    rows.write_text(rows.read_text() + "{broken")
    project.run("results", "job.toml", "--with-input", "-o", f"out.{ending}", code=2)
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_a_line_with_a_number_beyond_64_bits_is_json_whatever_else_it_holds():
    value = {"large": 2**70, "nan": float("nan"), "list": [float("inf"), 1.5], "half": "\ud800"}
    read = json.loads(_write._json(value), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read == {"large": 2**70, "nan": None, "list": [None, 1.5], "half": "\ud800"}


@pytest.mark.parametrize("options", [(), ("--with-input",)])
def test_long_answers_are_held_a_few_at_a_time(tmp_path, stub, monkeypatch, options):
    stub.answer = lambda _: "word " * 1000
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(60))
    project.job(model="")
    project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", *options, "-o", "before.jsonl")
    fetched, real = [], exporting.frame_of

    def noted(*asked):
        frame = real(*asked)
        fetched.append(frame.height)
        return frame

    monkeypatch.setattr(exporting, "frame_of", noted)
    monkeypatch.setattr(exporting, "FIRST_ROWS", 5)
    monkeypatch.setattr(exporting, "PIECE_BYTES", 60_000)  # a dozen answers
    project.run("results", "job.toml", *options, "-o", "after.jsonl")
    assert (sum(fetched), max(fetched) < 15) == (60, True)
    assert (tmp_path / "after.jsonl").read_bytes() == (tmp_path / "before.jsonl").read_bytes()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_two_commands_never_write_one_file_together(project, ending):
    output = project.folder / f"r{ending}"
    project.run("results", "job", "-o", output.name)
    before = output.read_bytes()
    with _write._alone(output):
        refused = project.run("results", "job.toml", "--with-input", "-o", output.name, code=2).stderr
        assert f"-o {output.name}: another command is writing this file; wait for its end" in refused
    assert output.read_bytes() == before
    project.run("results", "job.toml", "--with-input", "-o", output.name)
    assert output.read_bytes() != before
    assert not list(project.folder.glob(".r.*"))


def test_a_decimal_that_no_type_holds_beside_the_others_is_no_null(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    (tmp_path / "in").mkdir()
    for name, amount, scale in (("a", "1234567890123.45", 2), ("b", "0.5", 30)):
        frame = pl.DataFrame(
            {"text": [name], "amount": [Decimal(amount)]}, {"amount": pl.Decimal(38, scale)} | {"text": pl.String}
        )
        frame.write_parquet(tmp_path / "in" / f"{name}.parquet")
    project.job(data="in", more_input="")
    project.run("run", "job.toml", "--yes")
    told = project.run("results", "job.toml", "--with-input", "-o", "r.parquet", code=2).stderr
    assert "no type fits a column of the input ('amount': " in told
    project.run("results", "job.toml", "--with-input", "-o", "r.jsonl")
    amounts = [json.loads(line)["amount"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [Decimal(amount) for amount in amounts] == [Decimal("1234567890123.45"), Decimal("0.5")]


def test_long_prompts_are_held_a_few_at_a_time(tmp_path, stub, monkeypatch):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(20))
    project.job()
    project.run("run", "job.toml", "--yes")
    before = project.run("results", "job.toml", "--with-input", "-o", "before.jsonl").stdout
    pieces, real = [], exporting._batched

    def counted(rows, sizes):
        for piece in real(rows, sizes):
            pieces.append(len(piece))
            assert all(row.request is None for row in piece)
            yield piece

    monkeypatch.setattr(exporting, "_batched", counted)
    monkeypatch.setattr(exporting, "PIECE_CHARACTERS", 100)
    assert project.run("results", "job.toml", "--with-input", "-o", "after.jsonl").stdout == before.replace(
        "before.jsonl", "after.jsonl"
    )
    assert (sum(pieces), max(pieces) < 5) == (20, True)
    assert (tmp_path / "after.jsonl").read_bytes() == (tmp_path / "before.jsonl").read_bytes()


def test_whole_numbers_in_answers_keep_their_digits_in_the_ledger_and_in_every_file(tmp_path, stub):
    numbers = [9400111899223197428400, 9400111899223197428401, 2**63, -(2**70), 7]
    stub.answer = lambda payload: f'{{"order": {payload["messages"][-1]["content"]},\n "more": [1.50, 20]}}'
    project = Project(tmp_path, stub.base_url)
    project.rows([{"id": str(n), "text": str(number), "own": number} for n, number in enumerate(numbers)])
    schema = 'schema = { type = "object", properties = { order = { type = "integer" } } }'
    project.job(more=f"[output]\n{schema}")
    project.run("run", "job.toml", "--yes")
    found = project.sql("select parsed->>'$.order' as n from results order by row_index")
    assert [row["n"] for row in found] == [str(number) for number in numbers]
    for more in ((), ("--with-input",)):
        project.run("results", "job.toml", "-o", "r.jsonl", *more)
        lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert [line["parsed"] for line in lines] == [{"order": number, "more": [1.5, 20]} for number in numbers]
        project.run("results", "job.toml", "-o", "r.parquet", *more)
        texts_of = pl.read_parquet(tmp_path / "r.parquet").get_column("parsed").to_list()
        assert [json.loads(text)["order"] for text in texts_of] == numbers
        project.run("results", "job.toml", "-o", "r.csv", *more)
        assert [json.loads(text)["order"] for text in pl.read_csv(tmp_path / "r.csv").get_column("parsed")] == numbers


def test_numbers_that_are_none_come_back_from_a_csv_file_as_they_were(tmp_path, stub):
    numbers = [0.5, float("nan"), float("inf"), -1.5, None]
    pl.DataFrame({"id": list("abcde"), "text": list("abcde"), "n": numbers}).write_parquet(tmp_path / "rows.parquet")
    project = Project(tmp_path, stub.base_url)
    project.job(data="rows.parquet")
    project.run("run", "job.toml", "--yes")
    project.run("results", "job.toml", "--with-input", "-o", "r.csv")
    assert pl.read_csv(tmp_path / "r.csv").get_column("n").equals(pl.Series("n", numbers), null_equal=True)
