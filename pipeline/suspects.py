"""Which 429s are a limit for everybody, and which are one row's own: a row that never passes must not hold the others.

A row is suspected when others pass again and again between its refusals, more often than chance explains. It is given
up when that also holds against rows of its own size or larger (a large row is refused by an honest limit more often
than small ones are), or when it is refused even with the server to itself. Pure: no clock.
"""

from dataclasses import dataclass
from typing import NamedTuple

APART_REFUSALS = 3
"""From so many refusals on, others passing in between, a row waits for itself."""
PASSED_PER_TRY, MOST_TRIES = 20.0, 20.0
"""Such a row is tried once for so many others that pass: few calls are wasted. So many tries may be saved up."""
SUSPECT_CHANCE = 0.02
"""So unlikely must refusals be by chance for a row to be suspected; that costs an honest row seconds."""
GIVE_UP_CHANCE = 1e-9
"""And so unlikely to give it up: the rows of a lifetime."""
GIVE_UP_REFUSALS, GIVE_UP_SECONDS = 6, 300.0
"""At least so many, over so long: a server whose one part is overloaded recovers."""
QUIET_SECONDS = 60.0
"""After so long without an answer to anybody a limit per minute has room for the largest request that it allows."""
ALONE_REFUSALS, ALONE_SECONDS = 10, 600.0
"""So often and so long is a suspect refused that has the server to itself before it is given up."""
HOPELESS_SECONDS = 7200.0
"""So long are the last rows refused that nothing is held against before the run pauses."""
SIZE_BITS = 4
"""Sizes are told apart by so many leading bits: about 9 % on average."""


class Standing(NamedTuple):
    """What a 429 says about its row."""

    refusals: int = 0
    """Times that it was refused."""
    seconds: float = 0.0
    """Since it was first refused."""
    apart: bool = False
    """Others passed meanwhile: this 429 says nothing about them, and only this row waits."""
    suspect: bool = False
    """It is probably the row's own."""
    by_chance: bool = False
    """So are those of others, now and then: it alone waits, and is held against nobody."""
    steps_back: bool = False
    """Another one goes first when the door opens: whether that one passes tells whose fault it is."""
    given_up: str | None = None
    """Why no more tries are worth it; None is: they are."""
    hopeless: str | None = None
    """Why the run should pause: nothing else is left, and nobody can tell whose fault it is."""


HONEST = Standing()


@dataclass(slots=True)
class _Size:
    """What happened to requests of about one size while somebody was doubted."""

    passed: int = 0
    refused: int = 0
    last_passed: int = 0
    """The number of the request that passed, of those the one that went out last."""


class _Seen(NamedTuple):
    """Requests of some sizes up to now."""

    passed: int
    refused: int
    last_passed: int


@dataclass(slots=True)
class _Doubt:
    """A row that was refused and has not passed since."""

    first_at: float
    everybody: _Seen
    peers: _Seen
    """The same when it was first refused."""
    tokens: int
    number: int = 0
    """Its last request's."""
    refusals: int = 0
    held: int = 0
    """Refusals since whose predecessor somebody else passed."""
    compared: int = 0
    """Of these, the ones where somebody of its size or larger passed."""
    alone: int = 0
    alone_since: float = 0.0
    suspect: bool = False


class Suspects:
    """Hears every 429 and, as long as a row is doubted, every answer."""

    def __init__(self) -> None:
        self._rows: dict[str, _Doubt] = {}
        self._sizes: dict[int, _Size] = {}
        self._last_passed_at = float("-inf")
        self._given_up_from: int | None = None
        """The tokens of the smallest row that was given up."""
        self._tries = MOST_TRIES / 2
        self.count = 0
        """Rows that are suspected now."""

    @property
    def doubted(self) -> bool:
        """Whether any row is: as long as none is, `passed` need not be called."""
        return bool(self._rows)

    @property
    def may_try(self) -> bool:
        """Whether enough others passed for a row to be tried that waits for itself."""
        return self._tries >= 1

    def tried(self) -> None:
        """Take in that such a row goes out."""
        self._tries = max(self._tries - 1, 0.0)

    def passed(self, key: str, now: float, number: int, tokens: int) -> None:
        """Take in that the server answered a request."""
        size = self._sizes.setdefault(_size_of(tokens), _Size())
        size.passed += 1
        size.last_passed = max(size.last_passed, number)
        self._last_passed_at = now
        self._tries = min(self._tries + 1 / PASSED_PER_TRY, MOST_TRIES)
        self.forget(key)

    def refused(self, key: str, now: float, sent_at: float, number: int, tokens: int, *, last: bool) -> Standing:
        """Take in a 429. `last`: nothing else is left to send but rows that are refused."""
        own = _size_of(tokens)
        everybody, peers = self._seen(0), self._seen(own)
        doubt = self._rows.setdefault(key, _Doubt(now, everybody, peers, tokens))
        held = everybody.last_passed > doubt.number > 0
        if doubt.refusals:
            doubt.held += held
            doubt.compared += peers.last_passed > doubt.number
        self._note_alone(doubt, now, sent_at, last=last)
        everybody_chance = _chance(doubt.everybody, everybody, doubt.refusals) ** doubt.held
        peers_chance = _chance(doubt.peers, peers, doubt.refusals) ** doubt.compared
        doubt.number, doubt.refusals = number, doubt.refusals + 1
        self._sizes.setdefault(own, _Size()).refused += 1
        if not doubt.suspect and everybody_chance <= SUSPECT_CHANCE:
            doubt.suspect = True
            self.count += 1
        apart = doubt.suspect or (held and doubt.refusals >= APART_REFUSALS and not last)
        standing = self._standing(doubt, now, everybody.passed - doubt.everybody.passed, peers_chance)
        if standing.given_up is not None:
            self._given_up_from = min(tokens, self._given_up_from or tokens)
        return standing._replace(apart=apart)

    def like(self, tokens: int) -> bool:
        """Tell whether a row of this size or a smaller one is suspected or was given up."""
        if self._given_up_from is not None and tokens >= self._given_up_from:
            return True
        return self.count > 0 and any(doubt.suspect and tokens >= doubt.tokens for doubt in self._rows.values())

    def forget(self, key: str) -> None:
        """Doubt a row no longer: it passed, or it has ended."""
        doubt = self._rows.pop(key, None)
        if doubt is None:
            return
        self.count -= doubt.suspect
        if not self._rows:
            self._sizes.clear()

    def _note_alone(self, doubt: _Doubt, now: float, sent_at: float, *, last: bool) -> None:
        if not last or sent_at - max(self._last_passed_at, doubt.first_at) < QUIET_SECONDS:
            doubt.alone = 0
            return
        if not doubt.alone:
            doubt.alone_since = now
        doubt.alone += 1

    def _standing(self, doubt: _Doubt, now: float, passed: int, peers_chance: float) -> Standing:
        standing = Standing(doubt.refusals, now - doubt.first_at, suspect=doubt.suspect)
        minutes = standing.seconds / 60
        often = f"a rate limit refused it {doubt.refusals} times in {minutes:.0f} minutes"
        alone = now - doubt.alone_since if doubt.alone >= ALONE_REFUSALS else 0.0
        compared = doubt.compared >= GIVE_UP_REFUSALS and standing.seconds >= GIVE_UP_SECONDS
        if doubt.suspect and compared and peers_chance <= GIVE_UP_CHANCE:
            return standing._replace(given_up=f"{often}, while {passed:,} others passed")
        if doubt.suspect and alone >= ALONE_SECONDS:
            return standing._replace(given_up=f"{often}, at last with nothing else on its way")
        if alone >= HOPELESS_SECONDS and not doubt.suspect:
            return standing._replace(
                hopeless=f"everything else is done, and for {minutes / 60:.1f} hours a rate limit has refused the rows"
                " that are left, which stay pending: they may need more than a quota allows, or the server refuses"
                " everybody"
            )
        return standing

    def _seen(self, least: int) -> _Seen:
        sizes = [size for each, size in self._sizes.items() if each >= least]
        return _Seen(
            sum(size.passed for size in sizes),
            sum(size.refused for size in sizes),
            max((size.last_passed for size in sizes), default=0),
        )


def _chance(before: _Seen, now: _Seen, own: int) -> float:
    """How probable a refusal is, going by what happened to others since; cautious where that is little."""
    passed, refused = now.passed - before.passed, now.refused - before.refused - own
    return (refused + 1) / (refused + passed + 2)


def _size_of(tokens: int) -> int:
    """Order sizes coarsely: by how many bits a number has, then by the first of them."""
    shift = max(tokens.bit_length() - SIZE_BITS, 0)
    return (shift << SIZE_BITS) + (tokens >> shift)
