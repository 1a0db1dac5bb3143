"""A folder with a job and its data, and the command line as a person runs it: in processes of their own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.cli import main
from pipeline.stopping import NAMES, hears_signals

WITHOUT_FAST = str(Path(__file__).parent / "without_fast")
COMMAND = (sys.executable, "-W", "error", "-m", "pipeline")
JOB = """
name = "{name}"
[input]
path = "{input}"
{more_input}
[model]
provider = "stub"
name = "test-model"
base_url = "{base_url}"
{model}
[prompt]
user = "{{{{ text }}}}"
[limits]
concurrency = {concurrency}
{limits}
[price]
input = "0.25"
output = "2.00"
{more}
"""
"""The price is the stub's."""


class _Screen(io.StringIO):
    encoding = "utf-8"


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Project:
    """Write jobs and data into a folder; run commands there."""

    folder: Path
    base_url: str = "http://127.0.0.1:9/v1"
    environ: dict[str, str] = field(default_factory=dict)

    def rows(self, rows: Iterable[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def job(
        self,
        name: str = "job",
        *,
        data: str = "rows.jsonl",
        model: str = "max_tokens = 50",
        concurrency: int = 8,
        more_input: str = 'id = "id"',
        limits: str = "",
        more: str = "",
        text: str | None = None,
    ) -> Path:
        """Write `NAME.toml`; `text` replaces the whole content, with {base_url} filled in."""
        path = self.folder / f"{name}.toml"
        facts = {
            "name": name, "input": data, "base_url": self.base_url, "model": model, "concurrency": concurrency,
            "more_input": more_input, "limits": limits, "more": more,
        }  # fmt: skip
        path.write_text(JOB.format(**facts) if text is None else text.replace("{base_url}", self.base_url), "utf-8")
        return path

    def run(self, *args: str, code: int | None = 0, stdin: str = "") -> Done:
        """Run a command to its end in this process; `code` is the exit code it must have, None for any.

        The same entry point as the installed command, without the half second that a new process costs each time.
        """
        out, err = _Screen(), _Screen()
        with (
            mock.patch.dict(os.environ, self._env(), clear=True),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            heard = {number: signal.getsignal(number) for number in NAMES} if hears_signals() else {}
            try:
                main(list(args))
            except SystemExit as end:
                returncode = end.code
            finally:  # a command that ends its process leaves them as it likes
                for number, handler in heard.items():
                    signal.signal(number, handler)
        done = Done(int(returncode), out.getvalue(), err.getvalue())
        assert code == 1 or "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def estimated(self, *options: str, code: int | None = 0) -> dict[str, Any]:
        """Return what `estimate --json` says of job.toml."""
        return json.loads(self.run("estimate", "job.toml", "--json", *options, code=code).stdout)

    def process(self, *args: str, code: int | None = 0, stdin: str = "") -> Done:
        """Run a command to its end in a process of its own."""
        started = self.start(*args)
        stdout, stderr = started.communicate(stdin, timeout=120)
        assert "Traceback" not in stderr, stderr
        assert code is None or started.returncode == code, f"exit {started.returncode}\n{stdout}\n{stderr}"
        return Done(started.returncode, stdout, stderr)

    def start(self, *args: str, first: str = "") -> subprocess.Popen[str]:
        """Start a command and return while it runs; `first` is Python that its process runs before it."""
        program = (*COMMAND[:-2], "-c", f"{first}\nimport sys\nfrom pipeline.cli import main\nmain(sys.argv[1:])")
        return subprocess.Popen(
            [*(program if first else COMMAND), *args],
            cwd=self.folder,
            env=self._env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Ask the ledger as a person does: `promptmill sql --json`."""
        rows: list[dict[str, Any]] = json.loads(self.run("sql", "--json", query).stdout)
        return rows

    def value(self, query: str) -> Any:
        """Return the only value of the only row."""
        (row,) = self.sql(query)
        (value,) = row.values()
        return value

    def _env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PROMPTMILL_")}
        path = os.pathsep.join(filter(None, [WITHOUT_FAST, clean.get("PYTHONPATH")]))
        return clean | {"COLUMNS": "120", "HOME": str(self.folder), "PYTHONPATH": path} | self.environ


def texts(count: int) -> list[dict[str, Any]]:
    """Rows whose texts all differ."""
    return [{"id": f"r{i}", "text": f"row {i} says hello"} for i in range(count)]
