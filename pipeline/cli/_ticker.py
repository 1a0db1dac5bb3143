"""How far counting is: a bar in a terminal, a plain line every few seconds elsewhere."""

import contextlib
import shutil
import sys
import time

import click

from pipeline.cli._show import duration

TERMINAL_SECONDS = 0.2
PLAIN_SECONDS = 5.0
BAR_CELLS = 20


class Ticker:
    """Hears how many rows are counted and which share of the input they are, and shows it on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._shown = 0

    def __call__(self, rows: int, share: float | None) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._last < (TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS):
            return
        self._last = now
        self._print(self.line(rows, share, now - self._start))

    def line(self, rows: int, share: float | None, seconds: float) -> str:
        """Rows, rate, and where the share is known how much is done and the time left."""
        parts = [f"counted {rows:,} rows", f"{rows / seconds:,.0f} rows/s"]
        if share:
            done = round(share * BAR_CELLS)
            bar = f"[{'#' * done}{'.' * (BAR_CELLS - done)}] " if self._terminal else ""
            parts = [f"{bar}{share:.0%}", *parts, f"{duration(seconds / share - seconds)} left"]
        return "  ".join(parts)

    def clear(self) -> None:
        """Make room for the result."""
        if self._shown:
            self._print("")
            with contextlib.suppress(OSError):
                click.echo("\r", err=True, nl=False)
            self._shown = 0

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads stderr any more: counting goes on all the same
            if not self._terminal:
                click.echo(text, err=True)
                return
            cut = text[: shutil.get_terminal_size().columns - 1]
            click.echo("\r" + cut.ljust(self._shown), err=True, nl=False)
            self._shown = len(cut)
