"""Mistakes are found before money is spent: exit 2, nothing sent, no traceback, and words that help."""

import asyncio
import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest
from project import Project, texts
from stub_faults import status

from pipeline import api
from pipeline.errors import InputError
from pipeline.ledger import Ledger


@pytest.fixture
def project(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    return project


def refuse(project, stub, *says, arguments=("run", "job.toml", "--yes")):
    done = project.run(*arguments, code=2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for words in says:
        assert words in done.stderr, done.stderr
    assert stub.calls == 0
    assert len(done.stderr.strip().splitlines()) <= 4, "one clear error, not a wall of text"


def edit(project, old, new):
    path = project.folder / "job.toml"
    path.write_text(path.read_text().replace(old, new))


def test_a_missing_job_file_names_the_nearest_one(project, stub):
    project.job()
    refuse(project, stub, "there is no job file jop.toml", "did you mean 'job.toml'", arguments=("run", "jop.toml"))


def test_a_missing_input_file_is_named_with_the_nearest_one(project, stub):
    project.job(data="row.jsonl")
    refuse(project, stub, f"no file row.jsonl (seen from {project.folder}, where the command runs)", "rows.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_input_is_an_error(project, stub, content):
    (project.folder / "rows.jsonl").write_bytes(content)
    project.job()
    refuse(project, stub, "rows.jsonl", "no rows")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_broken_line_is_named_with_file_and_line_number(project, stub, ending):
    data = b'{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y"\n'
    path = project.folder / f"rows.jsonl{ending}"
    path.write_bytes(gzip.compress(data) if ending else data)
    project.job(data=path.name)
    refuse(project, stub, f"{path.name}:3")


def test_invalid_utf_8_is_named_with_its_line_number(project, stub):
    (project.folder / "rows.jsonl").write_bytes(b'{"id": "a", "text": "x"}\n{"id": "b", "text": "caf\xe9"}\n')
    project.job()
    refuse(project, stub, "rows.jsonl:2", "UTF-8")


def test_a_byte_order_mark_is_no_mistake(project, stub):
    (project.folder / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "with a mark"}\n')
    project.job()
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 1


def answers_yes(project, meanwhile):
    """What `run` does in a terminal where somebody takes their time to say yes."""

    async def watch(_):
        await asyncio.Event().wait()

    def confirm(*_):
        meanwhile()
        return True

    with contextlib.chdir(project.folder):
        job = api.open_job("job.toml")
        options = api.RunOptions(environ={}, watch=watch, notify=print, confirm=confirm)
        return api.run(job, Ledger(project.folder / "promptmill.duckdb"), options)


@pytest.mark.parametrize("what", ["other rows", "one row more", "another prompt"])
def test_what_changes_while_the_question_waits_is_not_sent(project, stub, what):
    rows = project.rows(texts(5))
    prompt = project.folder / "prompt.txt"
    prompt.write_text("Say: {{ text }}")
    project.job()
    job = project.folder / "job.toml"
    job.write_text(job.read_text().replace('user = "{{ text }}"', 'file = "prompt.txt"'))

    def change():
        if what == "another prompt":
            prompt.write_text("Shout: {{ text }}")
        else:
            project.rows(texts(6) if what == "one row more" else reversed(texts(5)), rows.name)

    with pytest.raises(InputError, match=r"changed after it was estimated, so nothing was sent"):
        answers_yes(project, change)
    assert stub.calls == 0
    assert answers_yes(project, rows.touch).exit_code == 0
    assert stub.calls == (6 if what == "one row more" else 5)
    assert project.value("select count(*) from runs") == 1


def test_a_run_that_goes_on_counts_duplicate_ids_among_the_rows_it_reads(project, stub):
    rows = [{"id": "same" if n < 3 or n >= 1100 else f"r{n}", "text": f"row {n}"} for n in range(1104)]
    stub.faults = lambda n, _: status(402, "no credit") if n == 6 else None
    project.rows(rows)
    project.job(concurrency=1)
    project.run("run", "job.toml", "--yes", code=4)
    stub.faults = None
    went_on = project.run("run", "job.toml", "--yes")
    assert stub.calls == 1105
    said = "3 rows repeat the 'id' of an earlier row, among the rows that this run read\n"
    assert said in went_on.stderr, "the last four; the first three are done"
    assert "repeat" not in project.run("run", "job.toml", "--yes").stderr


@pytest.mark.parametrize("command", [("check",), ("estimate",), ("run", "--yes")])
def test_rows_whose_prompt_would_say_null_or_nothing_are_a_warning_before_they_are_paid_for(project, stub, command):
    project.rows([*texts(4), {"id": "n", "text": None}, {"id": "m", "text": None}, {"id": "e", "text": " "}])
    project.job()
    done = project.run(command[0], "job.toml", *command[1:])
    assert "'text' is null in 2 of the first 7 rows, and the prompt says null there" in done.stderr
    assert """leave such rows out with [input] where = "text is not null", or write {{ text or "" }}""" in done.stderr
    assert "the prompt is blank in 1 of the first 7 rows" in done.stderr


@pytest.mark.parametrize("command", [("check",), ("estimate",), ("run", "--yes")])
@pytest.mark.parametrize(
    "template",
    [
        "{{ text }}",
        "{{ row }}",
        "{{ row['text'] | upper }}",
        "{{ parts }}",
        "{{ row.get('text') }}",
        "{% for name, value in row.items() %}{{ value }}{% endfor %}",
        "{% for name in row %}{{ row[name] }}{% endfor %}",
    ],
)
def test_bytes_that_the_prompt_would_have_as_base64_are_a_warning(project, stub, command, template):
    frame = pl.DataFrame({"id": ["a"], "text": [b"hello"], "other": ["x"], "parts": [[{"n": 1, "b": b"x"}]]})
    frame.write_parquet(project.folder / "rows.parquet")
    project.job(data="rows.parquet")
    edit(project, "{{ text }}", template)
    said = project.run(command[0], "job.toml", *command[1:]).stderr
    assert "bytes, which the prompt has as base64" in said
    edit(project, template, "{{ other }} {{ row.id }}")
    assert "bytes" not in project.run(command[0], "job.toml", *command[1:]).stderr


def test_bytes_in_a_later_file_are_told_too(project):
    pl.DataFrame({"id": ["a"], "text": ["x"]}).write_parquet(project.folder / "a.parquet")
    pl.DataFrame({"id": ["b"], "text": [b"x"]}).write_parquet(project.folder / "b.parquet")
    project.job(data="*.parquet")
    assert "'text' holds bytes" in project.run("check", "job.toml").stderr


@pytest.mark.parametrize(
    "template", ["{{ order.id }}", "{{ order['id'] }}", "{{ row.order.id }}", "{{ row['order']['id'] }}"]
)
def test_a_field_that_is_null_is_told_like_a_column(project, stub, template):
    project.rows([{"id": str(n), "text": "x", "order": {"id": None if n < 3 else n, "other": None}} for n in range(5)])
    project.job()
    edit(project, "{{ text }}", template)
    said = project.run("check", "job.toml").stderr
    assert "order.id' is null in 3 of the first 5 rows, and the prompt says null there" in said
    assert "write {{ " in said
    assert "where" not in said


@pytest.mark.parametrize("template", ["{{ text or '' }}!", "{% if text %}{{ text }}{% else %}-{% endif %}", "{{ id }}"])
def test_a_prompt_that_says_what_null_is_to_be_hears_nothing_of_it(project, stub, template):
    project.rows([*texts(4), {"id": "n", "text": None}])
    project.job()
    edit(project, "{{ text }}", template)
    assert "null" not in project.run("check", "job.toml").stderr


def test_duplicate_ids_are_a_warning_with_their_count(project, stub):
    project.rows([{"id": "same", "text": f"text {i}"} for i in range(4)])
    project.job()
    assert "3 rows repeat the 'id' of an earlier row\n" in project.run("run", "job.toml", "--yes").stderr
    assert stub.calls == 4
    assert "3 rows repeat the 'id'" in project.run("estimate", "job.toml").stderr
    assert "1 row repeats the 'id'" in project.run("estimate", "job.toml", "--limit", "2").stderr


def test_a_missing_template_column_is_named_with_the_nearest_one(project, stub):
    project.job()
    edit(project, "{{ text }}", "{{ txet }}")
    refuse(project, stub, "txet", "text")


def test_a_missing_id_column_is_named_with_the_nearest_one(project, stub):
    project.job(more_input='id = "idd"')
    refuse(project, stub, "idd", "'id'")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[limits]", "[limit]", ["[limit]", "did you mean 'limits'"]),
        ("concurrency", "concurency", ["concurency", "did you mean 'concurrency'"]),
        ("max_tokens = 50", "max_token = 50", ["max_token", "did you mean 'max_tokens'"]),
        ("max_tokens = 50", 'max_tokens = "50"', ["max_tokens must be a whole number, not a string"]),
        ("max_tokens = 50", "temperature = nan", ["temperature must be a finite number"]),
        ("max_tokens = 50", "seed = 99999999999999999999", ["seed is too large"]),
        ("max_tokens = 50", "extra = { a = [{ b = 99999999999999999999 }] }", ["extra.a[0].b is too large"]),
        ("max_tokens = 50", f"seed = {'9' * 5000}", ["not valid TOML"]),
        ("concurrency = 8", "requests_per_minute = inf", ["requests_per_minute must be a finite number"]),
        ("concurrency = 8", "requests_per_minute = 1e-320", ["requests_per_minute must be at least"]),
        ("concurrency = 8", "timeout_seconds = 1e18", ["timeout_seconds must be at most"]),
        ("max_tokens = 50", "max_tokens = 0", ["max_tokens must be at least 1"]),
        ("max_tokens = 50", "n = 3", ["n is not supported"]),
        ("concurrency = 8", "concurrency = true", ["concurrency must be a whole number, not true or false"]),
        ('id = "id"', 'bad_rows = "rejct"', ["bad_rows must be", "did you mean 'reject'"]),
        ('id = "id"', 'where = "nonsense = = 3"', ["where"]),
        ('id = "id"', "where = \"txet = 'x'\"", ["where", "text"]),
        ('input = "0.25"', "input = true", ["[price]"]),
        ('input = "0.25"', 'input = "-1"', ["[price]"]),
        ('input = "0.25"', 'inptu = "0.25"', ["inptu", "input"]),
        ('name = "test-model"', "", ["[model] name is missing"]),
        ("max_tokens = 50", 'dialect = "anthropic"', ["anthropic", "not in this version"]),
        ('user = "{{ text }}"', "", ["[prompt]"]),
        ('user = "{{ text }}"', 'user = "{{ text"', ["[prompt]"]),
        ('name = "job"', 'name = "my job/1"', ["name must be letters"]),
        ('path = "rows.jsonl"', 'path = "rows.csv"', ["rows.csv"]),
    ],
)
def test_a_mistake_in_the_job_file_is_named(project, stub, old, new, says):
    project.job()
    edit(project, old, new)
    refuse(project, stub, "job.toml" if "[" in says[0] or "must be" in says[0] else "", *says)


def test_a_job_file_that_is_not_toml_is_named_with_the_place(project, stub):
    project.job()
    edit(project, "[limits]", "[limits")
    refuse(project, stub, "job.toml is not valid TOML", "line")


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "abc"',
        'extra = { key = "abc" }',
        'api_key_env = "sk-abcdefghijklmnopqrstuvwxyz"',
        'base_url = "https://user:secret@example.com/v1"',
    ],
)
def test_a_key_in_the_job_file_is_refused_and_not_repeated(project, stub, line):
    project.job()
    edit(project, "max_tokens = 50", line)
    if "base_url" in line:
        edit(project, f'base_url = "{stub.base_url}"', "")
    refuse(project, stub, "api_key_env")
    assert "secret@" not in project.run("check", "job.toml", code=2).stderr
    assert "sk-abc" not in project.run("check", "job.toml", code=2).stderr


def test_a_missing_environment_variable_is_named(project, stub):
    project.job(model='api_key_env = "MY_PROVIDER_KEY"')
    refuse(project, stub, "MY_PROVIDER_KEY is not set")


def test_check_counts_the_rows_that_would_be_rejected(project, stub):
    path = project.rows(texts(20))
    lines = path.read_text().splitlines()
    lines[16] = lines[18] = "{broken"
    path.write_text("\n".join(lines))
    project.job(more_input='id = "id"\nbad_rows = "reject"')
    said = project.run("check", "job.toml").stderr
    assert "2 of the first 20 rows would be rejected, the first: rows.jsonl:17" in said
    assert "would be rejected" in json.loads(project.run("check", "job.toml", "--json").stdout)["warnings"][0]


def test_an_unknown_provider_names_the_nearest_preset(project, stub):
    project.job()
    edit(project, 'provider = "stub"', 'provider = "modellab"')
    edit(project, f'base_url = "{stub.base_url}"', "")
    refuse(project, stub, "modellab", "did you mean 'modelslab'")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ('{ type = "objekt" }', "not a valid JSON Schema"),
        ('{ "$ref" = "http://127.0.0.1:9/schema" }', "not a valid JSON Schema"),
        ('"text"', "schema must be a table"),
    ],
)
def test_a_schema_that_is_not_a_schema_is_an_error(project, stub, schema, says):
    project.job(more=f"[output]\nschema = {schema}")
    refuse(project, stub, says)


@pytest.mark.parametrize("command", [("run", "--yes"), ("run",), ("check",), ("estimate",)])
def test_a_limit_that_no_row_fits_is_an_error_and_books_nothing(project, stub, command):
    project.rows(texts(40))
    project.job()
    said = project.run(command[0], "job.toml", "--set", "limits.tokens_per_minute=10", *command[1:], code=2).stderr
    assert "no request fits [limits] tokens_per_minute = 10: the smallest of the first 40 needs" in said
    assert "max_tokens = 50" in said
    assert not (project.folder / "promptmill.duckdb").exists()
    project.run("run", "job.toml", "--yes")
    assert stub.calls == 40


def test_rows_that_a_limit_held_back_are_named_by_the_estimate_and_sent_when_it_is_raised(project, stub):
    stub.answer = lambda _: "fine"
    project.rows([*texts(3), {"id": "long", "text": "word " * 400}])
    project.job()
    low, high = ("--set", "limits.tokens_per_minute=200"), ("--set", "limits.tokens_per_minute=20000")
    assert (
        "1 request can't be sent: larger than [limits] tokens_per_minute = 200"
        in project.run("estimate", "job.toml", *low).stderr
    )
    project.run("run", "job.toml", "--yes", *low, code=3)
    assert "under a higher limit" in project.run("errors", "job.toml").stderr
    assert "nothing to send" in project.run("run", "job.toml", "--yes", *low, code=3).stdout
    project.run("run", "job.toml", "--yes", *high)
    assert project.value("select count(*) from results where status = 'ok'") == 4
    assert stub.calls == 4


def test_a_file_that_is_not_a_ledger_is_an_error(project, stub):
    project.job()
    (project.folder / "promptmill.duckdb").write_text("this is not a database, but it is long enough to look like one")
    refuse(project, stub, "not a DuckDB file")


def test_a_ledger_in_a_folder_that_does_not_exist_is_an_error(project, stub):
    project.job()
    arguments = ("run", "job.toml", "--yes", "--ledger", "no/such/folder/l.duckdb")
    refuse(project, stub, "no/such/folder", "--ledger", arguments=arguments)


@contextlib.contextmanager
def not_as_root():
    """Root may write everywhere, so it becomes somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_ledger_is_an_error_and_can_still_be_read(stub):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        project = Project(folder, stub.base_url)
        project.rows(texts(3))
        project.job()
        project.run("run", "job.toml", "--yes", "--limit", "1")
        places = [folder, folder / "promptmill.journal", *folder.rglob("*")]
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        with not_as_root():
            done = project.run("run", "job.toml", "--yes", code=2)
            assert project.value("select count(*) from results") == 1
        for place in places:
            place.chmod(0o755)
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert stub.calls == 1


def test_a_ledger_that_another_process_holds_is_an_error_that_names_it(project, stub, monkeypatch):
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "1")
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    command = [sys.executable, "-c", hold, str(project.folder / "promptmill.duckdb")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "open\n"
    monkeypatch.setattr("pipeline.ledger._connect.READER_PATIENCE", 0.2)
    try:
        done = project.run("run", "job.toml", "--yes", code=2)
    finally:
        holder.communicate("\n")
    assert f"process {holder.pid}" in done.stderr
    assert stub.calls == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rnu", "job.toml"), "did you mean 'run'"),
        (("run",), "Missing argument 'JOB'"),
        (("run", "job.toml", "--budget", "lots"), "not an amount"),
        (("run", "job.toml", "--budget", "1e400"), "at most 1,000,000,000,000"),
        (("run", "job.toml", "--set", "budget.usd=1e15"), "[budget] usd must be at most 1,000,000,000,000"),
        (("run", "job.toml", "--price", "1"), "--price"),
        (("run", "job.toml", "--limit", "x"), "'x' is not a whole number of at least 1"),
        (("run", "job.toml", "--limit", "0"), "'0' is not a whole number of at least 1"),
        (("estimate", "job.toml", "--pilot", "0"), "'0' is not a whole number of at least 1"),
        (("estimate", "--pilot"), "Missing argument 'JOB'"),
        (("run", "job.toml", "--set", "nonsense"), "--set"),
        (("retry", "job.toml", "--status", "fine"), "--status fine"),
        (("retry", "job.toml", "--max-tokens", "60", "--set", "model.max_tokens=70"), "say the same thing twice"),
        (("run", "job.toml", "--budget", "6", "--set", "budget.usd=7"), "say the same thing twice"),
        (("spend", "--by", "colour"), "colour"),
        (("spend", "--by", ""), "name at least one"),
        (("results", "job.toml", "-o", "out.xlsx"), ".jsonl"),
        (("sql", "drop table attempts"), "SQL"),
        (("sql", "select * from nowhere"), "nowhere"),
        (("sql", "select * from read_csv('/etc/hostname')"), "SQL"),
        (("status", "nobody"), "no job 'nobody'"),
        (("stop", "jbo.toml"), "there is no job file jbo.toml; did you mean 'job.toml'"),
        (("stop", "job.toml"), "is not running"),
        (("errors", "nobody"), "no job 'nobody'"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(project, stub, arguments, says):
    project.job()
    project.run("run", "job.toml", "--yes", "--limit", "1")
    done = project.run(*arguments, code=2)
    assert says in done.stderr
    assert stub.calls == 1


@pytest.mark.parametrize("command", ["status", "spend", "errors", "sql", "results"])
def test_a_reading_command_without_a_ledger_says_how_one_is_made(project, command):
    more = {"errors": ["job"], "sql": ["select 1"], "results": ["job", "-o", "out.jsonl"]}
    done = project.run(command, *more.get(command, []), code=2)
    assert "there is no ledger" in done.stderr
    assert "promptmill run" in done.stderr
    assert not (project.folder / "promptmill.duckdb").exists()


def test_data_in_a_folder_that_is_not_read_is_named(project, stub):
    folder = project.folder / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": "a", "text": "x"}\n')
    for name in ("b.csv", "c.json", "d.jsonl.bz2", "README.md", "_SUCCESS", ".hidden.csv"):
        (folder / name).write_text("x")
    project.job(data="data")
    done = project.run("check", "job.toml")
    assert "of the folder data these are not read: b.csv, c.json, d.jsonl.bz2\n" in done.stderr + done.stdout
    (folder / "b.csv").unlink()
    project.job(data="")
    refuse(project, stub, "[input] path is empty")


def test_a_price_that_does_not_count_behind_an_address_is_named_with_the_way_to_state_it(project, stub):
    path = project.job(more="[budget]\nusd = 1")
    text = path.read_text().replace('"stub"', '"deepseek"').replace('"test-model"', '"deepseek-flash"')
    path.write_text(text.replace('[price]\ninput = "0.25"\noutput = "2.00"', ""))
    refuse(project, stub, "No list counts behind base_url: if deepseek's own price holds there, --price 0.")


def test_a_misspelt_keyword_of_a_schema_is_told(project, stub):
    project.job()
    done = project.run("check", "job.toml", "--set", 'output.schema={type="object",requird=["a"]}')
    assert "did you mean 'required'?" in done.stderr + done.stdout
