"""How fast a server lets requests through: learned from its 429s and from what its headers say. Pure: no clock.

Nothing known: requests ramp up, doubling until something complains or nothing can feel it any more. After a 429 the
rate follows a curve (as CUBIC does for TCP) that starts below the last good rate, comes back to it, stays near it, and
then probes ever faster. A stated limit is a ceiling that nothing here exceeds; a limit that headers name is one, too.
"""

import math
from collections import deque
from dataclasses import dataclass

from pipeline.chance import Chance
from pipeline.records import Allowance, RateHint
from pipeline.slots import Sent, Slots

MARGIN = 0.998
"""Share of a stated rate that is used: what the rest is for is the network's jitter."""
STRICT_MARGIN = 0.999
"""The same where two requests hardly ever come closer than their distance, so that lateness adds to the margin."""
CATCH_UP_SECONDS = 0.05
"""What timers and a busy loop are late by is caught up, if it isn't more."""
TIMER_SECONDS = 0.002
"""What timers alone are late by is caught up at any rate: no more than two requests may meet in the network anyway."""

SLICE_SECONDS = 0.005
"""So much of a stated rate, or of a ramp, goes out together: timers count milliseconds, and waking up has its price."""
CAREFUL_SECONDS = 0.01

START = 20.0
"""Requests per second at the start of a ramp; a server that allows fewer says so at once."""
DOUBLING_SECONDS = 0.25
FULL_RAMP = 10_000.0
"""Requests per second from which a ramp limits nobody any more."""
RAMP_SECONDS = DOUBLING_SECONDS * math.log2(FULL_RAMP / START)
CLIMB_SECONDS = 1.0
"""Until the rate has doubled that goes out after 429s were found to come by chance."""
NO_RAMP_UP_TO = 4
"""So few slots can't hurt a server: they need no ramp."""

FIRST_GUESS = 0.7
"""Of the rate that was let through before the first 429: servers begin with something saved up."""
BACK_TO = 0.9
"""Share of the last good rate that the curve starts at."""
GOOD_REQUESTS, GOOD_SECONDS = 24, 1.0
"""The rate just before a 429 is measured over so many requests, or seconds if they hold more."""
MEMORY = 1024
"""Requests of which it is known when they went out."""
FEW = 3
"""Fewer requests than this between two 429s do not end a pause, and are no rate: small ones may have slipped in."""
SLOWED = 0.7
"""What a 429 after so few requests takes off the rate."""
FREE_PAUSE_SECONDS = 1.5
"""A pause up to this says nothing about the rate: it is as long as we or the server chose to make it."""
LONGEST_WINDOW_SECONDS = 90.0
"""A longer pause is an outage or a daily limit; spreading requests over it would not help."""
SURE_REQUESTS = 50.0
"""So many requests between two 429s, about, are slow enough a probe."""
QUICKEST, SLOWEST = 1.0, 60.0
"""Bounds of the seconds until the curve is back at the last good rate."""
QUICKEST_REQUESTS = 5.0
"""And at least so many requests."""
LEAST_SLOWEST, LEAST_SLOWEST_AFTER_PAUSE = 8.0, 15.0
"""The upper bound for fast servers; after a long pause the server may count by the minute, and feels a probe late."""
LEAST_RATE = 1 / 60
"""Requests per second below which nothing is learned: closings are spread that far anyway."""
SILENCE_LEAST, SILENCE_MOST = 0.05, 1.0
"""Bounds of the seconds that the first request after a pause goes alone: a 429 would be back by then."""

WINDOWS = (1.0, 60.0, 3600.0, 86_400.0)
"""The seconds that servers count limits over."""
WINDOW_ROUNDING = 1.1
"""A reset may be named a little too long: whole seconds, clocks that differ."""
SMOOTHED_WINDOW = 60.0
"""Limits over longer windows are not spread: a run may well end before."""


def catch_up_seconds(per_second: float) -> float:
    """How much lateness is caught up: half of what a bucket of a tenth of a second forgives, as a server may use."""
    return min(max((0.1 - 1 / per_second) / 2, TIMER_SECONDS), CATCH_UP_SECONDS)


def careful_seconds(per_second: float) -> float:
    """How much lateness is caught up at a rate that was learned: none where a server may save nothing up."""
    return max(CAREFUL_SECONDS - 1 / per_second, 0.0)


def paced(per_minute: float | None) -> float | None:
    """Return the rate per second to keep to so that a stated limit per minute is never exceeded, and used well."""
    if per_minute is None:
        return None
    per_second = per_minute / 60
    return per_second * (MARGIN if catch_up_seconds(per_second) > TIMER_SECONDS else STRICT_MARGIN)


def lowest(*rates: float | None) -> float | None:
    """Return the rate in force of several; None is no limit."""
    return min((rate for rate in rates if rate is not None), default=None)


@dataclass(slots=True)
class _Closing:
    """The first 429 since the door was last open, and what had been let through before it."""

    at: float
    """When the limited request had gone out."""
    number: int
    good: float
    """Requests per second let through just before."""
    accepted: int
    """Requests let through since the door had opened, in `open_seconds`."""
    open_seconds: float
    since_last: float | None
    """Seconds since the last closing, the pause included."""
    at_once: bool
    """It may be the number of requests at once that the server limits: the length of the pause says nothing then."""
    certain: bool
    """It is; the server says so."""
    slowed: float = 1.0
    """By how much the few requests that slipped through since then say that the rate is lower."""
    last_at: float = 0.0
    """When the last request before, or slipping through since, had gone out."""

    @property
    def estimate(self) -> float:
        """The rate that the server allows, as far as this closing shows.

        Just before it a server that saves up for bursts let through more than it allows for long; since the last
        closing, when it was just as exhausted, it let through less, if the pause was longer than it saves up for.
        """
        if self.since_last is None:
            return FIRST_GUESS * self.good
        less = self.good - min(self.good, self.accepted / self.since_last)
        return self.good - less / (2 + self.open_seconds)


@dataclass(frozen=True, slots=True)
class _Curve:
    start: float
    good: float
    """Requests per second that were let through last time."""
    back_seconds: float

    def rate(self, now: float) -> float:
        x = (now - self.start) / self.back_seconds - 1
        return self.good * (1 + (1 - BACK_TO) * x**3)


@dataclass(slots=True)
class _Climb:
    start: float
    begin: float
    """Requests per second."""
    limits: bool = True
    """Whether it still limits anybody."""

    def rate(self, now: float) -> float | None:
        doublings = (now - self.start) / CLIMB_SECONDS
        self.limits = self.limits and doublings < math.log2(max(FULL_RAMP / self.begin, 1.0))
        if not self.limits:
            return None
        rate: float = self.begin * 2.0**doublings
        return rate


class Pace:
    """What is known about a server's limits. All times are seconds of one clock, all rates per second."""

    def __init__(self, *, ramps: bool) -> None:
        self._ramp: float | None = START if ramps else None
        self._ramp_start: float | None = None
        self._curve: _Curve | None = None
        self._closing: _Closing | None = None
        self._closing_before: _Closing | None = None
        self._number = 0
        self._recent: deque[float] = deque(maxlen=MEMORY)
        self._opened_at = 0.0
        self._opened_number = 1
        self._closed = False
        self._shut_until = 0.0
        self._answer_seconds = SILENCE_LEAST / 2
        """How long a 429 takes to come back."""
        self._slots = Slots()
        self._chance = Chance()
        self._climb: _Climb | None = None
        self._hints = {"requests": _Ceiling(), "tokens": _Ceiling()}
        self.closed_in_a_row = 0
        """Closings since the server last let a request through."""

    def sent(self, now: float, in_flight: int, answered: int = 0) -> Sent:
        """Note that a request goes out, as the `in_flight`-th that is on the wire, with so many answered before."""
        self._number += 1
        if self._closed:
            self._reopen(now)
        elif self._ramp_start is None:
            self._ramp_start = self._opened_at = now
        self._recent.append(now)
        self._chance.sent()
        self._slots.sent(now, self._number, in_flight)
        return Sent(now, self._number, in_flight, answered)

    def limited(self, now: float, sent: Sent, hint: RateHint | None = None, tokens: int = 0) -> bool:
        """Learn from a 429. Of the requests that went out together only the first one counts.

        True is returned if it is a limit for everybody, False if it came by chance and is the row's own.
        """
        at_once = hint is not None and hint.at_once
        curve = self._curve
        probing = self._ramp is not None or (curve is not None and curve.rate(sent.at) > curve.good)
        thought_so = self._chance.at_work
        by_chance = self._chance.refused(sent.number, tokens, explained=at_once or probing)
        if self._chance.at_work:
            return False
        if thought_so:  # what was let through meanwhile says more than what chance had taught
            self._ramp = self._curve = self._climb = None
        if sent.number < self._opened_number:
            return True
        if self._closed:
            self._earlier(sent)
            return True
        if by_chance and sent.number - self._opened_number >= FEW:  # a pause is not over with its first request
            return False
        self._closed = True
        self._chance.shut()
        self._answer_seconds += 0.5 * (now - sent.at - self._answer_seconds)
        accepted = sent.number - self._opened_number
        if accepted == 0 or (self._closing is not None and accepted < FEW):
            self._goes_on(sent.at, accepted)
            return True
        self.closed_in_a_row = 1
        self._chance.closed(accepted)
        certain = self._slots.limited(sent, accepted, said=at_once)
        since_last = None if self._closing is None else sent.at - self._closing.at
        seconds = sent.at - self._opened_at
        # Where most of what was let through is still on the wire, it may be their number that is limited.
        at_once = self._slots.suspects or (self._closing is None and 2 * (sent.in_flight - 1) >= accepted)
        self._closing_before = self._closing
        self._closing = _Closing(
            sent.at, sent.number, self._good(sent), accepted, seconds, since_last, at_once, certain, last_at=sent.at
        )
        return True

    def passed(self, sent: Sent, tokens: int) -> None:
        """Note that a request was answered; needed only while `wants_answers`."""
        self._chance.passed(sent.number, tokens)

    def shut(self, until: float) -> None:
        """Note that nothing goes out before this moment."""
        self._shut_until = until

    def heard(self, hint: RateHint) -> None:
        """Learn from an answer that names limits."""
        self._hints["requests"].heard(hint.requests)
        self._hints["tokens"].heard(hint.tokens)

    @property
    def wants_answers(self) -> bool:
        """Whether `passed` need be called."""
        return self._chance.wants_answers

    @property
    def may_limit(self) -> bool:
        """Whether anything that was learned, or a ramp, may limit the next request."""
        if self._chance.at_work:
            learned = self._climb is None or self._climb.limits
        else:
            learned = self._ramp is not None or self._curve is not None or self.closed_in_a_row > 0
        return learned or self._hints["requests"].per_second is not None or self._hints["tokens"].per_second is not None

    @property
    def ramps(self) -> bool:
        """Whether requests are still ramping up."""
        return self._ramp is not None

    def requests_per_second(self, now: float) -> float | None:
        """Return the rate in force now; None is no limit."""
        return lowest(self._hints["requests"].per_second, self._in_force(now))

    def learned_per_second(self, now: float) -> float | None:
        """Return the rate in force now if the server taught it: a ramp is no knowledge."""
        unknown = self._ramp is not None or self._chance.at_work
        return lowest(self._hints["requests"].per_second, None if unknown else self._in_force(now))

    @property
    def tokens_per_second(self) -> float | None:
        """The rate that headers named, None if they named none."""
        return self._hints["tokens"].per_second

    @property
    def tokens_to_spare(self) -> bool:
        """Whether tokens reserved and not used may be spent again: no, where headers say that few are left."""
        return self._hints["tokens"].to_spare

    @property
    def slots(self) -> int | None:
        """How many requests at once the server lets through; None is not known."""
        return None if self._chance.at_work else self._slots.most

    def alone_until(self) -> float:
        """When a second request may follow the first one after a pause, if that is not answered by a 429."""
        if self._chance.at_work or not self.closed_in_a_row or self._number != self._opened_number or self._closed:
            return 0.0
        return self._opened_at + min(max(2 * self._answer_seconds, SILENCE_LEAST), SILENCE_MOST)

    def _in_force(self, now: float) -> float | None:
        if self._chance.at_work:
            return self._climbed(now)
        return self._learned(now)

    def _climbed(self, now: float) -> float | None:
        """Leave a rate behind that chance has taught, no faster than a limit would show that there is one after all."""
        if self._climb is None:
            self._climb = _Climb(now, self._learned(now) or START)
        return self._climb.rate(now)

    def _learned(self, now: float) -> float | None:
        if self._ramp is not None:
            return self._ramped(now, self._ramp)
        if self._curve is None:
            return None
        rate = self._curve.rate(now)
        if rate <= self._curve.good or len(self._recent) < GOOD_REQUESTS:
            return rate
        # A rate that is not used is not proved either: it must not grow without bounds.
        used = len(self._recent) / max(now - self._recent[0], 1e-3)
        return min(rate, max(self._curve.good, 2 * used))

    def _ramped(self, now: float, start: float) -> float | None:
        if self._ramp_start is None:
            return start
        seconds = now - self._ramp_start
        if seconds < RAMP_SECONDS:  # asked first: nobody may have looked for hours, and no number is that large
            rate: float = start * 2.0 ** (seconds / DOUBLING_SECONDS)
            return rate
        self._ramp = None
        return None

    def _good(self, sent: Sent) -> float:
        """Measure what the server let through just before it refused this request."""
        before = [at for at in self._recent if at < sent.at]
        seconds = GOOD_SECONDS if self._ramp is None else DOUBLING_SECONDS
        last = [at for at in before if at >= sent.at - seconds]
        kept = max(last, before[-GOOD_REQUESTS:], key=len)
        if kept:
            good = len(kept) / max(sent.at - kept[0], 1e-3)
        else:  # more were in flight than are remembered
            good = (sent.number - self._opened_number) / max(sent.at - self._opened_at, 1e-3)
        return min(good, self._in_force(sent.at) or good)

    def _earlier(self, sent: Sent) -> None:
        """Correct the closing: a request that went out before the one we took for the first was limited, too."""
        closing = self._closing
        if closing is not None and self._opened_number <= sent.number < closing.number:
            closing.accepted -= closing.number - sent.number
            closing.number, closing.open_seconds = sent.number, closing.open_seconds - (closing.at - sent.at)
            closing.at = closing.last_at = sent.at
            if closing.accepted < (1 if self._closing_before is None else FEW):  # the pause before goes on
                self._closing = self._closing_before
                self._goes_on(closing.at, closing.accepted)

    def _goes_on(self, at: float, accepted: int) -> None:
        """Hear the next 429 after so few requests that the pause was not over yet."""
        self.closed_in_a_row += accepted == 0
        if accepted and self._closing is not None:
            self._closing.accepted += accepted
            self._closing.slowed *= SLOWED
            self._closing.last_at = at

    def _reopen(self, now: float) -> None:
        closing = self._closing
        self._closed = False
        self._opened_at, self._opened_number = now, self._number
        if closing is None:  # refused from the start: nothing is known
            self._ramp_start = now
            return
        until = min(now, self._shut_until)
        pause = max(until - closing.at, 0.0)
        self._recent.clear()
        self._slots.reopened(now, pause)
        if closing.certain and closing.slowed == 1:
            self._ramp, self._ramp_start, self._curve = START, now, None
            return
        self._ramp = None
        good, evidence = closing.estimate * closing.slowed, closing.open_seconds
        if closing.at_once and closing.slowed == 1:
            evidence = QUICKEST
        elif pause > FREE_PAUSE_SECONDS and until - closing.last_at <= LONGEST_WINDOW_SECONDS:
            evidence += pause
            good = min(closing.estimate, closing.accepted / (evidence - FREE_PAUSE_SECONDS))
        good = max(good, LEAST_RATE)
        least = LEAST_SLOWEST if pause <= FREE_PAUSE_SECONDS else LEAST_SLOWEST_AFTER_PAUSE
        longest = max(min(SURE_REQUESTS / good, SLOWEST), least)
        self._curve = _Curve(now, good, min(max(evidence, QUICKEST, QUICKEST_REQUESTS / good), longest))


class _Ceiling:
    """A limit that headers name. Over which seconds it counts follows from the longest reset seen."""

    def __init__(self) -> None:
        self._limit = 0.0
        self._reset = 0.0
        self.per_second: float | None = None
        self.to_spare = True

    def heard(self, allowance: Allowance | None) -> None:
        if allowance is None:
            return
        if allowance.remaining is not None:
            # Of a bucket at least half, of a fixed window at least what its rest may need at the even rate.
            needed = max(0.5, min(allowance.reset_seconds / SMOOTHED_WINDOW, 1.0))
            self.to_spare = allowance.remaining >= needed * allowance.limit
        if allowance.limit == self._limit and allowance.reset_seconds <= self._reset:
            return
        self._limit, self._reset = allowance.limit, max(self._reset, allowance.reset_seconds)
        window = next((seconds for seconds in WINDOWS if self._reset <= seconds * WINDOW_ROUNDING), None)
        fits = window is not None and window <= SMOOTHED_WINDOW
        self.per_second = MARGIN * self._limit / window if fits and window else None
