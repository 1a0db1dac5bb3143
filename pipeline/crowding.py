"""How many requests at once a server has room for, where it turns the others away with errors instead of 429s.

A server that is full says 503 to a newcomer at once, and goes on with what it is working on. So what is on the wire
then, and is answered later, is what it has room for. Others let requests wait for each other, longer than anybody
waits: then what is answered in that time is. That is a guess: errors by chance look the same for a moment. It is
tried, and kept only if the errors become far fewer; more are tried now and then. Pure: no clock.
"""

from collections import deque
from statistics import median_low
from typing import NamedTuple

from pipeline.slots import Sent

BUSY = frozenset({503, 529})
"""The statuses that may say so: "service unavailable", and "overloaded" of some vendors."""
SLOW = frozenset({408, 504, 524})
"""Those with which somebody on the way says that no answer came in time."""
NEEDED, NEEDED_MOST = 12, 512
"""Requests turned away, while others were worked on and answered, for a guess; each wrong one doubles it."""
SHARE, SHARE_AGAIN = 0.2, 0.05
"""And so large a share of all must be turned away; the second where a number is known and may be a bit too high."""
SHARE_MOST = 0.95
"""It is a guess: were it all of them, nothing could be judged."""
REMEMBERED = 400
"""Over about so many requests the share is taken."""
QUICKER = 3.0
"""Whoever has no room says so in so small a part of an answer's time; what takes longer failed for another reason."""
LATE_NEEDED = 4
"""So many requests that got no answer in time are enough for a guess: each costs minutes."""
SILENT, LONGER = 0.5, 1.5
"""Nobody was answered for so large a share of a wait that ends in vain, and for so many answers' length: that is no
question of room."""
FITS = 0.8
"""So much of what was answered while one of them waited may be on the wire at once."""
ALIKE, ALIKE_SHARE = 0.05, 0.8
"""So large a share of them must have found about as many at work: a room is always full when it turns somebody away."""
TRIED, TRIED_REFUSALS = 40, 12
"""With so many requests a guess is tried, and with as many as would have met so many refusals before."""
BETTER, SPREADS = 1 / 3, 3.0
"""It holds if fewer than this part of those are turned away, and so many standard deviations fewer."""
PATIENCE_SECONDS, PATIENCE_LEAST, PATIENCE_MOST = 30.0, 5.0, 600.0
"""So long a number holds before more are tried; halved and doubled by how that went."""
ANSWERS_PATIENCE = 4.0
"""And at least for so many answers' length."""
GROWTH = 8
"""One more slot for each so many."""
PROOFS, PROOFS_LEAST = 4, 8
"""So many exchanges beyond the old number, for each slot more, show whether there is more room."""
SMOOTHED = 0.1
"""What a new time counts in their averages."""
FULL_SHARE, FULL_SHARE_OF_ALL, FULL_SMOOTHED = 0.2, 0.5, 0.05
"""A server is full while so large a share of the rows is turned away that are sent for the first time: rows that are to
blame themselves are few, however often they are tried. Where its room was known it is with so many of all requests. The
last is what a new one counts."""
FULL_CHANCE, FULL_SECONDS = 1e-4, 60.0
"""So unlikely is it by that share that a row is turned away so often, and then the row is to blame; a share is that of
the last minute."""


class _TurnedAway(NamedTuple):
    number: int
    older: int
    """Requests that had gone out before it and were still on the wire."""
    at: float
    """When that was said."""


class Crowding:
    """Hears of requests that are turned away and, once there was one, of answers."""

    def __init__(self, slots: int) -> None:
        """Take how many requests may be on the wire at a time."""
        self._slots = slots
        self.most: int | None = None
        """So many at once; None is not known."""
        self.watches = False
        """Whether `came_back` and `passed` need be called of answers."""
        self._turned_away: deque[_TurnedAway] = deque(maxlen=NEEDED_MOST)
        self._room: deque[int] = deque(maxlen=NEEDED_MOST)
        """How many were worked on when one was turned away, proved by an answer to one of them."""
        self._late: deque[int] = deque(maxlen=NEEDED_MOST)
        """How many were answered while one waited that got no answer in time."""
        self._needed = NEEDED
        self._newest = 0
        """The number of the newest request that was turned away or answered."""
        self._passed = self._away = 0.0
        self._answer_seconds = self._refusal_seconds = 0.0
        """How long they take, on average; 0 is not known."""
        self._since = 0.0
        """What went out before belongs to what was before."""
        self._first: int | None = None
        """The number of the first request behind that, or of a later one: the share is taken from there on."""
        self._before: float | None = None
        """The share turned away before the guess that is on trial; None: none is."""
        self._fallback: int | None = None
        """What was in force before it."""
        self._grown_from: int | None = None
        """The number that is known to have room, while more are tried."""
        self._patience = PATIENCE_SECONDS
        self._told = False
        self._first_turned_away = self._lately_turned_away = 0.0
        """The share of the last twenty or so: of rows that were sent for the first time, and of all requests."""
        self._judged_at = 0.0
        """When a row was answered or turned away last that had been sent for the first time."""

    def full(self, sent: Sent, now: float, before: int) -> bool:
        """Tell whether a request was turned away for the server's sake, and not for that of its row.

        `before`: how often this row was turned away before.
        """
        share = 0.0
        if self._first_turned_away >= FULL_SHARE and now - self._judged_at <= FULL_SECONDS:
            share = self._first_turned_away
        if self._told and self._lately_turned_away >= FULL_SHARE_OF_ALL:
            share = max(share, self._lately_turned_away)
        return share**before >= FULL_CHANCE and share > 0 and self._quick(sent, now)

    def _quick(self, sent: Sent, now: float) -> bool:
        return QUICKER * (now - sent.at) <= self._answer_seconds

    def came_back(self, sent: Sent, now: float, *, first: bool, turned_away: bool) -> None:
        """Hear of a request whether there was room for it; `first`: its row had not been sent before."""
        self.watches = self.watches or turned_away
        turned_away = turned_away and self._quick(sent, now)
        self._lately_turned_away = _share_with(self._lately_turned_away, turned_away)
        if first:
            self._judged_at = now
            self._first_turned_away = _share_with(self._first_turned_away, turned_away)

    def turned_away(self, sent: Sent, now: float, older: int) -> str | None:
        """Take in that there was no room for a request, while `older` ones were on the wire; return news."""
        if not self._counts(sent):
            return None
        if self._before is None:
            self._was_not_at_work(sent, now)
            if older:
                self._turned_away.append(_TurnedAway(sent.number, older, now))
                self._refusal_seconds = _smoothed(self._refusal_seconds, now - sent.at)
        return self._concluded(sent, now, passed=False)

    def _was_not_at_work(self, sent: Sent, now: float) -> None:
        """Take one that is turned away, too, out of what others found at work that were told so before it."""
        self._turned_away = deque(
            (
                each._replace(older=each.older - 1) if each.number > sent.number and each.at < now else each
                for each in self._turned_away
            ),
            maxlen=NEEDED_MOST,
        )

    def timed_out(self, sent: Sent, now: float, answered: int, last: float) -> str | None:
        """Take in that a request got no answer in time, while so many others were answered; return news.

        `last`: when somebody was answered last. A machine that slept and a network that was gone keep all waiting.
        """
        if not self._counts(sent):
            return None
        if now - last > max(SILENT * (now - sent.at), LONGER * self._answer_seconds):
            answered = 0  # at its beginning a few may have been
        if self._before is None and now - sent.at > self._answer_seconds:  # sooner: for another reason
            self._late.append(answered)
        return self._concluded(sent, now, passed=False)

    def interrupted(self, now: float) -> None:
        """Hear that the server goes down, or is back: what is tried is judged by what comes then.

        Who was turned away before is remembered: a full server looks as if it were down until somebody is answered.
        """
        if self._grown_from is not None:
            self.most, self._grown_from = self._grown_from, None
            self._count_anew(now)
        elif self._before is not None:
            self._count_anew(now)
        self._late.clear()

    def _counts(self, sent: Sent) -> bool:
        """Count a request that was not answered; not where nobody was in its way, or the reason is known.

        While a number is tried nobody need be in its way: were it all by chance, that must show.
        """
        alone = sent.in_flight == 1 and self._before is None
        if self._slots == 1 or alone or sent.at < self._since:
            return False
        self.watches = True
        self._away += 1
        self._newest = max(self._newest, sent.number)
        if self._first is None:  # itself it is why we count
            self._first, self._away = sent.number + 1, self._away - 1
        return True

    def passed(self, sent: Sent, now: float) -> str | None:
        """Take in that a request was answered; return news."""
        self._answer_seconds = _smoothed(self._answer_seconds, now - sent.at)
        self._newest = max(self._newest, sent.number)
        while self._turned_away and self._turned_away[-1].number > sent.number:
            self._room.append(self._turned_away.pop().older)
        if sent.at < self._since:
            return None
        self._passed += 1
        return self._concluded(sent, now, passed=True)

    def goes_out(self, now: float, in_flight: int) -> None:
        """Note that a request goes out as the `in_flight`-th on the wire; call it where a number is known."""
        if self.most is None or in_flight < self.most or self._before is not None or self._grown_from is not None:
            return
        if now - self._since > max(self._patience, ANSWERS_PATIENCE * self._answer_seconds):
            self._grown_from = self.most
            self.most += max(1, self.most // GROWTH)
            self._count_anew(now)

    def _concluded(self, sent: Sent, now: float, *, passed: bool) -> str | None:
        if self._before is not None:
            return self._tried(now, self._before)
        if self._grown_from is not None:
            self._grow(sent, now, self._grown_from, passed=passed)
        else:
            self._guess(now)
        return None

    def _guess(self, now: float) -> None:
        """Begin to try a room, if enough speaks for it."""
        share = self._share()
        if share < (SHARE if self.most is None else SHARE_AGAIN):
            return
        known = self._slots if self.most is None else self.most
        room = None
        if len(self._room) >= self._needed and QUICKER * self._refusal_seconds <= self._answer_seconds:
            room = self._agreed()
        if room is not None and room >= known:  # as many as there are slots: it is not their number, or one too many
            room = known - 1
        if room is None and len(self._late) >= LATE_NEEDED * self._needed // NEEDED:
            room = max(int(FITS * median_low(self._late)), 1) if median_low(self._late) else None
        if room is None or not 1 <= room < known:
            return
        self._before, self._fallback, self.most = share, self.most, room
        self._count_anew(now)

    def _agreed(self) -> int | None:
        """Return how many were at work when others were turned away, if that is a number."""
        room = list(self._room)[-self._needed :]
        middle = median_low(room)
        apart = max(1.0, ALIKE * middle)
        alike = sum(abs(each - middle) <= apart for each in room)
        return middle if alike >= ALIKE_SHARE * len(room) else None

    def _tried(self, now: float, before: float) -> str | None:
        """Judge the number that is on trial as soon as enough has come back."""
        most = self.most or 1
        wanted = max(TRIED, most, TRIED_REFUSALS / before)
        expected = before * wanted
        if self._away > min(BETTER * expected, expected - SPREADS * (expected * (1 - before)) ** 0.5):
            self.most, self._needed = self._fallback, min(2 * self._needed, NEEDED_MOST)
            kept = False
        elif self._away + self._passed >= wanted:
            kept = True
        else:
            return None
        self._before = None
        self._count_anew(now)
        if not kept or self._told:
            return None
        self._told = True
        return (
            f"the server has room for about {most:,} requests at once; others got an error, or no answer in time: so"
            f" many are sent at a time from now on; [limits] concurrency = {most:,} says so from the start (or, where"
            " it is a rate that a proxy limits with 503s, [limits] requests_per_minute)"
        )

    def _grow(self, sent: Sent, now: float, proved: int, *, passed: bool) -> None:
        """Judge whether there is room for more by now: by those that had more than the old number beside them."""
        if sent.in_flight <= proved:
            self._passed, self._away = self._passed - passed, self._away - (not passed)
            return
        most = self.most or proved
        if self._away >= max(2.0, self._passed):
            self.most, self._patience = proved, min(2 * self._patience, PATIENCE_MOST)
        elif self._passed + self._away < max(PROOFS * (most - proved), PROOFS_LEAST):
            return
        else:
            self._patience = max(self._patience / 2, PATIENCE_LEAST)
            if most >= self._slots:
                self.most, self._needed = None, min(2 * self._needed, NEEDED_MOST)  # the guess may have been wrong
        self._grown_from = None
        self._count_anew(now)

    def _count_anew(self, now: float) -> None:
        self._passed = self._away = 0.0
        self._turned_away.clear()
        self._room.clear()
        self._late.clear()
        self._since, self._first = now, None

    def _share(self) -> float:
        """Of what went out, and not of what has come back: answers take longer than to be turned away."""
        if self._first is None:
            return 0.0
        sent = max(self._newest - self._first + 1, 1)
        share = min(self._away / sent, SHARE_MOST)
        if sent > REMEMBERED:
            self._first += sent // 2
            self._away /= 2
        return share


def _share_with(share: float, one_more: bool) -> float:
    share += FULL_SMOOTHED * (one_more - share)
    return share if share >= FULL_SMOOTHED**2 else 0.0


def _smoothed(average: float, new: float) -> float:
    return new if average == 0 else average + SMOOTHED * (new - average)
