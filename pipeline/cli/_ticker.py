"""How far counting is: a bar in a terminal, a plain line every few seconds elsewhere."""

import time

from pipeline.cli._status_line import StatusLine
from pipeline.text import duration

TERMINAL_SECONDS = 0.2
PLAIN_SECONDS = 5.0
BAR_CELLS = 20


class Ticker:
    """Hears how many rows are counted and which share of the input they are, and shows it on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._line = StatusLine()
        self._start = self._last = time.monotonic()

    def __call__(self, rows: int, share: float | None) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._last < (TERMINAL_SECONDS if self._line.terminal else PLAIN_SECONDS):
            return
        self._last = now
        self._line.show(self.line(rows, share, now - self._start))

    def line(self, rows: int, share: float | None, seconds: float) -> str:
        """Rows, rate, and where the share is known how much is done and the time left."""
        parts = [f"counted {rows:,} rows", f"{rows / seconds:,.0f} rows/s"]
        if share:
            done = round(share * BAR_CELLS)
            bar = f"[{'#' * done}{'.' * (BAR_CELLS - done)}] " if self._line.terminal else ""
            parts = [f"{bar}{share:.0%}", *parts, f"{duration(seconds / share - seconds)} left"]
        return "  ".join(parts)

    def clear(self) -> None:
        """Make room for the result."""
        self._line.clear()
