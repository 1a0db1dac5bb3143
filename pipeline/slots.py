"""How many requests at once a server works on, if that is what it limits: learned from its 429s. Pure: no clock."""

from typing import NamedTuple

SLOT_PATIENCE_SECONDS = 30.0
"""How long a learned number of slots holds before one more is tried."""
BELIED_MOST = 2
"""So often refused below the number, a server's word about it counts no more."""
PAUSES_PER_TRY = 20.0
"""And at least so many times the pause that the last try cost."""
SLOT_PATIENCE_LEAST, SLOT_PATIENCE_MOST = 5.0, 3600.0


class Sent(NamedTuple):
    """A request that went out."""

    at: float
    number: int
    in_flight: int
    """Requests on the wire then, this one included."""
    answered: int = 0
    """Requests answered so far then."""


class Slots:
    """How many requests at once a server lets through, if that is what it limits.

    It shows when a 429 says so, or when two in a row come at the same number of requests on the wire and none beyond
    that number was let through in between. A wrong guess costs little: the number grows while nothing complains.
    """

    def __init__(self) -> None:
        self.most: int | None = None
        """So many at once; None is not known."""
        self.suspects = False
        """The last 429 looked like it."""
        self._certain = False
        self._belied = 0
        """How often it was said although so many had been let through before."""
        self._suspected: int | None = None
        """So many were on the wire, and let through, when the last 429 came."""
        self._passed: int | None = None
        """The first request that went out beyond the suspected number."""
        self._since = 0.0
        self._patience = SLOT_PATIENCE_SECONDS
        self._grown = False
        self._failed_tries = 0

    def sent(self, now: float, number: int, in_flight: int) -> None:
        """Note a request; if all slots have been used for long enough, the next one may try one more."""
        if self._suspected is not None and self._passed is None and in_flight > self._suspected + 1:
            self._passed = number
        if self.most is not None and in_flight >= self.most and now - self._since > self._patience:
            self.most += 1 if self._certain else max(1, self.most // 2)
            self._since, self._grown = now, True
            self._patience = max(self._patience / 2, SLOT_PATIENCE_LEAST)

    def limited(self, sent: Sent, accepted: int, *, said: bool) -> bool:
        """Learn from a closing's first 429, after so many requests were let through since the last one.

        `said` is what the 429 says of itself; True is returned if that is to be believed.
        """
        busy, before = sent.in_flight - 1, self._suspected
        beyond = self._passed is not None and self._passed < sent.number
        below = self.most is not None and sent.in_flight <= self.most
        again = before is not None and 1 < busy <= accepted and abs(busy - before) <= 1 and not beyond and not below
        self._belied += said and below
        certain = said and self._belied < BELIED_MOST
        self._suspected, self._passed, self.suspects = busy, None, certain or again
        self._certain = certain or (self._certain and self.suspects)
        if self.suspects:
            self.most = max(1, busy if before is None or certain else min(busy, before))
            self._failed_tries += self._grown
            self._grown = False
        elif below:
            self.most = None  # refused below the number: that is not what is limited
        return certain

    def reopened(self, now: float, pause: float) -> None:
        """Note that requests go out again, after a pause of so many seconds."""
        self._since = now
        patience = max(SLOT_PATIENCE_SECONDS, PAUSES_PER_TRY * pause) * 2.0**self._failed_tries
        self._patience = min(patience, SLOT_PATIENCE_MOST)
