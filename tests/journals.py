"""Journals, read whole."""

from collections.abc import Iterator
from pathlib import Path

from pipeline import journal
from pipeline.journal import Line


def read_all(path: Path, *, dead: bool) -> Iterator[Line]:
    """Every whole line of a journal, in order, in bounded memory."""
    offset = 0
    while (piece := journal.read(path, offset, dead=dead)).end > offset:
        yield from piece.lines
        offset = piece.end
