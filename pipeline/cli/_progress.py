"""The progress line of a run: in a terminal one line that is rewritten, elsewhere a plain line every few seconds."""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from pipeline.budget import about
from pipeline.cli._show import money, plural
from pipeline.cli._status_line import GAP, StatusLine
from pipeline.runners.tally import Tally
from pipeline.text import duration, printable

if TYPE_CHECKING:
    from pipeline.runners.local import LocalRun

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 5.0
RATE_WINDOW = 60
"""Samples over which the rate is averaged."""
LEFT_ROWS = 10
"""So many rows of them say how long the others will take: one or two may have come at any time."""


class Progress:
    """Watches a run until it is cancelled, then leaves the cursor on a fresh line."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._line = StatusLine()
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._grown: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        """The first sample, and those in which rows had come: of a slow job they reach far back."""

    async def watch(self, run: "LocalRun") -> None:
        """Show the line every so often."""
        if self._quiet:
            return
        period = TERMINAL_SECONDS if self._line.terminal else PLAIN_SECONDS
        self._sample(time.monotonic(), 0)
        try:
            while True:
                await asyncio.sleep(period)
                self._line.show(self.line(run, time.monotonic()))
        finally:
            if self._line.shown:
                self._line.show(self.line(run, time.monotonic()))
                self._line.end()

    def line(self, run: "LocalRun", now: float) -> str:
        """Rows, spend, trouble, what became of the rows, rate, time left: a narrow terminal shows the first of them."""
        tally = run.tally
        self._sample(now, tally.done - tally.already)
        rate = self._rate()
        parts = [_rows(tally), _spent(run)]
        if run.shut_seconds > 1:
            why = "provider down, trying again" if run.down else "rate limited, going on"
            parts.append(f"{why} in {duration(run.shut_seconds)}")
        if not run.in_flight and run.shut_seconds <= 1 and (waiting := run.waiting_alone)[0]:
            rows, seconds = waiting
            parts.append(f"{plural(rows, 'row')} turned away (429, 503), going on in {duration(seconds)}")
        if run.ledger_problem:
            parts.append(f"waiting to load: {run.ledger_problem}")
        parts.append(f"{tally.statuses['ok']:,} ok")
        if tally.bad:
            parts.append(f"{tally.bad:,} not well")
        if run.in_flight:
            parts.append(f"{run.in_flight} in flight")
        if run.spent is not None and run.projected is not None and not run.free:
            parts.append(f"about {about(run.projected)} in all")
        if tally.rate_limited:
            parts.append(held_down(tally.rate_limited, run.requests_per_minute))
        parts.append(f"{rate:.1f} rows/s")
        left = None if tally.total is None else self._seconds_left(tally.total - tally.done, now)
        if left is not None and run.shut_seconds <= 1:  # while nothing goes out that is no time to go by
            parts.append(f"{duration(left)} left")
        return printable(GAP.join(parts))

    def _sample(self, now: float, done: int) -> None:
        if not self._grown or done > self._grown[-1][1]:
            self._grown.append((now, done))
        self._samples.append((now, done))

    def _seconds_left(self, rows: int, now: float) -> float | None:
        """Go by when the last row came, not by now: else the time grows while one is waited for."""
        (start, first), (end, last) = self._grown[0], self._grown[-1]
        if rows <= 0 or last - first < LEFT_ROWS:
            return None
        return max(rows * (end - start) / (last - first) - (now - end), 0.0)

    def _rate(self) -> float:
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else 0.0


def held_down(limited: int, per_minute: float | None) -> str:
    """Say that rate limits slow the run down, and to what."""
    most = "" if per_minute is None else f", at most {per_minute:,.0f} requests/min now"
    return f"slowed down by {plural(limited, 'rate limit')}{most}"


def _spent(run: "LocalRun") -> str:
    if run.free:
        return "free"
    if run.spent is None:
        return "cost unknown"
    return f"{money(run.spent)} spent"


def _rows(tally: Tally) -> str:
    if tally.total is None:
        return f"{tally.done:,} of {tally.rows:,}+ rows"
    return f"{tally.done:,} of {tally.total:,} rows"
