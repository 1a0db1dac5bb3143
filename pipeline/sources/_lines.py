r"""Lines of a text file, whatever it is compressed with. Only `\n` ends a line; a BOM at the file's start is skipped.

Plain files are read here and not with Polars' `scan_lines`: at a byte that is not UTF-8, polars 2.1 drops the
block around it, hands out the lines behind it under shifted numbers, and raises only tens of thousands of lines later.
"""

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import polars as pl

from pipeline.errors import InputError
from pipeline.sources._formats import CHUNK_ROWS
from pipeline.sources._frames import FAILURES, frames, reason

_BLOCK_BYTES = 1 << 20
"""Read at once. Reading gives up the interpreter's lock for a moment too short for anybody else to take it, but the
others begin to wait anew: what is read in many small blocks keeps an event loop waiting."""
_PART_BYTES = 1 << 16
"""Taken apart at once: so little that rows are planned while they are in the processor's own cache. With 1 MiB reading
and planning take a third more of its time."""
_BOM = b"\xef\xbb\xbf"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPED, _SKIPPED_FIRST = b"\x2a\x4d\x18", 0x50
"""A frame of zstd's that is to be skipped begins so, with a byte of 0x50 to 0x5f before it: pzstd's files do."""
_REPLACEMENT = "\ufffd"


def read_lines(file: Path, *, filtered: bool = False) -> Iterator[tuple[list[bytes] | list[str], float | None]]:
    """Yield all lines, blank ones too, without their ends, at most CHUNK_ROWS at a time. Raises InputError.

    With them comes the share of the file that has been read, from 0 to 1: known where it isn't compressed.

    Compression is known by the file's first bytes. A line of a compressed file comes as text; one whose bytes are
    not UTF-8 comes as bytes that are not either. Lines that are `filtered` come in larger lists: Polars takes its time
    for each.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            start = stream.read(len(_ZSTD))
            if start[1:] == _SKIPPED and start[0] & 0xF0 == _SKIPPED_FIRST:
                raise InputError(
                    f"{file} begins with a frame that is to be skipped, as pzstd writes it, and can't be read so;"
                    f" `zstd -dc {file.name} | zstd -o OTHER{file.suffix}` writes it anew"
                )
            if not start.startswith((_GZIP, _ZSTD)):
                stream.seek(0)
                yield from _plain(stream, _BLOCK_BYTES if filtered else _PART_BYTES)
                return
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error
    try:
        for texts in _decompressed(file):
            yield texts, None
    except FAILURES as error:
        raise InputError(f"{file} can't be read to its end: {reason(error)}. Is the file complete?") from error


def _plain(stream: FileIO, part_bytes: int) -> Iterator[tuple[list[bytes], float]]:
    size = os.fstat(stream.fileno()).st_size
    pending: list[bytes] = []  # a line longer than a part is joined once, at its end
    at = 0
    while block := stream.read(_BLOCK_BYTES):
        for start in range(0, len(block), part_bytes):
            part = block[start : start + part_bytes]
            head, newline, tail = (part if at else part.removeprefix(_BOM)).rpartition(b"\n")
            at += len(part)
            if newline:
                for lines in _in_chunks(b"".join([*pending, head]).split(b"\n")):
                    yield lines, min(1.0, at / size)
                pending = []
            pending.append(tail)
    if last := b"".join(pending):
        yield [last], 1.0


def _in_chunks(lines: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(lines), CHUNK_ROWS):
        yield lines[start : start + CHUNK_ROWS]


def _decompressed(file: Path) -> Iterator[list[bytes] | list[str]]:
    """Let Polars decompress, and read lines as a CSV of one column without quotes.

    That is the only reader in it that goes on behind a byte that is not UTF-8. It puts U+FFFD there, so a line with
    that character calls for a look at the whole file.
    """
    scan = pl.scan_csv(
        file,
        has_header=False,
        schema={"line": pl.String},
        separator="\n",
        quote_char=None,
        empty_string_is_null=False,
        encoding="utf8-lossy",
        raise_if_empty=False,
        glob=False,
    )
    utf8: bool | None = None
    for frame in frames(scan):
        column = frame.get_column("line")
        lines = column.to_list()
        if utf8 is not True and column.str.contains(_REPLACEMENT, literal=True).any():
            utf8 = _is_utf8(file) if utf8 is None else utf8
            if not utf8:
                yield [_spoiled(line) for line in lines]
                continue
        yield lines


def _spoiled(line: str) -> bytes:
    # Which of the file's U+FFFD are its own can't be told any more: all count as bytes that are not UTF-8.
    return line.encode().replace(_REPLACEMENT.encode(), b"\xff")


def _is_utf8(file: Path) -> bool:
    scan = pl.scan_lines(file, name="line", glob=False).select(pl.col("line").str.len_bytes().sum())
    try:
        scan.collect(engine="streaming")
    except pl.exceptions.ComputeError:
        return False
    return True
