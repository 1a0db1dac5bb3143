"""How large the requests are, as bars for a terminal."""

import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, pairwise

from pipeline.cli._show import plural

_MOST_RANGES = 10
_SPREAD = 50
"""Where the largest size is more than so many times the smallest, edges are spaced by their ratio."""
_GAP = "  "
_FULL, _EIGHTHS = "█", " ▏▎▍▌▋▊▉"


def histogram(sizes: Mapping[int, int], width: int, *, encoding: str | None = None) -> list[str]:
    """Return a line for each range of input tokens: the range, how many requests lie in it, a bar.

    `sizes` says how many requests have how many input tokens; `encoding` is that of the screen (default: of standard
    output). Edges are round, ranges at most ten, and no line is longer than `width`. One size makes one line.
    """
    blocks = _can_show(_FULL + _EIGHTHS, encoding or sys.stdout.encoding or "ascii")
    if len(sizes) > 1:
        lines = _lines(*_counted(sizes), width, blocks=blocks)
    else:
        lines = [f"{plural(size, 'input token')}: {plural(requests, 'request')}" for size, requests in sizes.items()]
    return [line if len(line) <= width else line[: width - 1] + ("…" if blocks else "~") for line in lines]


def _can_show(characters: str, encoding: str) -> bool:
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _counted(sizes: Mapping[int, int]) -> tuple[list[str], list[int]]:
    """Return the names of the ranges, and how many requests lie in each."""
    edges = _edges(min(sizes), max(sizes))
    counts = [0] * (len(edges) - 1)
    for size, requests in sizes.items():
        counts[bisect_right(edges, size) - 1] += requests
    names = [f"{first:,}" if end - first == 1 else f"{first:,}-{end - 1:,}" for first, end in pairwise(edges)]
    return names, counts


def _edges(low: int, high: int) -> list[int]:
    """Return where each range begins, and where the last one ends."""
    if high <= _SPREAD * max(low, 1):
        step = next(step for step in _numbers((1, 2, 5), 10) if high // step - low // step < _MOST_RANGES)
        return [number * step for number in range(low // step, high // step + 2)]
    scales = chain([((1, 2, 5), 10)], (((1,), 10**power) for power in count(1)))
    return next(edges for edges in (_around(low, high, *scale) for scale in scales) if len(edges) <= _MOST_RANGES + 1)


def _numbers(steps: Sequence[int], base: int) -> Iterator[int]:
    """Yield round numbers: 1, 2, 5, 10, 20, 50, ..."""
    return (step * base**power for power in count() for step in steps)


def _around(low: int, high: int, steps: Sequence[int], base: int) -> list[int]:
    """Return the round numbers from the last one that isn't above `low` to the first one above `high`."""
    numbers = [0]
    for number in _numbers(steps, base):
        numbers.append(number)
        if number > high:
            break
    return numbers[bisect_right(numbers, low) - 1 :]


def _lines(names: Sequence[str], counts: Sequence[int], width: int, *, blocks: bool) -> list[str]:
    texts = [f"{requests:,}" for requests in counts]
    name_width, text_width = max(map(len, names)), max(map(len, texts))
    room, most = max(0, width - name_width - text_width - 2 * len(_GAP)), max(counts)
    bars = [_bar(requests, most, room, blocks=blocks) for requests in counts]
    return [
        f"{name:>{name_width}}{_GAP}{text:>{text_width}}{_GAP}{bar}".rstrip()
        for name, text, bar in zip(names, texts, bars, strict=True)
    ]


def _bar(requests: int, most: int, room: int, *, blocks: bool) -> str:
    """Draw a bar; where there is anything to show, the smallest one that can be seen."""
    parts = len(_EIGHTHS) if blocks else 1
    length = max(round(requests * room * parts / most), min(requests, room, 1))
    whole, part = divmod(length, parts)
    return (_FULL if blocks else "#") * whole + (_EIGHTHS[part] if blocks else "")
