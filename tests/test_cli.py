"""The command line's own manners: light at the start, safe in a terminal, quiet at the end of a pipe."""

import json
import os
import pwd
import re
import shlex
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from project import COMMAND, Project, texts
from stub_faults import every, status

from pipeline.cli._show import cell, money, table
from pipeline.ledger import schema
from pipeline.text import duration, json_text, printable

HEAVY = ("polars", "duckdb", "tiktoken", "httpx", "pyreqwest", "jinja2", "jsonschema_rs", "asyncio")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_control_characters_in_answers_never_reach_the_terminal_raw(tmp_path, stub):
    stub.answer = lambda _: "red \x1b[31m alarm\a\r\n\u202e end"
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    shown = project.run("sql", "select output from results").stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
    assert "alarm" in shown
    assert json.loads(project.run("sql", "--json", "select output from results").stdout)[0]["output"].startswith("red")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a\u21b5b"),
        ("a\tb", "a b"),
        ("\x1b[0m", "\ufffd[0m"),
        ("caf\u00e9 \u6f22", "caf\u00e9 \u6f22"),
    ],
)
def test_text_is_made_printable(text, shown):
    assert printable(text) == shown


UNSEEN = [
    0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180F, 0x200B, 0x200F, 0x202A, 0x202E, 0x2060,
    0x2065, 0x206F, 0x2800, 0x3164, 0xFE00, 0xFE0D, 0xFE0E, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF0, 0xFFF8, 0x1BCA0, 0x1D173,
    0xE0000, 0xE0001, 0xE0020, 0xE0100, 0xE01EF, 0xE0FFF,
]  # fmt: skip


@pytest.mark.parametrize("code", UNSEEN, ids=hex)
def test_what_nobody_can_see_is_shown(code):
    assert printable(f"ad{chr(code)}min") == "ad\ufffdmin"
    escaped = json_text([f"ad{chr(code)}min"], str)
    assert escaped.isascii()
    assert json.loads(escaped) == [f"ad{chr(code)}min"]


@pytest.mark.parametrize(
    "text", ["\u845b\U000e0100\u98fe", "\u1820\u180b\u1821", "\u2801\u2800\u2803", "\u2801 \u2801"]
)
def test_what_a_script_needs_beside_its_signs_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\u2764\ufe0f", "1\ufe0f\u20e3", "\u2194\ufe0e", "\u2139\ufe0f", "\u203c\ufe0f!"])
def test_the_mark_in_an_emoji_stays_but_hides_nothing(text):
    assert printable(text) == text
    assert printable(f"{text[:2]}\ufe0f\ufe0f") == f"{text[:2]}\ufffd\ufffd"
    assert printable("\ufe0f") == "\ufffd"
    assert printable("\u2800\ufe0f") == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unknown"),
        (Decimal(0), "$0.00"),
        (Decimal("0.000000000001"), "$0.000000000001"),
        (Decimal("12.340000"), "$12.34"),
        (Decimal("1E+3"), "$1000.00"),
    ],
)
def test_money_keeps_every_digit_that_says_something(amount, shown):
    assert money(amount) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "unknown"), (0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3660, "1 h 01 min"), (90000, "1 d 1 h")],
)
def test_durations_read_as_people_say_them(seconds, shown):
    assert duration(seconds) == shown


def test_a_table_is_aligned_and_says_when_it_is_empty():
    rows = [{"name": "a", "n": 5}, {"name": "longer", "n": None}]
    assert table(["name", "n"], rows) == "name    n\n------  -\na       5\nlonger"
    assert table(["name"], []) == "(no rows)"
    assert cell(Decimal("0.500000")) == "0.5"


def test_a_closed_pipe_ends_quietly(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    query = "select range from range(100000)"
    asked = subprocess.Popen(
        [*COMMAND, "sql", query], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    asked.stdout.readline()
    asked.stdout.close()
    assert asked.stderr.read() == ""
    asked.stderr.close()
    assert asked.wait(30) == 0


@pytest.mark.parametrize(
    "command", ["--help", "run --help", "status", "status --json", "errors job", "spend", "prices", "check job.toml"]
)
def test_a_reader_that_has_left_is_no_error(tmp_path, stub, command):
    """`grep -q` ends as soon as it has found something; a pipeline under `set -o pipefail` goes on."""
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            [*COMMAND, *command.split()], cwd=tmp_path, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(("command", "code"), [("errors job", 0), ("run job.toml", 2), ("sql 'select 1'", 0)])
def test_a_standard_error_that_takes_nothing_changes_no_exit_code(tmp_path, stub, command, code):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    stub.faults = every(1, status(400))
    project.run("run", "job.toml", "--yes", "--limit", "1", code=None)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *shlex.split(command)], cwd=tmp_path, env=project._env(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=full, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == code, done.stdout


def test_a_command_whose_folder_was_removed_says_so(tmp_path):
    """A release that is swapped under cron."""
    gone = tmp_path / "gone"
    gone.mkdir()
    project = Project(tmp_path)
    project.rows(texts(1))
    project.job()
    moves = "import os, shutil, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
    code = f"{moves}from pipeline.cli import main; main(sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(gone), "estimate", str(tmp_path / "job.toml")],
        env=project._env(), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the folder where this command runs has been removed; `cd` to one that is there" in done.stderr


def test_sql_reads_its_query_from_standard_input(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    project.run("run", "job.toml", "--yes")
    assert "2" in project.run("sql", stdin="select count(*) from results").stdout


def test_check_shows_parts_and_other_fields_of_messages_as_json_and_cuts_pictures(tmp_path):
    picture = f"data:image/png;base64,{'iVBOR' * 300_000}="
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    chat = [
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "it's \x1b[31m"}, {"type": "image_url", "image_url": {"url": picture}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        {"role": "user", "content": f"{'word ' * 100}\nits bytes: {'QUJjYWI1' * 50}=="},
    ]  # fmt: skip
    project = Project(tmp_path)
    project.rows([{"id": "r0", "chat": chat}])
    text = project.job().read_text(encoding="utf-8").replace('user = "{{ text }}"', 'messages_column = "chat"')
    project.job(text=text)
    shown = project.run("check", "job.toml").stdout
    assert shown.partition("\n--- user ---\n")[2].splitlines()[:-1] == [
        """{"type": "text", "text": "it's \\u001b[31m"}""",
        f'{{"type": "image_url", "image_url": {{"url": "{picture[:60]}\u2026 (1,500,023 characters)"}}}}',
        'name: "ann"',
        "",
        "--- assistant ---",
        f"tool_calls: [{json.dumps(call)}]",
        "",
        "--- tool ---",
        "seen",
        'tool_call_id: "call_1"',
        "",
        "--- user ---",
        "word " * 100,
        f"its bytes: {('QUJjYWI1' * 50)[:60]}\u2026 (402 characters)",
        "",
    ]
    assert json.loads(project.run("check", "job.toml", "--json").stdout)["messages"] == chat


def test_a_user_without_a_home_needs_none(tmp_path, stub, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    project = Project(tmp_path, stub.base_url)
    monkeypatch.setattr(project, "_env", lambda: {"COLUMNS": "120"})
    project.rows(texts(2))
    project.job()
    for command in (("check", "job.toml"), ("estimate", "job.toml"), ("run", "job.toml", "--yes"), ("prices",)):
        project.run(*command)


def test_what_a_run_makes_is_the_groups_too_if_the_umask_says_so(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    before = os.umask(0o002)
    try:
        project.run("run", "job.toml", "--yes", "--log", "run.log")
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in {"job.toml", "rows.jsonl"}]
    assert {path.suffix for path in made} >= {".duckdb", ".gate", ".jsonl", ".lock", ".log"}
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in made} == {path.name: "0o664" for path in made}


def test_a_ledger_is_the_same_by_whatever_link_it_is_reached(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job()
    (tmp_path / "real").mkdir()
    (tmp_path / "link.duckdb").symlink_to("real/ledger.duckdb")
    project.run("run", "job.toml", "--yes", "--limit", "1", "--ledger", "link.duckdb")
    project.run("run", "job.toml", "--yes", "--ledger", "real/ledger.duckdb")
    said = project.run("status", "--ledger", "link.duckdb")
    assert (said.stderr, stub.calls) == ("", 3)
    assert {path.name for path in tmp_path.iterdir()} == {"job.toml", "rows.jsonl", "real", "link.duckdb"}


def test_a_command_that_brings_a_ledger_up_to_this_version_says_once_what_that_means(tmp_path, stub, monkeypatch):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(2))
    project.job()
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:-1])
        older.setattr(schema, "NEWEST", schema.NEWEST - 1)
        project.run("run", "job.toml", "--yes", "--limit", "1")
    said = project.run("run", "job.toml", "--yes").stderr
    steps = f"(schema step {schema.NEWEST - 1} to {schema.NEWEST})"
    assert (
        said.count(f"was made by an older promptmill and is brought up to this one {steps}: the older one can't") == 1
    )
    assert "older promptmill" not in project.run("status").stderr


def test_sql_works_in_utc_wherever_it_is_asked(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.environ["TZ"] = "Asia/Tokyo"
    project.rows(texts(2))
    project.job()
    project.run("run", "job.toml", "--yes")
    asked = project.start(
        "sql", "--json", "select count(*) n from attempts where sent_at between now() - interval 1 hour and now()"
    )
    assert json.loads(asked.communicate(timeout=30)[0]) == [{"n": 2}]


def test_json_says_that_times_are_utc_and_null_for_what_is_no_number(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    project.job()
    project.run("run", "job.toml", "--yes")
    shown = project.sql(
        "select timestamp '2026-11-29 01:02:03' t, 1e308 * 10 i, 'nan'::double n, [0.5, 'nan'::double] l"
    )
    assert shown == [{"t": "2026-11-29T01:02:03Z", "i": None, "n": None, "l": [0.5, None]}]


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_keeps_no_run_from_its_work(tmp_path, stub, closed):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job()
    command = f"{shlex.join(COMMAND)} run job.toml --yes --json {closed}"
    done = subprocess.run(command, shell=True, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert ('"ok": 3' in done.stdout) == ("1>" not in closed)
    assert project.value("select count(*) from results where status = 'ok'") == 3


@pytest.mark.parametrize(
    ("options", "question"),
    [
        ((), r"Send 3 requests for about \$0\.\d+ \(at most \$0\.\d+; no budget is set\)\? \[y/N\]"),
        (("--budget", "5"), r"Send 3 requests for about \$0\.\d+ \(at most \$0\.\d+; the budget is \$5\.00\)\?"),
        (("--set", "price.input=0", "--limit", "1"), r"Send 1 request for about \$0\.\d+ \("),
    ],
)
def test_the_question_names_the_dollars(tmp_path, stub, options, question):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job()
    ours, theirs = os.openpty()
    asked = subprocess.Popen([*COMMAND, "run", "job.toml", *options], cwd=tmp_path, stdin=theirs, stderr=theirs)
    os.close(theirs)
    said = ""
    while "[y/N]" not in said:
        said += os.read(ours, 4096).decode()
    assert re.search(question, said)
    assert "new ledger promptmill.duckdb" in said
    os.write(ours, b"n\n")
    assert asked.wait(60) == 2
    os.close(ours)
    assert stub.calls == 0


def test_a_run_that_makes_its_ledger_says_so_once(tmp_path, stub):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(3))
    project.job()
    news = "promptmill: new ledger other.duckdb\n"
    assert "new ledger" not in project.run("estimate", "job.toml", "--ledger", "other.duckdb").stderr, "none is made"
    assert project.run("run", "job.toml", "--yes", "--ledger", "other.duckdb").stderr.count(news) == 1
    assert "new ledger" not in project.run("run", "job.toml", "--yes", "--ledger", "other.duckdb").stderr
    assert "new ledger" not in project.run("run", "job.toml", "--yes", "--quiet").stderr
    pilot = project.run("estimate", "job.toml", "--pilot", "2", "--ledger", "third.duckdb")
    assert pilot.stderr.count("new ledger third.duckdb") == 1


def test_the_module_is_the_command(tmp_path):
    project = Project(tmp_path)
    assert "promptmill" in project.process("--version").stdout


@pytest.mark.parametrize("number", ["99999999999999999999", str(2**63)])
def test_a_number_that_no_ledger_can_book_is_a_mistake(tmp_path, number):
    project = Project(tmp_path)
    project.rows(texts(1))
    project.job()
    assert (
        "is more than 9,223,372,036,854,775,807"
        in project.run("estimate", "job.toml", "--limit", number, code=2).stderr
    )


def test_a_time_that_this_clock_has_no_moment_for_is_a_mistake(tmp_path, monkeypatch):
    project = Project(tmp_path)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        said = project.run("run", "job.toml", "--until", "9999-12-31T23:59", code=2).stderr
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "is no time" in said
