"""How long to wait before a request goes out again, or not at all. Pure: no clock, no randomness, no sleeping."""

from dataclasses import dataclass

from pipeline.records import Failure

LONGEST_WAIT = 1800.0
"""Seconds. A server that asks for more (a daily limit) pauses the run instead of holding it."""
_SERVER_SPREAD = 0.1
"""Added to a wait the server named, so that all who were told the same do not come back together."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; what the server asked for always wins, and is never cut short.

    It is asked about failures that may be tried again. Two counters that the caller keeps apart:
    - `tries`, per request: exchanges of this request so far that count, the failed one included. A failure with
      `closes_door` (a rate limit) does not count, so rate limits alone never use a row up.
    - `streak`, per endpoint: closings of the door in a row since the last exchange that did not close it.
    """

    attempts: int = 6
    """Tries that count, in all, the first one included."""
    base_seconds: float = 0.5
    cap_seconds: float = 60.0
    """Bounds our own backoff, not a wait the server named."""
    probe_cap_seconds: float = 4.0
    """The same for the first `quick_probes` of a provider that is down, if they cost nothing: the next row may pass."""
    quick_probes: int = 100
    door_base_seconds: float = 0.25
    door_growth: float = 1.35
    """Gentler than a request's own doubling: a window that has just begun again should not be missed for long."""

    def wait_before(self, tries: int, failure: Failure, jitter: float) -> float | None:
        """Seconds until this request may go out again; None: give it up. `jitter` is a number in [0, 1)."""
        if tries >= self.attempts:
            return None
        return self._backoff(tries, failure, jitter, self.cap_seconds)

    def wait_for_door(self, streak: int, failure: Failure, jitter: float) -> float:
        """Seconds the door stays closed for everybody after the `streak`-th closing in a row (from 1)."""
        backoff = self._spread(self.door_base_seconds * self.door_growth ** _steps(streak), jitter)
        return self._asked(failure, backoff, jitter)

    def wait_for_suspect(self, refusals: int, failure: Failure, jitter: float) -> float:
        """Seconds until a row goes out again that is refused while others pass, after so many refusals."""
        backoff = self._spread(self.base_seconds * 2.0 ** _steps(refusals), jitter)
        return max(backoff, self._asked(failure, backoff, jitter))

    def wait_for_room(self, turned_away: int, failure: Failure, jitter: float) -> float:
        """Seconds until a request goes out again that a full server turned away so many times."""
        return self._backoff(turned_away, failure, jitter, self.cap_seconds)

    def wait_for_probe(self, probe: int, failure: Failure, jitter: float) -> float:
        """Seconds until a provider that is down is asked again, after the `probe`-th failure (from 1)."""
        quick = probe <= self.quick_probes and not failure.cost_unknown
        cap = self.probe_cap_seconds if quick else self.cap_seconds
        return self._backoff(probe, failure, jitter, cap)

    def _backoff(self, count: int, failure: Failure, jitter: float, cap: float) -> float:
        seconds = min(self.base_seconds * 2.0 ** _steps(count), cap)
        return self._asked(failure, self._spread(seconds, jitter), jitter)

    def _spread(self, seconds: float, jitter: float) -> float:
        return min(seconds, self.cap_seconds) * (0.5 + 0.5 * jitter)

    def _asked(self, failure: Failure, backoff: float, jitter: float) -> float:
        named = failure.wait_seconds
        if named is None:
            return backoff
        asked = named * (1 + _SERVER_SPREAD * jitter)
        # "Retry-After: 0" with a rate limit, which never uses up tries, would be a loop without a pause.
        return max(asked, backoff) if named < self.base_seconds else asked


def _steps(count: int) -> int:
    return min(max(count - 1, 0), 30)
