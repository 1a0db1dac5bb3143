"""Whether a server's 429s come by chance: of somebody else's making, as on a shared account or an overloaded gateway.

Then slowing down helps nobody, and a pause keeps everybody waiting for one row. Two things tell: a limit that is
reached refuses much of what goes out right behind the first refused request, and lets about as much through each time
before it refuses; chance does neither. A conclusion is taken back when many more are refused. Pure: no clock.
"""

from collections import deque
from dataclasses import dataclass
from statistics import fmean, pstdev

BEHIND = 10
"""So many requests behind a refused one are looked at."""
NEEDED = 10.0
"""So many of them must have passed, in sum, before 429s are taken for chance."""
PER_REFUSAL = 3.0
"""One that is refused takes so many of them back."""
FORGIVEN = 1.0
"""So much of that each closing of the door makes good: what is shut at once never shows what would have passed."""
SETTLED = 3
"""Before the door was closed so many times, what was learned of a limit may be far off."""
REMEMBERED = 8
"""Refused requests behind which others may still be on the wire."""
COST, COST_SHARE = 12, 0.02
"""A wrong conclusion costs about so many calls: it must wait until as many were refused, or are this share of all."""

CLOSINGS = 8
"""So many times the door must have been closed before it is asked how even they are."""
OFTEN = 40
"""Where more requests than this pass between two closings, what passes behind a refused one tells more."""
UNEVEN = 0.5
"""Spread over mean of what was let through in between: for chance it is near 1, for a limit it is small."""

WATCHED = 200
"""Requests over which the conclusion is checked; half of the count is kept."""
LEAST_SHARE = 0.01
"""Of 429s that is to be expected, however few there were."""
WORSE_FACTOR, WORSE_SPREADS, WORSE_COUNT = 2.0, 2.0, 3.0
"""More 429s than so many times what is to be expected, so many times its spread, and so many: there is a limit."""
PROVEN = 2000
"""A conclusion that held for so many requests was right, and is soon drawn again."""
PATIENCE_MOST = 2
"""Each wrong one doubles what the next one needs, up to so many times."""


@dataclass(slots=True)
class _Refused:
    """A refused request, behind which it is looked what passes."""

    number: int
    last: int
    """Of those behind it, the last one that is looked at."""
    tokens: int
    """Its own: smaller ones may slip through a limit that refuses it."""


class Chance:
    """Hears of every request, of every 429 and, while it wants to, of every answer."""

    def __init__(self) -> None:
        self._behind: deque[_Refused] = deque(maxlen=REMEMBERED)
        self._passed = 0.0
        """How many passed behind a refused request, less what refusals take back; below 0 a limit has been seen."""
        self._closings = 0
        self._between: deque[int] = deque(maxlen=CLOSINGS)
        self._uneven = 0
        """How often in a row they were."""
        self._patience = 1
        self._number = 0
        """Of the last request that went out."""
        self._last_refused = -1
        self._sent = self._refused = 0.0
        """Requests, and 429s, since `_since` or over the last few hundred."""
        self._since = 0
        self._share = 0.0
        """Of 429s, which is to be expected if the conclusion is right."""
        self._held = 0.0
        """Requests for which the conclusion has held."""
        self.at_work = False
        """429s come by chance; a rate learned from them means nothing."""

    @property
    def wants_answers(self) -> bool:
        """Whether `passed` need be called."""
        return bool(self._behind)

    def sent(self) -> None:
        """Take in that a request goes out: they are numbered from 1."""
        self._number += 1
        self._sent += 1
        if self.at_work and self._sent >= WATCHED:
            self._sent, self._refused = self._sent / 2, self._refused / 2
            self._held += WATCHED / 2

    def refused(self, number: int, tokens: int, *, explained: bool = False) -> bool:
        """Take in a 429; tell whether it may have come by chance, so that only its row need wait.

        `explained`: a limit may well have been reached, as the server says so or the rate was probing.
        """
        in_a_row, self._last_refused = number == self._last_refused + 1, number
        if number > self._since and (self.at_work or not in_a_row):  # an outage is no share
            self._refused += 1
        if self.at_work:
            self._check()
            return self.at_work
        if explained or self._closings < SETTLED:
            return False
        alone = self._refused_before(number) is None
        if not alone:
            self._passed = max(self._passed - PER_REFUSAL, -NEEDED)
        self._behind.append(_Refused(number, number + BEHIND, tokens))
        return alone and self._passed >= 0

    def passed(self, number: int, tokens: int) -> None:
        """Take in that the server answered a request."""
        refused = self._refused_before(number)
        if refused is None or tokens < refused.tokens:
            return
        self._passed = min(self._passed + 1, NEEDED)
        if self._passed >= NEEDED and max(self._refused, COST_SHARE * self._sent) >= COST * self._patience:
            self._conclude((self._refused + 1) / (self._sent + 1))

    def shut(self) -> None:
        """Take in that the door closes: what passes after the pause says nothing."""
        for each in self._behind:
            each.last = min(each.last, self._number)

    def closed(self, accepted: int) -> None:
        """Take in that the door was closed after so many requests had been let through."""
        self._closings += 1
        if self._passed < 0:
            self._passed = min(self._passed + FORGIVEN, 0.0)
        if self._closings == 1:  # a server begins with something saved up
            return
        self._between.append(accepted)
        if len(self._between) < CLOSINGS:
            return
        mean = fmean(self._between)
        uneven = mean <= OFTEN and pstdev(self._between) > UNEVEN * mean
        self._uneven = self._uneven + 1 if uneven else 0
        if self._uneven >= self._patience:
            self._conclude(1 / (1 + mean))

    def _refused_before(self, number: int) -> _Refused | None:
        return next((each for each in self._behind if each.number < number <= each.last), None)

    def _conclude(self, share: float) -> None:
        self.at_work, self._share, self._held = True, max(share, LEAST_SHARE), 0.0
        self._behind.clear()
        self._count_anew()

    def _check(self) -> None:
        expected = self._share * self._sent
        if self._refused <= WORSE_FACTOR * expected + WORSE_SPREADS * expected**0.5 + WORSE_COUNT:
            return
        self.at_work = False
        if self._held >= PROVEN:
            self._passed, self._patience = 0.0, 1
        else:
            self._passed, self._patience = -NEEDED, min(2 * self._patience, PATIENCE_MOST)
        self._uneven = 0
        self._between.clear()
        self._count_anew()

    def _count_anew(self) -> None:
        self._sent = self._refused = 0.0
        self._since = self._number
