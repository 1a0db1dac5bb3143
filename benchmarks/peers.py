"""The other tools, each in an environment of its own, driven as its documentation says (`peers/`)."""

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ours
from measure import Measured, measure
from results import say
from vendor import ANSWER_TOKENS, Vendor

from pipeline.tokens import _ranks as ranks

DRIVERS = Path(__file__).parent / "peers"
FOLDER = Path(__file__).parent / ".venvs"
ENCODINGS = FOLDER / "encodings"
QUICK_ROWS, SLOW_ROWS = 100_000, 10_000
ENVIRONMENT = {
    "OPENAI_API_KEY": "none",
    "TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "TIKTOKEN_CACHE_DIR": str(ENCODINGS),
    "CUSTOM_TIKTOKEN_CACHE_DIR": str(ENCODINGS),
}
"""Nothing but the loopback vendor is asked for anything."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool."""

    name: str
    distribution: str
    version: str
    driver: str
    extras: str = ""
    arguments: tuple[str, ...] = ()
    quick: bool = False
    """It takes less than a processor second for 1,000 rows, so it can be shown more."""

    @property
    def rows(self) -> int:
        """How many rows its processor time is measured with."""
        return QUICK_ROWS if self.quick else SLOW_ROWS

    @property
    def memory_rows(self) -> tuple[int, ...]:
        """How many rows its memory is measured with."""
        return (SLOW_ROWS // 10, 2 * SLOW_ROWS, self.rows) if self.quick else (self.rows // 10, self.rows)

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.distribution}{self.extras}=={self.version}"

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return FOLDER / f"{self.distribution}-{self.version}" / "bin" / "python"

    def install(self) -> str | None:
        """Make its environment if it isn't there; return why that failed, None if it didn't."""
        done = self.python.parent.parent / ".installed"
        if done.exists():
            return None
        say(f"installing {self.requirement}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", done.parent], check=True)  # noqa: S603 -- this Python
        command = [str(self.python), "-m", "pip", "install", "--quiet", self.requirement]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- its own pip
        if pip.returncode:
            return f"pip could not install it: {pip.stderr.strip().splitlines()[-1]}"
        done.touch()
        return None

    def send(self, path: Path, vendor: Vendor) -> Measured:
        """Send every row of a file."""
        facts = (path, vendor.base_url, ours.CONCURRENCY, ANSWER_TOKENS, "answers.jsonl", *self.arguments)
        ours.WORK.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ours.WORK) as folder:
            command = [str(self.python), str(DRIVERS / self.driver), *map(str, facts)]
            return measure(command, Path(folder), {**ENVIRONMENT, "HOME": folder, "CURATOR_CACHE_DIR": folder})


ALL = (
    Peer("lm-deluge", "lm-deluge", "0.0.168", "deluge.py", quick=True),
    Peer("AsyncOpenAI + semaphore", "openai", "3.54.0", "cookbook.py", "[aiohttp]", ("httpx",)),
    Peer("AsyncOpenAI + semaphore, aiohttp", "openai", "3.54.0", "cookbook.py", "[aiohttp]", ("aiohttp",)),
    Peer("bespokelabs-curator", "bespokelabs-curator", "0.1.31", "curate.py"),
    Peer("litellm", "litellm", "1.106.2", "lite.py"),
)


def installed(complain: Callable[[str], None]) -> list[Peer]:
    """Install what can be installed."""
    _write_encodings()
    problems = {peer: peer.install() for peer in ALL}
    for peer, problem in problems.items():
        if problem is not None:
            complain(f"{peer.name}: {problem}")
    return [peer for peer, problem in problems.items() if problem is None]


def _write_encodings() -> None:
    """Give tiktoken its files from our own package, or the peers would fetch them from the network."""
    ENCODINGS.mkdir(parents=True, exist_ok=True)
    for name in ("o200k_base", "cl100k_base"):
        url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
        file = ENCODINGS / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        if not file.exists():
            ordered = sorted(ranks.load_ranks(name).items(), key=lambda pair: pair[1])
            unfinished = file.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in ordered))
            unfinished.rename(file)
