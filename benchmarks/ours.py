"""promptmill as a contestant: a folder with a job, and the command line in a process of its own."""

import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import Measured, measure
from vendor import ANSWER_TOKENS

WORK = Path(__file__).parent / ".work"
CONCURRENCY = 256
JOB = """
name = "bench"
[input]
path = "{rows}"
id = "id"
[model]
provider = "openai"
name = "gpt-4o-mini"
base_url = "{base_url}"
max_tokens = {max_tokens}
[prompt]
user = "{{{{ text }}}}"
[limits]
concurrency = {concurrency}
wire = "{wire}"
{limits}
[price]
input = "0.15"
output = "0.60"
"""
WITH_TOKTOK = (sys.executable, "-m", "pipeline")
WITHOUT_TOKTOK = (
    sys.executable,
    "-c",
    "import sys; sys.modules['toktok'] = None; from pipeline.cli import main; main(sys.argv[1:])",
)
RUN = ("run", "job.toml", "--yes", "--quiet")


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a job in it."""

    folder: Path
    program: tuple[str, ...] = WITH_TOKTOK

    def job(
        self,
        rows: Path,
        base_url: str,
        *,
        wire: str = "auto",
        concurrency: int = CONCURRENCY,
        limits: str = "",
    ) -> None:
        """Write the job."""
        text = JOB.format(
            rows=rows, base_url=base_url, wire=wire, concurrency=concurrency, limits=limits, max_tokens=ANSWER_TOKENS
        )
        (self.folder / "job.toml").write_text(text)

    def command(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (0,),
        most_bytes: float = math.inf,
    ) -> Measured:
        """Run a command."""
        return measure([*self.program, *arguments], self.folder, environ, expect=expect, most_bytes=most_bytes)


@contextmanager
def project(program: tuple[str, ...] = WITH_TOKTOK) -> Iterator[Project]:
    """Make a folder on the disk that the repository is on, for a while."""
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        yield Project(Path(name), program)
