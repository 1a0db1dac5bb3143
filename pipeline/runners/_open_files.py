"""Room for a run's connections: each is an open file, and the usual limit for those is low."""

from contextlib import suppress
from pathlib import Path

from pipeline.errors import UsageError

SPARE = 64
"""Beside one connection a request: the ledger, the journal, names being looked up, connections that just close."""


def make_room_for(concurrency: int) -> None:
    """Raise this process's limit of open files as far as a run needs. Raises UsageError where that is not allowed."""
    try:
        import resource  # noqa: PLC0415 -- Windows has no such limit
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_now() + concurrency + SPARE
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        most = concurrency - (needed - (soft if hard == resource.RLIM_INFINITY else hard))
        cure = f", or lower [limits] concurrency to {most} or less" if most > 0 else ""
        raise UsageError(
            f"[limits] concurrency = {concurrency:,} needs about {needed:,} open files, more than this process may have"
            f" (`ulimit -Hn` says how many); raise that{cure}"
        ) from None


def _open_now() -> int:
    with suppress(OSError):
        return sum(1 for _ in Path("/dev/fd").iterdir())
    return 0
