"""Counting in rounds: the reading thread renders and hashes some rows, then one or a few threads count them.

tiktoken and toktok count without the interpreter's lock, so threads are enough. Reading and counting take turns: beside
a busy reader a counting thread gets the lock back only every 5 ms, and the same texts cost up to twice the processor
time for no gain (measured). A round is bounded in rows and in characters; counts that an earlier command kept
(`pipeline/counts.py`) are not made again, and everything comes back in order.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from pipeline.counts import CountKeeper, KeptCounts, header_of
from pipeline.notices import Notify
from pipeline.planning import Meter
from pipeline.records import Request, TokenCount

MOST_THREADS = 4
ROUND_STEPS = 8
"""Steps counted together. The first rounds are smaller, so that a run has something to send soon."""
PIECE_CHARACTERS = 2**20
"""About how much text a thread counts in one go: a fraction of a second, so that Ctrl-C is heard soon."""
LONG_CHARACTERS = 4 * PIECE_CHARACTERS
"""From so much text in a round on (2 KB a row) one thread counts more slowly than a run's loop may send."""
MOST_CHARACTERS = 16 * PIECE_CHARACTERS
"""About how much text a round has at most, whatever the number of its steps."""
T = TypeVar("T")


class ToCount(NamedTuple, Generic[T]):
    """One step of a scan: a few hundred rows."""

    carried: T
    """Whatever belongs to the step; it comes back with the counts."""
    requests: list[Request]
    passed: list[str]
    """Keys of requests that need no count now; what is kept of them is kept on."""


class Counted(NamedTuple, Generic[T]):
    """The same step, counted."""

    carried: T
    requests: Sequence[Request]
    counts: Sequence[TokenCount]


class _Started(NamedTuple, Generic[T]):
    step: ToCount[T]
    kept: dict[str, TokenCount]
    """Counts of the step's keys that an earlier command has kept."""
    pieces: list[list[Request]]
    """The other requests, cut for the threads."""
    characters: int


class _Kept:
    """The counts of earlier commands, and those that this scan keeps for later ones."""

    def __init__(self, path: Path | None, meter: Meter, *, writes: bool) -> None:
        header = b"" if path is None else header_of(meter.identity)
        self._known = None if path is None else KeptCounts(path, header)
        self._keeper = CountKeeper(path, header) if path is not None and writes else None

    def find(self, step: ToCount[T]) -> dict[str, TokenCount]:
        if self._known is None or self._known.ended:
            return {}
        find = self._known.find
        keys = (*step.passed, *[request.key for request in step.requests])
        return {key: count for key in keys if (count := find(key)) is not None}

    def keep(self, counts: Iterable[tuple[str, TokenCount]]) -> None:
        if self._keeper is not None:
            for key, count in counts:
                self._keeper.add(key, count)

    def finish(self, *, whole: bool) -> None:
        if self._keeper is not None:
            self._keeper.finish(whole=whole)

    def close(self) -> None:
        if self._known is not None:
            self._known.close()
        if self._keeper is not None:
            self._keeper.drop()


@dataclass(slots=True)
class Counting:
    """Counts the requests of one scan. Use a fresh one for each scan."""

    meter: Meter
    path: Path | None = None
    """The file of kept counts; None: there is none."""
    writes: bool = False
    """Whether this scan writes that file anew, if it made any counts."""
    sparing: bool = False
    """Whether short texts are counted on the calling thread alone: for a run, whose loop wants the processors, too."""
    notify: Notify | None = None
    """Hears, once, when the fast tokenizer is installed and can't be used."""
    made: int = 0
    """Counts made so far; all others were kept."""
    _told: bool = field(default=False, init=False)

    def counted(self, steps: Iterable[ToCount[T]], *, whole: Callable[[], bool] = lambda: True) -> Iterator[Counted[T]]:
        """Yield every step with the counts of its requests, in order.

        An error of the scan is raised when its turn has come, behind all steps before it; one of a count at once. When
        the steps have ended, `whole` tells whether they were the plan to its end.
        """
        pool = ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="promptmill-counting")
        try:
            with closing(_Kept(self.path, self.meter, writes=self.writes)) as kept:
                for started in _rounds(_start(step, kept) for step in steps):
                    yield from self._count(started, kept, pool)
                if self.made:
                    kept.finish(whole=whole())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _count(self, started: list[_Started[T]], kept: _Kept, pool: ThreadPoolExecutor) -> Iterator[Counted[T]]:
        alone = threads() == 1 or (self.sparing and sum(each.characters for each in started) < LONG_CHARACTERS)
        pieces = [piece for each in started for piece in each.pieces]
        texts = iter([self.meter.count_all(piece) for piece in pieces] if alone else self._together(pieces, pool))
        self._tell()
        for step, found, mine, _ in started:
            made = [count for _ in mine for count in next(texts)]
            self.made += len(made)
            new = iter(made)
            counts = [found.get(request.key) or next(new) for request in step.requests] if found else made
            kept.keep((key, found[key]) for key in step.passed if key in found)
            kept.keep(zip((request.key for request in step.requests), counts, strict=True))
            yield Counted(step.carried, step.requests, counts)

    def _together(self, pieces: list[list[Request]], pool: ThreadPoolExecutor) -> list[list[TokenCount]]:
        """Count pieces on all threads, the calling one included: tiktoken is a seventh faster on its first thread."""
        try:
            work = [pool.submit(self.meter.count_all, piece) for piece in pieces]
        except RuntimeError:  # the main thread has ended, and so have all pools: a run in another thread goes on
            return [self.meter.count_all(piece) for piece in pieces]
        own: dict[int, list[TokenCount]] = {}
        for number in reversed(range(len(pieces))):  # the others begin at the front
            if work[number].cancel():
                own[number] = self.meter.count_all(pieces[number])
        return [own[number] if number in own else future.result() for number, future in enumerate(work)]

    def _tell(self) -> None:
        problem = self.meter.counter.problem
        if problem is not None and self.notify is not None and not self._told:
            self._told = True
            self.notify(problem)


def threads() -> int:
    """Return how many threads count, the calling one included: one per processor we may use, a few at most."""
    return min(MOST_THREADS, _processors())


def _processors() -> int:
    # A pinned process has fewer than the machine; only Linux can be asked.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _start(step: ToCount[T], kept: _Kept) -> _Started[T]:
    found = kept.find(step)
    wanted = [request for request in step.requests if request.key not in found] if found else step.requests
    pieces = list(_pieces(wanted))
    return _Started(step, found, [piece for piece, _ in pieces], sum(characters for _, characters in pieces))


def _rounds(steps: Iterator[_Started[T]]) -> Iterator[list[_Started[T]]]:
    """Gather steps into rounds of 1, 2, 4, 8, 8, ... steps, less where they are large."""
    size, failed = 1, None
    while failed is None:
        gathered: list[_Started[T]] = []
        try:
            for step in steps:
                gathered.append(step)
                if len(gathered) == size or sum(each.characters for each in gathered) > MOST_CHARACTERS:
                    break
            else:
                size = 0
        except Exception as error:  # noqa: BLE001 -- raised below, behind the steps before it
            failed = error
        if gathered:
            yield gathered
        if not size:
            return
        size = min(2 * size, ROUND_STEPS)
    raise failed


def _pieces(requests: Sequence[Request]) -> Iterator[tuple[list[Request], int]]:
    """Cut requests into pieces of about the same text, each with the number of its characters."""
    piece: list[Request] = []
    characters = 0
    for request in requests:
        piece.append(request)
        characters += _characters(request)
        if characters > PIECE_CHARACTERS:
            yield piece, characters
            piece, characters = [], 0
    if piece:
        yield piece, characters


def _characters(request: Request) -> int:
    characters = 0
    for message in request.messages:
        content = message.get("content")
        characters += len(content if isinstance(content, str) else str(content))
    return characters
