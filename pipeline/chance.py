"""Whether a server's 429s come by chance: of somebody else's making, as on a shared account or an overloaded gateway.

Then slowing down helps nobody. A limit lets about as much through each time before it refuses; chance does not.
Pure: no clock.
"""

from collections import deque
from statistics import fmean, pstdev

CLOSINGS = 8
"""So many times the door must have been closed before anything is concluded."""
OFTEN = 40
"""Where more requests than this pass between two closings, the rate is about right, whatever closes the door."""
UNEVEN = 0.5
"""Spread over mean of what was let through in between: for chance it is near 1, for a limit it is small."""
WATCHED = 100
"""Requests after which the conclusion is checked."""
WORSE_FACTOR, WORSE_SHARE = 2.0, 0.1
"""More 429s than so many times the share before, plus this, and there is a limit after all."""


class Chance:
    """Hears how much passed between two closings of the door, and every 429."""

    def __init__(self) -> None:
        self._between: deque[int] = deque(maxlen=CLOSINGS)
        self._first = True
        self._share = 0.0
        self._sent = self._refused = 0
        self._patience = 1
        self._doubted = 0
        self.at_work = False
        """429s come by chance; a rate learned from them means nothing."""

    def closed(self, accepted: int) -> None:
        """Take in that the door was closed after so many requests had been let through."""
        if self._first:  # a server begins with something saved up
            self._first = False
            return
        self._between.append(accepted)
        if self.at_work or len(self._between) < CLOSINGS:
            return
        mean = fmean(self._between)
        uneven = mean <= OFTEN and pstdev(self._between) > UNEVEN * mean
        self._doubted = self._doubted + 1 if uneven else 0
        if self._doubted >= self._patience:
            self.at_work, self._share = True, 1 / (1 + mean)
            self._sent = self._refused = 0

    def sent(self) -> None:
        """Take in that a request goes out."""
        self._sent += 1
        if not self.at_work or self._sent < WATCHED:
            return
        if self._refused > (WORSE_FACTOR * self._share + WORSE_SHARE) * self._sent:
            self.at_work = False
            self._between.clear()
            self._doubted, self._patience = 0, 2 * self._patience  # once wrong, more careful
        self._sent = self._refused = 0

    def refused(self) -> None:
        """Take in a 429, whether it was the first of its kind or not."""
        self._refused += 1
