"""The log of a run: one line per event, for the morning after. Never a prompt, an answer, a header or a key.

Events go to the standard library's logger `promptmill`, so a program that uses this package as a library can send them
where it likes. `opened` writes them to a file, cleans every line, and tells the first few of many equal events only.
"""

import asyncio
import importlib.metadata
import logging
import os
import re
import stat
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from pipeline.budget import dollars
from pipeline.errors import Pause, PromptmillError, UsageError
from pipeline.notices import LOGGER, Notify
from pipeline.providers import hide
from pipeline.records import Attempt
from pipeline.text import printable

if TYPE_CHECKING:
    from pipeline.ledger import RunStart
    from pipeline.runners.launch import Prepared
    from pipeline.runners.local import LocalRun

PROGRESS_SECONDS = 60.0
LONGEST_LINE = 8_000
"""Characters of one event."""
_TOLD_EACH = 3
"""So many events of one kind are told; then the 10th, the 100th, the 1,000th, ..."""
_MOST_KINDS = 200
"""Beyond so many kinds others of a result are one."""
_A_LINE_OF_OURS = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_BARE = re.compile(r"[^\s\"=]+")


def started(prepared: "Prepared", start: "RunStart", ledger: Path) -> None:
    """Tell what this run is about to do, and where it books."""
    job, limits = prepared.job, prepared.job.limits
    facts = {
        "job": job.name,
        "model": job.model.name,
        "provider": job.provider.name,
        "host": urlsplit(job.provider.base_url or "").hostname or "this machine",
        "rows_known": start.plan.rows_stored,
        "keys_answered": len(start.known.own),
        "budget": "none" if job.budget_usd is None else dollars(job.budget_usd),
        "plan_spent": dollars(start.plan.spent_usd),
        "max_tokens": job.model.max_tokens,
        "concurrency": limits.concurrency,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "ledger": ledger,
        "journal": start.journal.path.name,
        "pid": os.getpid(),
        "version": importlib.metadata.version("promptmill"),
    }
    LOGGER.info("run %s starts: %s", start.run_id, _pairs(facts))


def exchange(attempt: Attempt) -> None:
    """Tell how an exchange ended: each one at level debug, else the first few failures of each kind."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        LOGGER.debug("exchange: %s", _pairs(_facts(attempt)))
    elif attempt.result != "ok":
        kind = f"{attempt.result}/{attempt.error_type}"
        LOGGER.info("not well: %s", _pairs(_facts(attempt)), extra={"sparing": kind})


def door_shut(seconds: float, *, limited: bool) -> None:
    """Tell that a rate limit, or an outage, keeps everybody waiting."""
    why = "rate limited" if limited else "provider down"
    LOGGER.info("%s: nothing goes out for %.3g s", why, seconds, extra={"sparing": why})


def pausing(pause: Pause) -> None:
    """Tell why nothing more is let out."""
    LOGGER.warning("stopping: %s", pause.why)


def _progress(run: "LocalRun", rate: float) -> dict[str, Any]:
    tally = run.tally
    return {
        "rows": tally.rows,
        "done": tally.done,
        "ok": tally.statuses["ok"],
        "not_well": tally.bad,
        "sent": tally.sent,
        "spent": "unknown" if run.spent is None else dollars(run.spent),
        "rows_per_second": f"{rate:.2f}",
        "in_flight": run.in_flight,
        "shut_seconds": round(run.shut_seconds) or None,
        "rate_limited": tally.rate_limited or None,
        "learned_per_minute": None if run.requests_per_minute is None else round(run.requests_per_minute),
        "waiting_to_load": run.ledger_problem,
    }


def _facts(attempt: Attempt) -> dict[str, Any]:
    usage = attempt.usage
    return {
        "key": attempt.key,
        "attempt": attempt.attempt,
        "kind": attempt.kind,
        "result": attempt.result,
        "http_status": attempt.http_status,
        "latency_ms": round(attempt.latency_ms),
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cost": "unknown" if attempt.cost_usd is None else dollars(attempt.cost_usd),
        "request_id": attempt.request_id,
        "error_type": attempt.error_type,
        "error": _without_answer(attempt),
    }


def _without_answer(attempt: Attempt) -> str | None:
    """Leave out what quotes an answer: the log holds no data."""
    return None if attempt.error_type == "schema" else attempt.error


def _pairs(facts: dict[str, Any]) -> str:
    """Write `name=value name="two words"`; what is not there is left out."""
    texts = {name: str(value) for name, value in facts.items() if value is not None}
    return " ".join(f"{name}={text if _BARE.fullmatch(text) else _quoted(text)}" for name, text in texts.items())


def _quoted(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()


class RunLog:
    """An open log. `tell` and `hide` may be used at any time until it is closed."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets

    def hide(self, secret: str) -> None:
        """Never write this value from now on."""
        self._secrets.append(secret)

    def tell(self, text: str) -> None:
        """Write down what the user is told, too."""
        LOGGER.warning("%s", text)

    async def watch(self, run: "LocalRun") -> None:
        """Tell every minute how far a run is, until cancelled."""
        clock = asyncio.get_running_loop().time
        before, then = run.tally.done, clock()
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            done, now = run.tally.done, clock()
            LOGGER.info("progress: %s", _pairs(_progress(run, (done - before) / (now - then))))
            before, then = done, now

    def ended(self, run_id: int, exit_code: int, sentence: str) -> None:
        """Write the last line of a run."""
        LOGGER.info("run %s ends with exit code %s: %s", run_id, exit_code, sentence)

    def failed(self, error: BaseException) -> None:
        """Write down what ended the command: a mistake of the user in its own words, ours with its traceback."""
        if isinstance(error, PromptmillError):
            LOGGER.error("%s", error)
        elif isinstance(error, KeyboardInterrupt):
            LOGGER.error("interrupted")
        else:
            LOGGER.error("internal error: %s", "".join(traceback.format_exception(error)).rstrip())


@contextmanager
def opened(path: Path, *, debug: bool, notify: Notify, forbidden: Sequence[Path] = ()) -> Iterator[RunLog]:
    """Append the events of this process to a file. Raises UsageError if that can't be done or would spoil a file.

    When writing fails later (a full disk), `notify` hears of it once and the run goes on.
    """
    secrets: list[str] = []
    handler = _File(_open(path, forbidden), path, notify, secrets)
    before = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.DEBUG if debug else logging.INFO)
    LOGGER.propagate = False  # what a host program does with its root logger is its own affair
    LOGGER.addHandler(handler)
    try:
        yield RunLog(secrets)
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]
        handler.close()


def _open(path: Path, forbidden: Sequence[Path]) -> int:
    if any(_same(path, other) for other in forbidden):  # looked at before it is opened: docs/journal.md, rule 9
        raise UsageError(f"--log {path}: that file is not a log; name another")
    try:
        if path.exists() and not (stat.S_ISREG(path.stat().st_mode) or stat.S_ISCHR(path.stat().st_mode)):
            raise UsageError(f"--log {path}: not a file")
        named_so = path.suffix == ".log"  # somebody may have put a line of their own in front
        if not named_so and path.is_file() and path.stat().st_size and not _A_LINE_OF_OURS.match(_head(path)):
            raise UsageError(f"--log {path}: the file exists and is not a log of promptmill; name another, or a .log")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"--log {path} can't be written: {error.strerror or error}") from error


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(40)


class _File(logging.Handler):
    """One `os.write` per line, so that lines of several runs never mix and a kill leaves whole ones."""

    def __init__(self, fd: int, path: Path, notify: Notify, secrets: list[str]) -> None:
        super().__init__()
        self._fd, self._path, self._notify, self._secrets = fd, path, notify, secrets
        self._counts: Counter[str] = Counter()
        self._torn = _ends_in_mid_line(path)
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless enough of its kind are written."""
        line = self._line(record)
        if line is None:
            return
        data = line.encode("utf-8", "replace")
        try:
            written = os.write(self._fd, b"\n" + data if self._torn else data)
            self._torn = written < len(data)
        except OSError as error:
            self._complain(error.strerror or str(error))
            return
        if self._torn:
            self._complain("the disk is full")

    def _line(self, record: logging.LogRecord) -> str | None:
        text = _cleaned(record.getMessage(), self._secrets)
        kind = getattr(record, "sparing", None)
        if kind is not None:
            if kind not in self._counts and len(self._counts) >= _MOST_KINDS:  # codes of one request each, perhaps
                kind = f"{kind.partition('/')[0]}/others"
            self._counts[kind] += 1
            count = self._counts[kind]
            if count > _TOLD_EACH and not re.fullmatch("10*", str(count)):
                return None
            text += f" ({count:,} like this so far)" if count > _TOLD_EACH else ""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{moment}.{int(record.msecs):03d}Z {record.levelname.lower()} {text}\n"

    def _complain(self, reason: str) -> None:
        """Say once that the log has a gap; a run must not end over its log."""
        if not self._failed:
            self._failed = True
            self._notify(f"the log {self._path} can't be written: {reason}; the run goes on")

    def close(self) -> None:
        """Tell how often each kind of event came, and close the file."""
        if self._fd >= 0:
            for kind, count in sorted(self._counts.items()):
                if count > _TOLD_EACH:
                    self.emit(logging.makeLogRecord({"levelname": "INFO", "msg": f"{count:,} times in all: {kind}"}))
            os.close(self._fd)
            self._fd = -1
        super().close()


def _ends_in_mid_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _cleaned(text: str, secrets: Sequence[str]) -> str:
    line = printable(hide(text, secrets))
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
