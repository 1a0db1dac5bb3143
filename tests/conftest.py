"""Servers that tests talk to: the stub vendor of this house, and llmock, which nobody here wrote."""

import asyncio
import http.client
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import settings
from stub import StubServer

from pipeline.tokens import _fast
from pipeline.tokens._tokenizer import tokenizer

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

# As in the background of a script, or under `nohup`: the tests' runs would hear none.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

_POLL_SECONDS = 0.05
_POLLS = 600


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Hold the wires to their contract on every loop that runs have; all other tests run on asyncio's."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_wire.py":
        with suppress(ImportError):
            loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return loops


@pytest.fixture
def stub() -> Iterator[StubServer]:
    """A stub vendor that answers at once and never fails."""
    with StubServer() as server:
        yield server


@pytest.fixture
def plain_install(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without the extra `fast`."""
    monkeypatch.setattr(_fast, "installed", lambda: False)
    tokenizer.cache_clear()
    yield
    tokenizer.cache_clear()


@dataclass(frozen=True)
class Llmock:
    """A running `llmock serve`, and its control API."""

    port: int

    @property
    def base_url(self) -> str:
        """The address for a job's `base_url` (OpenAI's dialect; llmock's Anthropic is at `/anthropic`)."""
        return f"http://127.0.0.1:{self.port}/v1"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the answer's JSON."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            said = None if body is None else json.dumps(body)
            connection.request(method, path, said, {"content-type": "application/json"})
            return json.loads(connection.getresponse().read())

    def script(self, *behaviors: dict[str, Any]) -> None:
        """Queue what happens to the next requests, e.g. `{"type": "fail", "status": 429, "times": 2}`."""
        reply = self.ask("POST", "/_llmock/scenario", {"behaviors": behaviors})
        assert reply.get("queued") == len(behaviors), reply

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far (the newest 10,000), with its status, fault and body."""
        found: list[dict[str, Any]] = self.ask("GET", "/_llmock/requests")["requests"]
        return found

    def verdict(self) -> dict[str, Any]:
        """What llmock thinks of the client: `passed`, `errors`, `warnings`, `findings`."""
        found: dict[str, Any] = self.ask("GET", "/_llmock/verdict")
        return found


@pytest.fixture
def llmock(tmp_path: Path) -> Iterator[Callable[..., Llmock]]:
    """`llmock("--rpm", "600")` starts a server with these options; it ends with the test.

    Takes the place of the fixture of the same name that llmock's own pytest plugin brings.
    """
    with ExitStack() as children:

        def start(*options: str) -> Llmock:
            log = children.enter_context((tmp_path / "llmock.log").open("ab+"))
            return children.enter_context(_running(options, log))

        yield start


@contextmanager
def _running(options: tuple[str, ...], log: IO[bytes]) -> Iterator[Llmock]:
    command = shutil.which("llmock", path=str(Path(sys.executable).parent))
    assert command, "llmock is not installed beside this Python: pip install -e '.[dev]'"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLMOCK_")}
    child = subprocess.Popen([*arguments, *options], stdout=log, stderr=log, env=environment)
    try:
        _wait_until_ready(child, server := Llmock(port), log)
        yield server
    finally:
        child.terminate()
        child.wait()


def _wait_until_ready(child: subprocess.Popen[bytes], server: Llmock, log: IO[bytes]) -> None:
    for _ in range(_POLLS):
        with suppress(OSError):
            server.ask("GET", "/health")
            return
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
            break
    log.seek(0)
    raise RuntimeError(f"llmock did not start: {log.read().decode()}")
