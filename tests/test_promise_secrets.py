"""Promise 6: nothing secret reaches the ledger, the journal, a log, a report or an error message.

Each test runs with a marked key and then looks for the mark, in every spelling, in every file of the project folder, in
every table of the ledger, and in everything that was printed.
"""

import html
import json
import signal
import ssl
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import quote

import pytest
from certificates import certificate, new_key, private_pem
from project import Project, texts
from raw_server import raw_server
from stub import StubServer, echo
from stub_faults import (
    BROKEN_JSON,
    CONTENT_FILTER,
    CUT,
    NO_CHOICES,
    NO_USAGE,
    REFUSAL,
    RESET,
    STALL,
    Fault,
    error_in_200,
    status,
)

from pipeline.errors import WireError
from pipeline.providers import failure_from_wire, hide
from pipeline.providers._redact import _escaped
from pipeline.records import HttpRequest, WireReply
from pipeline.runners._connection import Remote
from pipeline.runners._local_model import Endpoint
from pipeline.wire import WireOptions, open_wire

PREFIXED = "sk-mark-0123456789abcdef"
PLAIN = "mark Zq7.0123456789/plain+="
ODD = 'mark"quoted\\back/%2F&<\u00e9\U0001f511>0123456789'
"""A key that JSON, URLs and HTML all escape. Only a body can carry it."""
WAYS = [("native", PREFIXED, False), ("httpx", PLAIN, False), ("native", ODD, True), ("httpx", PREFIXED, True)]
MODEL = 'max_tokens = 50\napi_key_env = "MARKED"'


def spellings(key):
    """The key as it is, and as text formats write it."""
    inner = json.dumps(key)[1:-1]
    raw = json.dumps(key, ensure_ascii=False)[1:-1]
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key if ord(letter) < 0x10000)
    return {
        key, inner, raw, json.dumps(inner)[1:-1], json.dumps(raw, ensure_ascii=False)[1:-1], quote(key),
        quote(key, safe=""), quote(quote(key, safe=""), safe=""), html.escape(key), repr(key.encode())[2:-1],
        *([escaped] if len(escaped) == 6 * len(key) else []),
    }  # fmt: skip


def said(key):
    """A server's complaint that holds the key in every spelling."""
    return "; ".join(f"no key {spelling} here" for spelling in sorted(spellings(key)))


def assert_nowhere(project, key, *outputs):
    """Find no spelling of the key in what was printed, in any file, and in any table (DuckDB packs texts)."""
    texts_found = {f"output {number}": output for number, output in enumerate(outputs)}
    for path in project.folder.rglob("*"):
        if path.is_file():
            texts_found[str(path)] = path.read_bytes().decode("utf-8", "replace")
    if (project.folder / "promptmill.duckdb").exists():
        for row in project.sql("select table_name from duckdb_tables() where not internal"):
            name = row["table_name"]
            texts_found[f"table {name}"] = project.run("sql", "--json", f"select * from {name}").stdout
    for where, text in texts_found.items():
        for spelling in spellings(key):
            assert spelling not in text, f"{where} holds {spelling}: {text[max(0, text.find(spelling) - 200) :][:400]}"


def everything_printed(project):
    """What every reporting command says, as tables and as JSON."""
    commands = [
        ("status", "job.toml"), ("errors", "job.toml"), ("spend", "--by", "job,model"), ("check", "job.toml"),
        ("estimate", "job.toml"), ("sql", "select * from attempts"), ("sql", "select * from runs"),
    ]  # fmt: skip
    done = [project.run(*command, *more) for command in commands for more in ([], ["--json"])]
    done += [
        project.run("results", "job.toml", "--with-input", "-o", f"out.{end}") for end in ("jsonl", "csv", "parquet")
    ]
    return [text for one in done for text in (one.stdout, one.stderr)]


def echoing(fault, key):
    """The same fault, with the key in every field of the answer that anybody stores, and in a header."""

    def edit(body):
        body.update(model=f"model {key}", id=f"id {key}")
        body.setdefault("usage", {})[f"by {key}"] = {"list": [key, quote(key)]}
        for choice in body["choices"]:
            choice["finish_reason"] = choice["finish_reason"] if fault.reply else f"stop {key}"
        if fault.edit:
            fault.edit(body)

    headers = {"x-request-id": f"req {key}"} if key.isascii() else {}
    return replace(fault, edit=edit, headers=headers | dict(fault.headers))


def faults_of(key):
    """Row text -> what happens to it. Rows of the first run; none of these pauses it."""
    message = said(key)
    return {
        "answer": echoing(Fault("answer"), key),
        "400": status(400, message, code=f"code {key}"),
        "413": status(413, message),
        "422": status(422, message),
        "429": status(429, message, retry_after=0),
        "500": status(500, body=f"<html><title>{message}</title></html>".encode()),
        "502": status(502, body=message.encode()),
        "503": status(503, body=json.dumps({"detail": [{"msg": message}]}).encode()),
        "inside": error_in_200(message, "502"),
        "broken": BROKEN_JSON,
        "no choices": echoing(NO_CHOICES, key),
        "no usage": echoing(NO_USAGE, key),
        "refusal": replace(REFUSAL, reply=lambda reply: replace(reply, text=None, message={"refusal": message})),
        "filter": echoing(CONTENT_FILTER, key),
        "reset": RESET,
        "cut": CUT,
        "stall": STALL,
        "half": status(500, body=f'{{"error": "the key {key[: len(key) // 2]}'.encode()),
    }


PAUSING = (401, 402, 403, 404)


def marked(tmp_path, stack, wire, key, *, in_body):
    """A vendor who wants this key, and a project that has it."""
    stub = stack.enter_context(StubServer(api_key=key, key_in_body=in_body))
    project = Project(tmp_path, stub.base_url, {"MARKED": key})
    more = '[retry]\nattempts = 1\n[output]\nschema = { type = "object" }'
    text = project.job(model=MODEL + "\nkey_in_body = true" * in_body, more=more).read_text()
    text = text.replace("[limits]", f'[limits]\nwire = "{wire}"\ntimeout_seconds = 3')
    project.job(text=text.replace('provider = "stub"', 'provider = "modelslab"') if in_body else text)
    return stub, project


@pytest.mark.parametrize(("wire", "key", "in_body"), WAYS, ids=["header", "httpx", "body", "httpx-body"])
def test_the_key_is_in_no_file_and_no_output_after_success_and_every_error(tmp_path, wire, key, in_body):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, wire, key, in_body=in_body)
        faults = faults_of(key)
        once = set()

        def fault(_, payload):
            text = payload["messages"][-1]["content"]
            if text == "429" and text in once:
                return None
            once.add(text)
            return faults.get(text)

        stub.faults = fault
        stub.answer = lambda _: json.dumps({"key": key, "url": quote(key), "list": [f"{key}{key}"]})
        project.rows([{"id": text, "text": text} for text in faults])
        logged = ("--log", "night.log", "--log-level", "debug")
        first = project.run("run", "job.toml", "--yes", *logged, code=3)
        printed = [first.stdout, first.stderr]
        assert stub.calls > len(faults), "every fault was met, and a 429 twice"
        for number in PAUSING:
            stub.faults = lambda *_, number=number: status(number, said(key))
            project.rows([{"id": number, "text": f"pauses with {number}"}])
            paused = project.run("run", "job.toml", "--yes", *logged, code=4)
            printed += [paused.stdout, paused.stderr]
        assert_nowhere(project, key, *printed, *everything_printed(project))
        log = (project.folder / "night.log").read_text()
        assert log.count("exchange:") == stub.calls
        assert "[redacted]" in log


@pytest.mark.parametrize(
    "extra",
    [
        '{ data_sources = [{ parameters = { authentication = { type = "api_key", key = "KEY" } } }] }',
        '{ provider = { api_key = "KEY" } }',
        '{ note = ["KEY"] }',
    ],
)
def test_a_key_deep_in_a_job_file_gets_nowhere(tmp_path, stub, extra):
    project = Project(tmp_path, stub.base_url)
    project.rows(texts(1))
    secret = "sk-proj-mark0123456789ABCDEF"
    path = project.job(model=f"max_tokens = 50\nextra = {extra.replace('KEY', secret)}")
    printed = [project.run(*command, code=2) for command in (("check", "job.toml"), ("run", "job.toml", "--yes"))]
    path.unlink()
    assert all("[model] extra." in done.stderr for done in printed)
    assert_nowhere(project, secret, *(done.stdout + done.stderr for done in printed))
    assert stub.calls == 0


def test_a_server_that_is_not_who_it_says_never_sees_the_key(tmp_path):
    key = new_key()
    chain = tmp_path / "server.pem"
    chain.write_bytes(certificate("127.0.0.1", key, "127.0.0.1", key, is_authority=False) + private_pem(key))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    with StubServer(tls=tls) as stub:
        project = Project(tmp_path, stub.base_url, {"MARKED": PREFIXED})
        project.rows(texts(2))
        project.job(model=MODEL, more="[retry]\nattempts = 1")
        done = project.run("run", "job.toml", "--yes", "--log", "night.log", "--log-level", "debug", code=4)
        assert "no secure connection" in done.stderr
        assert stub.calls == 0
    assert_nowhere(project, PREFIXED, done.stdout, done.stderr)


def test_a_key_in_an_answer_is_hidden_and_the_rest_is_stored_as_it_came(tmp_path):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, "native", ODD, in_body=True)
        stub.answer = lambda _: f'{{"a": "before {json.dumps(ODD)[1:-1]} after"}}'
        project.rows(texts(1))
        project.run("run", "job.toml", "--yes")
        (row,) = project.sql("select output, parsed from results")
        assert row["output"] == '{"a": "before [redacted] after"}'
        assert json.loads(row["parsed"]) == {"a": "before [redacted] after"}


@pytest.mark.parametrize("key", ["EMPTY", "dummy", "-"])
def test_the_word_that_a_local_server_takes_for_a_key_stays_in_answers(tmp_path, key):
    with StubServer(answer=lambda _: f"an {key} word") as stub:
        project = Project(tmp_path, stub.base_url, {"MARKED": key})
        project.rows(texts(1))
        project.job(model=MODEL)
        project.run("run", "job.toml", "--yes")
        assert project.value("select output from results") == f"an {key} word"


@pytest.mark.parametrize("key", [PREFIXED, PLAIN, ODD])
def test_a_key_is_hidden_in_every_spelling_and_where_the_text_was_cut(key):
    for spelling in spellings(key):
        assert hide(f"see {spelling}, please", [key]) == "see [redacted], please"
    assert hide(f"see {key[:12]}", [key]) == "see [redacted]"
    assert hide("see nothing of it: 100 %, a\\b & c", [key]) == "see nothing of it: 100 %, a\\b & c"


@pytest.mark.parametrize(
    "key", ['"quoted-0123', "\\back-0123", "uxu-0123456", "%41-0123456", "&amp-0123456", "\u00e9t\u00e9-0123"]
)
def test_what_a_key_begins_with_is_found_in_every_spelling_too(key):
    for spelling in spellings(key):
        assert hide(f"see {spelling}, please", [key]).replace("\\", "") == "see [redacted], please"
        assert hide(f"{spelling}{spelling}\\n", [key]).replace("\\", "") == "[redacted][redacted]n"


def test_in_a_text_full_of_escapes_a_key_is_looked_for_only_where_one_may_begin():
    """At each backslash it took a thousand times as long as at a letter: minutes for an answer of the longest size."""
    for key in (PREFIXED, PLAIN, ODD):
        assert all(_escaped(key).match("\\" * backslashes + key) is None for backslashes in (1, 2, 4))
        assert hide("\\" * 1003 + f"u{ord(key[0]):04x}" + key[1:], [key]) == "\\" * 999 + "[redacted]"


@pytest.mark.parametrize("kind", ["auto", "native", "httpx"])
async def test_a_broken_head_that_repeats_the_key_is_not_quoted(kind):
    async def script(_, peer):
        await peer.send(f"HTTP/1.1 {PREFIXED} {PREFIXED}\r\nbad header {PREFIXED}\r\n\r\n".encode())
        peer.hang_up()

    wire = open_wire(kind, WireOptions(timeout_seconds=5, direct=True))
    async with raw_server(script) as server:
        with pytest.raises(WireError) as caught:
            await wire.post(server.url, {"authorization": f"Bearer {PREFIXED}"}, b"{}")
    await wire.close()
    failure = failure_from_wire(caught.value, secrets=(PREFIXED,))
    assert "mark" not in failure.message
    assert "broke off" in failure.message


def test_a_kill_9_leaves_no_key_behind(tmp_path):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, "native", PREFIXED, in_body=True)
        stub.answer = lambda _: json.dumps({"echo": PREFIXED})
        stub.hold()
        project.rows(texts(30))
        run = project.start("run", "job.toml", "--yes", "--set", "limits.timeout_seconds=60", "--log", "night.log")
        stub.wait_for_in_flight(8)
        stub.release(5)
        stub.wait_for_calls(13)
        run.send_signal(signal.SIGKILL)
        stdout, stderr = run.communicate(timeout=30)
        assert_nowhere(project, PREFIXED, stdout, stderr)
        stub.release()
        done = project.run("run", "job.toml", "--yes", "--log", "night.log")
        assert_nowhere(project, PREFIXED, done.stdout, done.stderr, *everything_printed(project))


def test_an_internal_error_shows_where_it_happened_but_no_key(tmp_path, monkeypatch):
    def bug(*_):
        raise RuntimeError(f"a bug that quotes {ODD}\x1b[31m")

    with ExitStack() as stack:
        _, project = marked(tmp_path, stack, "native", ODD, in_body=True)
        project.rows(texts(3))
        monkeypatch.setattr("pipeline.runners.attempt.judge", bug)
        done = project.run("run", "job.toml", "--yes", "--log", "night.log", code=1)
        log = (project.folder / "night.log").read_text()
        for text in (done.stderr, log):
            assert "RuntimeError: a bug that quotes" in text
            assert "attempt.py" in text
            assert "\x1b" not in text
        assert log.count("\n") == len(log.splitlines()) == 4, "one line per event: start, new ledger, stop, traceback"
        assert_nowhere(project, ODD, done.stdout, done.stderr)


@pytest.mark.parametrize("key", ["mark-\udcff-0123456789", "mark-01234\n56789", "mark-\x1b[31m-0123456789"])
@pytest.mark.parametrize("in_body", [False, True], ids=["header", "body"])
def test_a_key_that_is_no_text_is_a_mistake_that_does_not_show_it(tmp_path, key, in_body):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, "native", key, in_body=in_body)
        project.rows(texts(1))
        done = project.run("run", "job.toml", "--yes", code=2)
        assert "MARKED holds characters that no key has" in done.stderr
        assert "mark-" not in done.stderr
        assert stub.calls == 0


def test_a_key_that_no_header_takes_is_a_mistake_before_anything_is_booked(tmp_path, stub):
    project = Project(tmp_path, stub.base_url, {"MARKED": "mark-\u00e9-0123456789"})
    project.rows(texts(1))
    project.job(model=MODEL)
    assert "MARKED holds characters that no key has" in project.run("run", "job.toml", "--yes", code=2).stderr
    assert not (tmp_path / "promptmill.duckdb").exists()


@pytest.mark.parametrize("wire", ["auto", "native", "httpx"])
def test_a_proxy_that_cannot_be_used_is_a_mistake_that_shows_no_password(tmp_path, stub, monkeypatch, wire):
    """It was passed over once: the request went out past it."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    project = Project(tmp_path, stub.base_url, {"HTTP_PROXY": "socks9://jane:hunter2@127.0.0.1:9"})
    project.rows(texts(1))
    project.job(limits=f'wire = "{wire}"')
    printed = [project.run("run", "job.toml", "--yes", code=2), project.run("check", "job.toml")]
    for done in printed:
        assert "the proxy in $HTTP_PROXY can't be used: socks9:// is none of http://" in done.stderr + done.stdout
        assert "hunter2" not in done.stderr + done.stdout
    assert stub.calls == 0
    assert not (tmp_path / "promptmill.duckdb").exists()


def test_no_record_shows_a_key_when_it_is_printed():
    records = [
        Remote("http://host/v1", PREFIXED),
        Endpoint("http://host/v1", PREFIXED),
        HttpRequest("http://host/v1", {"authorization": PREFIXED}, PREFIXED.encode()),
        WireReply(200, {"x-echo": PREFIXED}, PREFIXED.encode()),
    ]
    assert "mark" not in repr(records)


@pytest.mark.parametrize("wire", ["auto", "native", "httpx"])
@pytest.mark.parametrize(("number", "in_body"), [(302, False), (307, True)], ids=["header", "body"])
def test_a_redirect_carries_the_key_nowhere(tmp_path, wire, number, in_body):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, wire, PREFIXED, in_body=in_body)
        other = stack.enter_context(StubServer(answer=echo))
        location = f"{other.base_url}/chat/completions?key={quote(PREFIXED)}"
        stub.faults = lambda *_: status(number, said(PREFIXED), headers={"location": location})
        project.rows(texts(3))
        done = project.run("run", "job.toml", "--yes", code=4)
        assert "redirects to http://127.0.0.1:" in done.stderr
        assert (other.calls, other.strays) == (0, [])
        assert_nowhere(project, PREFIXED, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("base_url", "warns"),
    [
        ("http://provider.example/v1", True),
        ("http://10.1.2.3:8000/v1", True),
        ("https://provider.example/v1", False),
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:8000/v1", False),
        ("http://[::1]:8000/v1", False),
    ],
)
def test_a_key_that_would_travel_unencrypted_is_a_warning(tmp_path, base_url, warns):
    project = Project(tmp_path, base_url, {"MARKED": PREFIXED})
    project.rows(texts(1))
    project.job(model=MODEL)
    done = project.run("check", "job.toml")
    assert ("travels unencrypted" in done.stderr) is warns
    assert PREFIXED not in done.stdout + done.stderr
    assert "unencrypted" not in project.run("check", "job.toml", "--json").stderr


@pytest.mark.parametrize(
    ("base_url", "provider", "environ", "says"),
    [
        ("https://gate.example/v1", "openai", {"OPENAI_API_KEY": PREFIXED}, "OPENAI_API_KEY is set, but goes only to"),
        ("http://127.0.0.1:9/v1", "openai", {"OPENAI_API_KEY": PREFIXED}, "OPENAI_API_KEY is set, but goes only to"),
        ("https://gate.example/v1", "mine", {"OPENAI_API_KEY": PREFIXED}, "name its variable in [model] api_key_env\n"),
        ("http://gpu-box:8000/v1", "mine", {}, None),
        ("http://127.0.0.1:9/v1", "openai", {}, None),
    ],
)
def test_where_no_key_is_sent_but_one_may_be_wanted_is_a_warning(tmp_path, base_url, provider, environ, says):
    project = Project(tmp_path, base_url, environ)
    project.rows(texts(1))
    project.job()
    done = project.run("check", "job.toml", "--set", f"model.provider={provider}")
    assert ("no key is sent to" in done.stderr) is (says is not None)
    assert says is None or says in done.stderr
    assert PREFIXED not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("base_url", "provider", "variable", "whose"),
    [
        ("https://api.openai.com.evil.example/v1", "openai", "OPENAI_API_KEY", "openai"),
        ("https://evil.example/v1", "mine", "OPENAI_API_KEY", "openai"),
        ("https://api.openai.com/v2", "modelslab", "MODELSLAB_API_KEY", "modelslab"),
        ("https://eu.api.openai.com/v1", "openai", "OPENAI_API_KEY", None),
        ("https://evil.example/v1", "openai", "MARKED", None),
        ("http://127.0.0.1:9/v1", "openai", "OPENAI_API_KEY", None),
    ],
)
def test_a_presets_key_that_goes_to_another_host_is_a_warning(tmp_path, base_url, provider, variable, whose):
    project = Project(tmp_path, base_url, {variable: PREFIXED})
    project.rows(texts(1))
    project.job(model=f'max_tokens = 50\napi_key_env = "{variable}"')
    host = base_url.split("/")[2]
    for command, code in (("check", 0), ("estimate", 0), ("run", 2)):
        done = project.run(command, "job.toml", "--set", f"model.provider={provider}", code=code)
        warned = f"the key in ${variable} goes to {host}, which is not {whose}'s own address" in done.stderr
        assert warned is (whose is not None), command
        assert (f"{variable} goes to" in done.stderr) is warned
        assert base_url in done.stdout + done.stderr
        assert PREFIXED not in done.stdout + done.stderr


def test_a_preset_may_not_get_the_key_of_another_unnoticed(tmp_path):
    project = Project(tmp_path, "https://modelslab.com/api/v7/llm", {"OPENAI_API_KEY": PREFIXED})
    project.rows(texts(1))
    project.job(model='max_tokens = 50\napi_key_env = "OPENAI_API_KEY"')
    done = project.run("check", "job.toml", "--set", "model.provider=modelslab")
    assert "the key in $OPENAI_API_KEY goes to modelslab.com, which is not openai's own address" in done.stderr


def test_check_shows_where_requests_and_the_key_go(tmp_path):
    project = Project(tmp_path, "https://gate.example/v1/", {"MARKED": PREFIXED})
    project.rows(texts(1))
    project.job(model=MODEL)
    assert "sent to  https://gate.example/v1, the key in $MARKED with it\n" in project.run("check", "job.toml").stdout
    facts = json.loads(project.run("check", "job.toml", "--json").stdout)
    assert (facts["address"], facts["api_key_env"]) == ("https://gate.example/v1", "MARKED")
    project.job()
    assert "sent to  https://gate.example/v1, no key with it\n" in project.run("check", "job.toml").stdout


def test_a_401_says_whether_a_key_was_sent(tmp_path, stub):
    stub.api_key = PREFIXED
    project = Project(tmp_path, stub.base_url, {"OPENAI_API_KEY": PREFIXED})
    project.rows(texts(1))
    project.job()
    done = project.run("run", "job.toml", "--yes", "--set", "model.provider=openai", code=4)
    assert "no key is sent to 127.0.0.1" in done.stderr
    assert "HTTP 401; no key was sent: behind base_url name its variable in [model] api_key_env" in done.stderr
    wrong = Project(tmp_path, stub.base_url, {"MARKED": "sk-of-somebody-else-0123456789"})
    wrong.job(model=MODEL)
    assert "HTTP 401; check the API key" in wrong.run("run", "job.toml", "--yes", code=4).stderr


def test_the_key_goes_to_the_provider_in_the_header_alone(tmp_path, stub):
    stub.api_key = PREFIXED
    project = Project(tmp_path, stub.base_url, {"STUB_KEY": PREFIXED})
    project.rows(texts(3))
    project.job(model='max_tokens = 50\napi_key_env = "STUB_KEY"')
    done = project.run("run", "job.toml", "--yes")
    assert all(request.headers["authorization"] == f"Bearer {PREFIXED}" for request in stub.requests)
    assert all(PREFIXED not in json.dumps(request.payload) + request.path for request in stub.requests)
    assert_nowhere(project, PREFIXED, done.stdout, done.stderr)


def test_modelslab_takes_key_and_model_in_the_body_and_the_key_is_never_stored(tmp_path):
    key = "ml-0123456789abcdef0123456789"
    with StubServer(api_key=key, key_in_body=True, max_concurrency=5) as stub:
        project = Project(tmp_path, stub.base_url, {"MODELSLAB_API_KEY": key})
        project.rows(texts(12))
        project.job(
            text="""
[input]
path = "rows.jsonl"
[model]
provider = "modelslab"
name = "gpt-oss-20b"
base_url = "{base_url}"
api_key_env = "MODELSLAB_API_KEY"
key_in_body = true
model_field = "model_id"
max_tokens = 50
[prompt]
user = "{{ text }}"
"""
        )
        done = project.run("run", "job.toml", "--yes", "--price", "0.25,2.00")
        assert stub.peak_concurrency <= 4, "the preset's own limit"
        assert all(request.payload["model_id"] == "gpt-oss-20b" for request in stub.requests)
        assert all("authorization" not in request.headers for request in stub.requests)
        assert_nowhere(project, key, done.stdout, done.stderr)


def test_libraries_that_log_headers_write_nothing_into_our_log(tmp_path):
    with ExitStack() as stack:
        _, project = marked(tmp_path, stack, "httpx", PREFIXED, in_body=False)
        project.rows(texts(3))
        project.run("run", "job.toml", "--yes", "--log", "night.log", "--log-level", "debug")
        log = (project.folder / "night.log").read_text().lower()
        assert not any(word in log for word in ("httpx", "httpcore", "authorization", "bearer", "says hello"))


def test_a_program_that_uses_the_package_hears_the_events_but_no_data(tmp_path, caplog):
    with ExitStack() as stack:
        stub, project = marked(tmp_path, stack, "native", PREFIXED, in_body=False)
        stub.faults = lambda *_: status(400, said(PREFIXED))
        project.rows([{"id": 1, "text": "a private prompt"}])
        with caplog.at_level("DEBUG", logger="promptmill"):
            project.run("run", "job.toml", "--yes", code=3)
    heard = "\n".join(record.getMessage() for record in caplog.records if record.name == "promptmill")
    assert "result=rejected" in heard
    assert PREFIXED not in heard
    assert "private prompt" not in heard
