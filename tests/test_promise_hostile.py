"""Hostile data: what strangers wrote into rows, answers and errors changes nothing but the row it belongs to.

Rows and answers are never rendered, run or obeyed, by a terminal or a spreadsheet either; whatever their size, one row
gets one clear outcome in bounded memory; and `promptmill sql` reads the ledger and nothing else.
"""

import contextlib
import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import zlib
from datetime import date, datetime

import duckdb
import polars as pl
import pytest
from project import COMMAND, Project, texts
from raw_server import answer, raw_server
from stub import StubServer
from stub_faults import Fault, error_body, huge, status

from pipeline.errors import UsageError, WireError
from pipeline.exporting import guard
from pipeline.ledger import _asking
from pipeline.ledger._connect import reading
from pipeline.text import json_text, printable
from pipeline.wire import WireOptions, open_wire

NASTY = "\x1b[31mred\x1b]0;title\x07\r\x08\x00\x7f\x9b2J\u202eright\u2066\u200b\u2028end\ufeff"
"""Terminal escapes in 7 and 8 bits, a bell, a carriage return, NUL, DEL, direction overrides, line separators."""
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture
def project(tmp_path, stub):
    return Project(tmp_path, stub.base_url)


@pytest.fixture
def answered(project):
    """A project with a ledger of three rows."""
    project.rows(texts(3))
    project.job()
    project.run("run", "job.toml", "--yes")
    return project


# Templates


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7 * 7 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{# gone #}",
        "{{ ''.__class__.__mro__ }}",
        "{{ id }} {{ undefined }}",
        "${7*7} #{7*7} <%= 7*7 %> %s {0}",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
    ],
)
def test_template_marks_in_data_are_sent_and_stored_as_they_are(project, stub, text):
    project.rows([{"id": text, "text": text}])
    project.job()
    project.run("run", "job.toml", "--yes")
    (request,) = stub.requests
    assert request.payload["messages"][-1]["content"] == text
    assert json.loads(project.value("select output from results"))["echo"] == text
    assert project.value("select row_id from results") == text


# Terminals


def test_nothing_of_a_strangers_text_is_printed_raw_by_any_command(tmp_path):
    with StubServer() as stub:
        project = Project(tmp_path, stub.base_url)

        def fault(_, payload):
            text = payload["messages"][-1]["content"]
            edit = {"id": NASTY, "model": f"model{NASTY}"}
            kinds = {
                "400": status(400, f"bad {NASTY}", code=f"code{NASTY}"),
                "500": status(500, body=f"<title>{NASTY}</title>".encode()),
                "in 200": Fault(
                    "in 200", billed=False, body=error_body(f"bad {NASTY}", f"type{NASTY}", f"code{NASTY}")
                ),
                "402": status(402, f"pay {NASTY}"),
            }
            return kinds.get(text, Fault("answer", edit=lambda body: body.update(edit)))

        stub.faults = fault
        stub.answer = lambda _: f'{{"{NASTY}": "{NASTY}"}}'
        data = f"rows{NASTY}.jsonl".replace("\x00", "").replace("/", "")
        rows = [
            {"id": f"{text}{NASTY}", "text": text, f"=column{NASTY}": NASTY} for text in ("ok", "400", "500", "in 200")
        ]
        project.rows(rows, name=data)
        toml = json.dumps(data)
        text = project.job(more="[retry]\nattempts = 1\n[output]\nschema = { type = 'object' }").read_text()
        text = text.replace('"rows.jsonl"', toml).replace(
            '"test-model"', json.dumps(f"model{NASTY}".replace("\x00", ""))
        )
        project.job(text=text)
        outputs = [project.run("check", "job.toml"), project.run("estimate", "job.toml")]
        outputs.append(project.run("run", "job.toml", "--yes", "--log", "night.log", code=3))
        project.rows([*rows, {"id": NASTY, "text": "402"}], name=data)
        outputs.append(project.run("run", "job.toml", "--yes", "--log", "night.log", "--log-level", "debug", code=4))
        for command in (
            ("status",), ("errors", "job.toml"), ("spend", "--by", "model"), ("check", "job.toml"),
            ("estimate", "job.toml"), ("sql", "select * from attempts"), ("sql", "select * from results"),
            ("sql", "pivot results on row_id using count(*)"), ("sql", "select key, output from answers"),
        ):  # fmt: skip
            outputs += [project.run(*command), project.run(*command, "--json")]
            json.loads(outputs[-1].stdout)
        outputs.append(project.run("sql", "select error::integer from attempts where error is not null", code=2))
        outputs.append(project.run("results", "job.toml", "--with-input", "-o", f"out{NASTY}.csv".replace("\x00", "")))
        outputs.append(project.run("results", "job.toml", "-o", f"{NASTY}/x.csv".replace("\x00", ""), code=2))
        outputs.append(project.run("run", f"no{NASTY}.toml".replace("\x00", ""), code=2))
        outputs.append(project.run("status", f"--{NASTY}", code=2))
        outputs.append(project.run(NASTY, code=2))
        printed = [text for done in outputs for text in (done.stdout, done.stderr)]
        printed.append((tmp_path / "night.log").read_text(encoding="utf-8"))
        for text in printed:
            raw = RAW.search(text)
            assert raw is None, f"{raw.group()!r} in {text[max(0, raw.start() - 200) : raw.end() + 50]!r}"
        assert any("red" in text for text in printed)


def test_json_holds_the_exact_text_in_escapes(answered):
    escaped = answered.run(
        "sql", "--json", "select chr(155) || chr(8238) || chr(127) || chr(917505) || 'é漢' as t"
    ).stdout
    assert json.loads(escaped) == [{"t": "\x9b\u202e\x7f\U000e0001é漢"}]
    assert r'"\u009b\u202e\u007f\udb40\udc01é漢"' in escaped


def test_json_text_of_any_text_is_harmless_and_exact():
    for first in range(0, 0x110000, 0x1000):
        text = "".join(chr(code) for code in range(first, first + 0x1000) if not 0xD800 <= code < 0xE000)
        shown = json_text(text, str)
        assert json.loads(shown) == text
        assert not RAW.search(shown)
        assert not RAW.search(printable(text))


def test_a_terminal_without_unicode_gets_escapes_instead_of_an_error(answered):
    environ = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}

    def asked(*options):
        command = [*COMMAND, "sql", *options, "select '漢😀\xe9' as t"]
        done = subprocess.run(command, cwd=answered.folder, env=environ, capture_output=True, check=True)
        return done.stdout.decode("latin-1")

    assert "\\u6f22\\U0001f600\xe9" in asked()
    assert json.loads(asked("--json")) == [{"t": "漢😀\xe9"}]


# Spreadsheets

FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\rx", " =1", "\n=1", "'=1", '"=1"', "\u00a0=1", "\uff1d1", "\uff0b1+1",
    "\uff0d1+1", "\uff20A1", "\ufeff=1", "\x00=1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x.example","y")', "-",
    "- item",
]  # fmt: skip
HARMLESS = ["", "text", "1", "-1", "+1.5", "-1e5", "+.5", "a=1", "1-2", "\nHello", "{}", "'quoted'", None]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    frame, count = guard(pl.DataFrame({"a": [text]}))
    assert frame["a"].to_list() == [f"'{text}"]
    assert count == 1


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_and_plain_numbers_stay_as_they_are(text):
    frame, count = guard(pl.DataFrame({"a": [text]}, schema={"a": pl.String}))
    assert frame["a"].to_list() == [text]
    assert count == 0


def test_a_csv_export_guards_cells_and_column_names_and_says_how_many(project, stub):
    stub.answer = lambda payload: payload["messages"][-1]["content"]
    kept = [text for text in FORMULAS if text.strip()]
    project.rows([{"id": f"={n}", "text": text, "=col": "+x", "'=col": "y", "n": -5} for n, text in enumerate(kept)])
    project.job()
    project.run("run", "job.toml", "--yes")
    done = project.run("results", "job.toml", "--with-input", "-o", "out.csv")
    with (project.folder / "out.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    assert [cell["output"] for cell in cells] == [f"'{text}" for text in kept]
    assert [cell["row_id"] for cell in cells] == [f"'={n}" for n in range(len(kept))]
    assert {cell["n"] for cell in cells} == {"-5"}
    assert not any(name.lstrip().startswith(("=", "+", "-", "@")) for name in head)
    assert len(set(head)) == len(head)
    changed = sum(value.startswith("'") for cell in cells for value in cell.values()) + 2
    assert f"{changed} cells of out.csv began as a spreadsheet's formula does" in done.stderr
    for ending in ("jsonl", "parquet"):
        done = project.run("results", "job.toml", "--with-input", "-o", f"out.{ending}")
        assert done.stderr == ""
    assert pl.read_parquet(project.folder / "out.parquet")["output"].to_list() == kept
    lines = (project.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["output"] for line in lines] == kept


def test_an_ordinary_export_says_nothing_of_formulas(answered):
    assert answered.run("results", "job.toml", "-o", "out.csv").stderr == ""


# Odd content


def test_nul_bytes_and_half_characters_make_the_round_trip(project, stub):
    stub.answer = lambda _: "nul\x00 in an answer, \ud83d".encode("utf-8", "replace").decode()
    stub.faults = lambda *_: Fault("half", damage=lambda body: body.replace(b", ?", b", \\ud83d"))
    project.rows([{"id": "a\x00b", "text": "x\x00y"}])
    project.job()
    project.run("run", "job.toml", "--yes")
    exact = "nul\x00 in an answer, \ufffd"
    assert project.sql("select row_id, output from results") == [{"row_id": "a\x00b", "output": exact}]
    for ending in ("jsonl", "parquet", "csv"):
        project.run("results", "job.toml", "--with-input", "-o", f"out.{ending}")
    line = json.loads((project.folder / "out.jsonl").read_text(encoding="utf-8"))
    frames = [pl.read_parquet(project.folder / "out.parquet"), pl.read_csv(project.folder / "out.csv")]
    for row in [line, *(frame.row(0, named=True) for frame in frames)]:
        assert (row["row_id"], row["text"], row["output"]) == ("a\x00b", "x\x00y", exact)


def nested(depth):
    return "[" * depth + "]" * depth


def test_deep_json_in_rows_answers_and_usage_gets_one_clear_outcome(project, stub):
    stub.answer = lambda payload: nested(int(payload["messages"][-1]["content"].removesuffix(" usage")))

    def fault(_, payload):
        if not payload["messages"][-1]["content"].endswith("usage"):
            return None
        return Fault(
            "deep usage", damage=lambda body: body.replace(b'"usage":{', b'"usage":{"x":%s,' % nested(900).encode())
        )

    stub.faults = fault
    rows = [{"id": text, "text": text} for text in ("5", "200", "600", "5000", "6 usage")]
    path = project.rows(rows)
    path.write_text(path.read_text() + f'{{"id": "row", "text": "7", "deep": {nested(5000)}}}\n', encoding="utf-8")
    project.job(more_input='id = "id"\nbad_rows = "reject"', more='[output]\nschema = { type = "array" }')
    project.run("run", "job.toml", "--yes", code=3)
    ended = {row["row_id"]: row for row in project.sql("select row_id, status, error, cost_usd from results")}
    assert {name: row["status"] for name, row in ended.items()} == {
        "5": "ok", "200": "ok", "600": "invalid", "5000": "invalid", "6 usage": "ok", "6": "rejected",
    }  # fmt: skip
    assert "nested too deeply" in ended["600"]["error"]
    assert all(row["cost_usd"] is not None for name, row in ended.items() if name != "6"), "paid for, and booked"


def test_a_huge_row_is_one_row_like_any_other(project, stub):
    stub.answer = lambda _: "short"
    project.rows([{"id": "huge", "text": "word " * 4_000_000}, {"id": "small", "text": "y"}])
    project.job()
    project.run("run", "job.toml", "--yes")
    assert [row["status"] for row in project.sql("select status from results")] == ["ok", "ok"]
    assert len(stub.requests) == 2


# Huge answers


@pytest.mark.parametrize(
    ("concurrency", "mebibytes"), [(1, 32), (16, 32), (17, 30.117), (32, 16), (128, 4), (256, 4), (100_000, 4)]
)
def test_the_room_for_one_answer_is_a_fair_share_within_reason(concurrency, mebibytes):
    limit = WireOptions(concurrency=concurrency).body_limit
    assert limit == pytest.approx(mebibytes * 2**20, rel=1e-3)
    assert WireOptions(concurrency=concurrency, max_body_bytes=7).body_limit == 7


def test_answers_of_200_mb_are_given_up_and_never_asked_for_again(project, stub):
    stub.faults = lambda n, _: huge(200_000_000) if n % 2 else None
    project.rows(texts(6))
    project.job(concurrency=6)
    project.run("run", "job.toml", "--yes", code=3)
    assert stub.calls == 6
    ended = project.sql("select status, error_type, cost_usd from results where status <> 'ok'")
    assert ended == [{"status": "rejected", "error_type": "too_large", "cost_usd": None}] * 3
    assert project.value("select count(*) from results where status = 'ok'") == 3


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")  # noqa: PTH110
@pytest.mark.parametrize("wire", ["auto", "native", "httpx"])
def test_many_huge_answers_at_once_stay_in_bounded_memory(tmp_path, wire):
    with StubServer() as stub:
        blown_up = Fault("huge", body=b" " * 20_000_000)
        stub.faults = lambda *_: blown_up
        project = Project(tmp_path, stub.base_url)
        project.rows(texts(40))
        project.job(concurrency=32, more="[stop]\nsame_rejections = 0")
        script = (
            "import sys\nfrom pipeline.cli import main\n"
            f"try: main(['run', 'job.toml', '--yes', '--set', 'limits.wire=\"{wire}\"'])\nexcept SystemExit: pass\n"
            "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert stub.calls == 40
    peak = int(done.stdout.split()[-1]) * 1024
    assert peak < 1.4e9, f"{peak:,} bytes: 32 answers of 16 MiB are 0.5 GB, twice that while they are put together"


def packed_zeros(how, size=200_000_000):
    """Some 200 kB that unpack to 200 MB, made without holding them."""
    pack = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15, "raw": -15}[how])
    zeros = b"\0" * 1_000_000
    return b"".join([*(pack.compress(zeros) for _ in range(size // len(zeros))), pack.flush()])


@pytest.mark.parametrize("kind", ["auto", "native", "httpx"])
@pytest.mark.parametrize("how", ["gzip", "deflate"])
async def test_a_bomb_is_given_up_where_it_crosses_the_limit(kind, how):
    bomb = packed_zeros(how)
    assert len(bomb) < 250_000

    async def script(_, peer):
        await peer.send(answer(200, bomb, f"Content-Encoding: {how}"))

    wire = open_wire(kind, WireOptions(timeout_seconds=30, max_body_bytes=4 * 2**20, direct=True))
    tracemalloc.start()
    async with raw_server(script) as server:
        with pytest.raises(WireError) as caught:
            await wire.post(server.url, {}, b"{}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    await wire.close()
    assert (caught.value.kind, caught.value.maybe_sent) == ("too_large", True)
    assert peak < 20 * 2**20


@pytest.mark.parametrize("how", ["gzip", "deflate", "raw"])
@pytest.mark.parametrize("kind", ["auto", "native", "httpx"])
async def test_a_packed_answer_in_small_pieces_is_read_whole(kind, how):
    if (kind, how) == ("native", "raw"):
        pytest.skip("the native library wants the two-byte header that the standard asks for")
    whole = json.dumps(list(range(5000))).encode()
    pack = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15, "raw": -15}[how])
    packed = pack.compress(whole) + pack.flush()

    async def script(_, peer):
        encoding = "deflate" if how == "raw" else how
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n"
        await peer.send(head.encode())
        for start in range(0, len(packed), 1000):
            await peer.send(packed[start : start + 1000])

    wire = open_wire(kind, WireOptions(timeout_seconds=30, direct=True))
    async with raw_server(script) as server:
        assert (await wire.post(server.url, {}, b"{}")).body == whole
    await wire.close()


@pytest.mark.parametrize("kind", ["auto", "native", "httpx"])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip at all"),
        ("gzip", gzip.compress(b"x" * 9999, mtime=0)[:-20]),
        ("deflate", b"\xff\xff\xff\xff"),
    ],
)
async def test_an_answer_that_cannot_be_unpacked_is_broken_and_may_have_been_billed(kind, encoding, body):
    async def script(_, peer):
        await peer.send(answer(200, body, f"Content-Encoding: {encoding}"))

    wire = open_wire(kind, WireOptions(timeout_seconds=30, direct=True))
    async with raw_server(script) as server:
        with pytest.raises(WireError) as caught:
            await wire.post(server.url, {}, b"{}")
    await wire.close()
    assert (caught.value.kind, caught.value.maybe_sent) == ("broken", True)


async def long_head(peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nX-A: ")
    await peer.send(b"x" * 200_000_000)


async def endless_heads(peer):
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await peer.send(b"X-A: yyyyyyyyyyyyyyyyyyyy\r\n" * 1000)


async def endless_trailers(peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    while True:
        await peer.send(b"X-A: yyyyyyyyyyyyyyyyyyyy\r\n" * 1000)


async def endless_chunk_extension(peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    while True:
        await peer.send(b"y" * 100_000)


async def endless_chunks(peer):
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await peer.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")


async def endless_continues(peer):
    while True:
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("kind", ["auto", "native", "httpx"])
@pytest.mark.parametrize(
    ("script", "ends"),
    [
        (long_head, "broken"),
        (endless_heads, "broken"),
        (endless_trailers, "broken"),
        (endless_chunk_extension, "broken"),
        (endless_chunks, "too_large"),
        (endless_continues, "timeout"),
    ],
)
async def test_an_answer_that_never_ends_is_given_up_in_bounded_time_and_memory(kind, script, ends):
    patience = 1 if ends == "timeout" else 30
    wire = open_wire(kind, WireOptions(timeout_seconds=patience, max_body_bytes=2**20, direct=True))
    async with raw_server(lambda _, peer: script(peer)) as server:
        with pytest.raises(WireError) as caught:
            await wire.post(server.url, {}, b"{}")
    await wire.close()
    assert (caught.value.kind, caught.value.maybe_sent) == (ends, True)


# SQL

REACHES_OUT = [
    "copy results to 'stolen.csv'",
    "copy (select 1) to '/dev/stdout'",
    "copy attempts from 'rows.jsonl'",
    "export database 'stolen'",
    "import database 'stolen'",
    "attach 'other.duckdb'",
    "attach ':memory:' as m",
    "create table m as select 1",
    "insert into jobs select * from jobs",
    "delete from attempts",
    "update runs set exit_code = 0",
    "drop table attempts",
    "alter table attempts drop column error",
    "select 1; drop table attempts; select 2",
    "begin; delete from attempts; commit",
    "install httpfs",
    "load httpfs",
    "load './x.duckdb_extension'",
    "update extensions",
    "select st_area(1)",
    "select * from 'rows.jsonl'",
    "select * from 'https://127.0.0.1:9/x.csv'",
    "select * from read_csv('rows.jsonl')",
    "select * from read_json('rows.jsonl')",
    "select * from read_text('job.toml')",
    "select * from read_blob('/etc/hostname')",
    "select * from read_parquet('x.parquet')",
    "select * from glob('*')",
    "select * from sniff_csv('rows.jsonl')",
    "select * from query_table('rows.jsonl')",
    "create temp view v as select * from 'rows.jsonl'",
    "select * from 'promptmill.duckdb'",  # the ledger's own file: DuckDB itself would allow it
    "select * from query('from ''promptmill.duckdb''')",
    "select * from query_table('promptmill.duckdb')",
    "select content from read_blob('promptmill.duckdb')",
    "select * from read_duckdb('promptmill.duckdb', table_name = 'runs')",
    "explain select * from 'promptmill.duckdb'",
    "prepare v as select * from 'promptmill.duckdb'",
    "attach 'promptmill.duckdb' as again",
    "copy runs from 'promptmill.duckdb'",
    "copy runs to 'promptmill.duckdb' (use_tmp_file false)",
    "copy runs to 'promptmill.duckdb.wal' (format csv, use_tmp_file false)",
    "copy runs to 'promptmill.duckdb.tmp/x' (format csv, use_tmp_file false)",
    "select getenv('MARKED')",
    "create persistent secret s (type http, bearer_token 'x')",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset enable_external_access",
    "set memory_limit = '900GB'",
    "pragma memory_limit = '900GB'",
    "set temp_directory = '/tmp'",
    "set file_search_path = '/'",
    "set python_enable_replacements = true",
    "pragma enable_profiling",
    "set profiling_output = 'profile.json'",
    "pragma profiling_output = 'profile.json'",
    "call enable_logging('QueryLog', storage = 'file', storage_config = {'path': 'logs'})",
]


@pytest.mark.parametrize("query", REACHES_OUT)
def test_sql_reaches_nothing_but_the_ledger_and_changes_nothing(tmp_path, ledger_bytes, query):
    project, before = ledger_bytes
    project.environ["MARKED"] = "mark-of-a-key"
    done = project.run("sql", query, code=2)
    assert done.stderr.startswith("promptmill: SQL: ")
    assert "mark-of-a-key" not in done.stdout + done.stderr
    assert before == snapshot(project), "no file was made or changed"


def snapshot(project):
    return {path.relative_to(project.folder): path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ledger_bytes(tmp_path_factory):
    with StubServer() as stub:
        project = Project(tmp_path_factory.mktemp("sql"), stub.base_url)
        project.rows(texts(3))
        project.job()
        project.run("run", "job.toml", "--yes")
        project.run("status")
        yield project, snapshot(project)


def test_sql_sees_none_of_the_secrets_that_duckdb_keeps_and_keeps_none(answered):
    stored = answered.folder / ".duckdb" / "stored_secrets"
    kept = f"set secret_directory = '{stored}'; create persistent secret s (type http, bearer_token 'mark')"
    subprocess.run([sys.executable, "-c", f"import duckdb; duckdb.sql({kept!r})"], check=True)
    assert list(stored.iterdir())
    asked = "select * from duckdb_secrets()"
    assert answered.sql(asked) == []
    answered.run("sql", "create secret t (type http, bearer_token 'mark')")
    assert answered.sql(asked) == []


def test_sql_sees_no_variable_of_this_program(answered):
    for name in ("connection", "query", "frame", "relation", "self", "ledger", "LOCKED_DOWN", "os"):
        assert "does not exist" in answered.run("sql", f"select * from {name}", code=2).stderr


def test_sql_gives_sums_of_whole_numbers_as_numbers_and_dollars_as_text(answered):
    (row,) = answered.sql("select sum(output_tokens) as tokens, count(*) as n, sum(cost_usd) as usd from attempts")
    assert (type(row["tokens"]), type(row["n"]), type(row["usd"])) == (int, int, str)
    (row,) = answered.sql(
        'select sum(a) as "^s$", 1::hugeint as one from (values (9e18::hugeint), (9e18::hugeint)) t(a)'
    )
    assert row == {"^s$": "18000000000000000000", "one": 1}
    (row,) = answered.sql("""select date '2026-01-02' as "^s$", (2 * 10)::hugeint as "*" """)
    assert row == {"^s$": "2026-01-02", "*": 20}


def test_sql_shows_every_value_exactly_in_a_table_and_in_json(answered):
    most = {"hugeint": 2**127 - 1, "uhugeint": 2**128 - 1}
    query = "select " + ", ".join(f"{value}::{kind} as {kind}" for kind, value in most.items())
    assert answered.sql(query) == [{kind: str(value) for kind, value in most.items()}]
    assert all(str(value) in answered.run("sql", query).stdout for value in most.values())
    nested = f"{{'BLOB': [{2**127 - 1}::hugeint], 'b': 'x\\xFF'::blob, 'm': map {{interval '1 day': 1}}, 't': ['a b']}}"
    (row,) = answered.sql(f"select {nested} as s, [timestamp_s '2026-01-02 03:04:05'] as t")
    inside = {"BLOB": [str(2**127 - 1)], "b": "x\\xFF", "m": {"1 day": 1}, "t": ["a b"]}
    assert row == {"s": inside, "t": ["2026-01-02T03:04:05Z"]}
    query = "select [1, null] as l, {'a': true, 'b': 'x''y'} as s, [date '2026-01-02'] as d, 'x\\xFF'::blob as b"
    assert answered.sql(query) == [{"l": [1, None], "s": {"a": True, "b": "x'y"}, "d": ["2026-01-02"], "b": "x\\xFF"}]
    cells = answered.run("sql", query).stdout.splitlines()[2].split("  ")
    assert [cell.strip() for cell in cells if cell] == [
        "[1, null]", '{"a": true, "b": "x\'y"}', '["2026-01-02"]', r"x\xFF"
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["-- how many\nselect 7 as n", "--\nselect 7 as n", "--n=5\nselect 7 as n"])
def test_a_query_that_begins_with_a_comment_is_no_option(answered, query):
    assert answered.sql(query) == [{"n": 7}]
    assert "No such option '--jsn'" in answered.run("sql", "--jsn", "select 1", code=2).stderr


def test_sql_answers_with_the_last_of_several_statements(answered):
    assert answered.sql("select 1 as one; select count(*) as n from results") == [{"n": 3}]
    assert answered.run("sql", "create temp macro f(a) as a + 1; select f(1) as two", "--json").stdout.count("2") == 1
    assert answered.run("sql", "checkpoint").stdout == "(no rows)\n"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select * from range(10000000000)", "more than 1,000,000 rows; add a `limit`"),
        ("select range, 'x' as y from range(1000001)", "more than 1,000,000 rows; add a `limit`"),
        ("select repeat('x', 1000000) as t from range(2000)", "larger than 512 MiB; name fewer columns"),
        ("select [repeat('x', 1000000)] as t, 1 as n from range(2000)", "larger than 512 MiB; name fewer columns"),
        ("select list(range) as l from range(900000000)", "of memory"),
    ],
)
def test_sql_that_asks_for_too_much_ends_with_a_sentence(answered, monkeypatch, query, says):
    monkeypatch.setattr(_asking, "MOST_ON_DISK", "1MB")
    monkeypatch.setitem(_asking.LOCKED_DOWN, "memory_limit", "800MB")
    done = answered.run("sql", query, code=2)
    assert says in done.stderr


LARGE = "select count(distinct md5(range::varchar) || md5('a' || range)) as n from range(1000000)"
OWN_FILE = ["copy runs to 'promptmill.duckdb' (use_tmp_file false)", "select * from 'promptmill.duckdb'"]


def test_sql_that_needs_more_memory_than_it_may_have_uses_the_disk(answered, monkeypatch):
    monkeypatch.setitem(_asking.LOCKED_DOWN, "memory_limit", "60MB")
    assert answered.sql(LARGE) == [{"n": 1_000_000}]
    monkeypatch.setattr(_asking, "MOST_ON_DISK", "1MB")
    assert "more than 60MB of memory" in answered.run("sql", LARGE, code=2).stderr
    assert not (answered.folder / "promptmill.duckdb.tmp").exists()


@pytest.mark.parametrize("own_file", OWN_FILE)
def test_sql_with_room_on_the_disk_reaches_no_file_either(answered, monkeypatch, own_file):
    monkeypatch.setitem(_asking.LOCKED_DOWN, "memory_limit", "60MB")
    before = snapshot(answered)
    assert "more than 60MB of memory" in answered.run("sql", f"{LARGE}; {own_file}", code=2).stderr
    assert "no file can be read or written" in answered.run("sql", f"{own_file}; {LARGE}", code=2).stderr
    assert snapshot(answered) == before


@pytest.mark.parametrize("query", [*OWN_FILE, "select content from read_blob('promptmill.duckdb')"])
def test_sql_that_names_the_ledgers_file_leaves_its_lock_in_place(answered, monkeypatch, query):
    monkeypatch.chdir(answered.folder)
    path = answered.folder / "promptmill.duckdb"
    other = f"import duckdb; duckdb.connect({str(path)!r})"
    with reading(path, config=_asking.in_memory()) as connection:
        with pytest.raises(UsageError, match="no file can be read or written here"):
            _asking.answer(connection, query)
        tried = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert "Could not set lock on file" in tried.stderr


def test_sql_gives_as_many_rows_as_are_asked_for(answered):
    assert len(answered.sql("select range as r from range(200000)")) == 200_000


@pytest.mark.parametrize(
    "query", ["select 'a' as x, 'b' as x", 'select 1 as "promptmill sum"', "select null", "show tables"]
)
def test_sql_shows_its_own_columns_to_nobody(answered, query):
    assert "promptmill size" not in answered.run("sql", query).stdout


@pytest.mark.parametrize(
    "query",
    [
        "select timestamp 'infinity' as x",
        "select timestamptz '-infinity' as x",
        "select date 'infinity' as x",
        "select timestamp '10000-01-01' as x",
        "select [date '2026-01-01', date 'infinity'] as x",
        "select {'a': timestamp 'infinity'} as x",
        "select map{'a': [date 'infinity']} as x",
        "select timestamp_s '-infinity' as x",
        "select [timestamp_s 'infinity'] as x",
        "select timestamp_ns 'infinity' as x",
    ],
)
def test_a_date_that_is_none_is_asked_for_as_text(answered, query):
    assert '"x" has dates that are infinite or beyond the years 1 to 9999' in answered.run("sql", query, code=2).stderr
    (row,) = answered.sql(query.replace(" as x", "::varchar as x"))
    assert any(said in row["x"] for said in ("infinity", "10000"))


def test_an_interval_may_stand_beside_whole_seconds(answered):
    (row,) = answered.sql("select {'s': timestamp_s '2026-01-02', 'i': interval 3 days} as x")
    assert row == {"x": {"s": "2026-01-02T00:00:00Z", "i": "3 days"}}


def test_dates_that_a_program_knows_are_shown():
    with duckdb.connect() as connection:
        query = (
            "select date '0001-01-01' as a, date '9999-12-31' as b, null::timestamp as c,"
            " timestamp_s '2026-01-02' as d, [timestamp_s '2026-01-02'] as e, map{'k': timestamp_ns '2026-01-02'} as f"
        )
        (row,) = _asking.answer(connection, query).iter_rows(named=True)
    day = datetime(2026, 1, 2)  # noqa: DTZ001 -- the ledger's times have no zone
    assert row == {"a": date.min, "b": date.max, "c": None, "d": day, "e": [day], "f": {"k": day}}


@pytest.mark.parametrize(
    ("before", "told"),
    [("select 1; ", True), ("call pragma_database_size(); ", True), ("create temp table u as select 1; ", False)],
)
def test_answers_that_are_not_shown_are_told(answered, before, told):
    done = answered.run("sql", "--json", f"{before}create temp table t as select 7 as x; from t")
    assert json.loads(done.stdout) == [{"x": 7}]
    assert ("of 3 statements only the last one's answer is shown" in done.stderr) is told


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("select map{'nan'::double: 1, 1.5::double: 2} as m", {"nan": 1, "1.5": 2}),
        ("select map{date '2026-01-02': 'nan'::double} as m", {"2026-01-02": None}),
    ],
)
def test_keys_that_json_does_not_know_are_text(answered, query, shown):
    assert answered.sql(query) == [{"m": shown}]


def test_ctrl_c_ends_a_query_that_never_ends(answered):
    asked = answered.start("sql", "select sum(a.range * b.range) from range(100000000) a, range(1000000) b")
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked.communicate(timeout=3)
    asked.send_signal(signal.SIGINT)
    try:
        stdout, stderr = asked.communicate(timeout=30)
    finally:
        asked.kill()
    assert (asked.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
