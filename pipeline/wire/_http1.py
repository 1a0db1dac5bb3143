"""One HTTP/1.1 answer out of the bytes of a connection. Pure: no I/O, no clock.

Strict where an answer could be taken for another's (lengths, what follows the end), lenient where a paid answer would
be lost over nothing (odd header lines, bytes that are no text).
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from pipeline.errors import WireError
from pipeline.wire import too_large
from pipeline.wire._body import Body

LONGEST_HEAD = 64 * 1024
"""Bytes of a status line and headers, or of a chunk's size and trailers, that are looked at."""
_MOST_TIMES = 8
"""How many times the allowed body may come over the line with all that is around it: a chunk of one byte takes six."""
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r?")
_LONGEST_LENGTH = 18
_OFTEN_SEEN, _MOST_KNOWN = 200, 1000
"""Characters of a header line that is kept, and how many are."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?")
_PLAIN_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_WITHOUT_BODY = (204, 304)
_SWITCHING = 101


@lru_cache(maxsize=64)
def _status(line: str) -> tuple[int, bool]:
    """Return the status, and whether the server is of HTTP/1.0; 0 if this is no status line."""
    match = _STATUS_LINE.fullmatch(line)
    return (0, False) if match is None else (int(match[2]), match[1] == "0")


_known_headers: dict[str, tuple[str, str]] = {}
"""Header lines of late, taken apart: a server's answers have most of theirs in common."""


def _header(line: str) -> tuple[str, str] | None:
    """Return a header's name, in lower case, and its value; None if the line is none."""
    name, colon, value = line.partition(":")
    if not colon:
        return None
    header = name.strip().lower(), value.strip()
    if len(line) <= _OFTEN_SEEN:
        if len(_known_headers) >= _MOST_KNOWN:  # of lines that never come again, such as an answer's id
            _known_headers.clear()
        _known_headers[line] = header
    return header


class Answer:
    """What has arrived of one answer. Feed it until it is `whole`; tell it when the connection ended."""

    __slots__ = (
        "_body", "_chunked", "_head_read", "_left", "_limit", "_pending", "_received", "_state", "_trailing",
        "content", "headers", "reusable", "status", "target", "whole",
    )  # fmt: skip

    def __init__(self, target: str, limit: int) -> None:
        self.target, self._limit = target, limit
        self._pending = b""
        self._head_read = self._chunked = False
        self._left: int | None = None
        """Bytes of the body, or of its current chunk, that are still to come; None: until the connection ends."""
        self._state = "size"
        """Of a chunked body: size | data | end | trailers."""
        self._body: Body | None = None
        self._trailing = self._received = 0
        self.whole = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.content = b""
        self.reusable = False
        """Another request may follow on the connection."""

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises WireError (the exchange is lost, and perhaps billed)."""
        if self._pending:
            self._received -= len(self._pending)
            data, self._pending = self._pending + data, b""
        at = 0
        while at < len(data) and not self.whole:
            if not self._head_read:
                at = self._head(data, at)
            elif self._chunked:
                at = self._chunk(data, at)
            else:
                at = self._plain(data, at)
        if not self.whole:
            self._received += len(data)
            if self._received > _MOST_TIMES * self._limit + LONGEST_HEAD:
                raise too_large(self.target, self._limit)
        elif at < len(data):  # more than an answer: nobody asked for it
            self.reusable = False

    def ended(self) -> None:
        """Hear that the other side sends no more, before the answer is `whole`. Raises WireError if more was due."""
        if not self._head_read or self._chunked or self._left is not None:
            raise self.broken("the connection was closed before the whole answer was there")
        self._finish()

    @property
    def begun(self) -> bool:
        """Tell whether something of it has arrived."""
        return self._head_read or bool(self._pending)

    def _head(self, data: bytes, at: int) -> int:
        """Read status line and headers; returns where to read on."""
        end, gap = data.find(b"\r\n\r\n", at), 4
        bare = data.find(b"\n\n", at, len(data) if end < 0 else end)
        if bare >= 0:
            end, gap = bare, 2
        if end < 0 or end - at > LONGEST_HEAD:
            if len(data) - at > LONGEST_HEAD:
                raise self.broken("the answer's headers have no end")
            if not b"HTTP/1.".startswith(data[at : at + 7]):
                raise self.broken("what came back is not HTTP")
            self._pending = data[at:]
            return len(data)
        first, *lines = data[at:end].decode("latin-1").split("\n")
        status, old = _status(first)
        if status == 0:
            raise self.broken("what came back is not HTTP")
        if status < 200 and status != _SWITCHING:  # noqa: PLR2004 -- "continue", "early hints": the answer follows
            return end + gap
        self._begin(status, lines, old=old)
        return end + gap

    def _begin(self, status: int, lines: list[str], *, old: bool) -> None:
        headers: dict[str, str] = {}
        lengths = []
        for line in lines:
            header = _known_headers.get(line) or _header(line)
            if header is not None:
                name, value = header
                headers.setdefault(name, value)
                if name == "content-length":
                    lengths.append(value)
        self.status, self.headers, self._head_read = status, headers, True
        connection = headers.get("connection", "").lower()
        self.reusable = status != _SWITCHING and ("keep-alive" in connection if old else "close" not in connection)
        if "content-encoding" in headers:
            self._body = Body(headers["content-encoding"], self.target, self._limit)
        if status in _WITHOUT_BODY:
            self._finish()
        elif "transfer-encoding" in headers:
            self._chunked = headers["transfer-encoding"].lower() == "chunked"
            if not self._chunked:
                raise self.broken("the answer is transferred in a way that is not known")
            self.reusable = self.reusable and not lengths
        elif lengths:
            self._left = self._length(lengths)
            if self._left == 0:
                self._finish()
        else:
            self.reusable = False

    def _length(self, lengths: list[str]) -> int:
        length = lengths[0]
        if len(lengths) > 1 or "," in length:
            (length, *others) = {part.strip() for value in lengths for part in value.split(",")}
            length = "" if others else length
        if not (length.isascii() and length.isdigit() and len(length) <= _LONGEST_LENGTH):
            raise self.broken("the answer's length is not a number")
        if int(length) > self._limit:
            raise too_large(self.target, self._limit)
        return int(length)

    def _plain(self, data: bytes, at: int) -> int:
        if self._left is None:
            self._add(data[at:])
            return len(data)
        if self._body is None and self._left == len(data) - at:  # as most answers come: whole, and not packed
            self.content, self.whole = data[at:], True
            return len(data)
        return self._counted(data, at, self._left)

    def _counted(self, data: bytes, at: int, left: int) -> int:
        """Take so many bytes, or what there is of them."""
        piece = data[at : at + left]
        self._add(piece)
        self._left = left - len(piece)
        if self._left == 0 and not self._chunked:
            self._finish()
        return at + len(piece)

    def _chunk(self, data: bytes, at: int) -> int:
        if self._state == "data":
            at = self._counted(data, at, self._left or 0)
            self._state = "data" if self._left else "end"
            return at
        if self._state == "size":
            begun, at = at, self._whole_chunks(data, at)
            if at > begun:
                return at
        end = data.find(b"\n", at, at + LONGEST_HEAD)
        if end < 0:
            if len(data) - at >= LONGEST_HEAD:
                raise self.broken("a chunk of the answer has no size")
            self._pending = data[at:]
            return len(data)
        self._chunk_line(data[at:end].rstrip(b"\r"))
        return end + 1

    def _whole_chunks(self, data: bytes, at: int) -> int:
        """Take the chunks that are there to their last byte: where each is a word, there are very many."""
        pieces = []
        size = _PLAIN_CHUNK_SIZE.match(data, at)
        while size is not None:
            start = size.end()
            end = start + int(size[1], 16)
            if end == start or data[end : end + 2] != b"\r\n":
                break  # the last one, or what has to be looked at more closely
            pieces.append(data[start:end])
            at = end + 2
            size = _PLAIN_CHUNK_SIZE.match(data, at)
        if pieces:
            self._add(b"".join(pieces))
        return at

    def _chunk_line(self, line: bytes) -> None:
        if self._state == "trailers":
            self._trailing += len(line)
            if self._trailing > LONGEST_HEAD:
                raise self.broken("what follows the answer has no end")
            if not line:
                self._finish()
            return
        if self._state == "end":
            if line:
                raise self.broken("a chunk of the answer is longer than it said")
            self._state = "size"
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise self.broken("a chunk of the answer has no size")
        self._left = int(size[1], 16)
        self._state = "data" if self._left else "trailers"

    def _add(self, data: bytes) -> None:
        if self._body is None:
            self._body = Body("", self.target, self._limit)
        self._body.add(data)

    def _finish(self) -> None:
        if self._body is not None:
            self.content = self._body.whole()
        self.whole = True

    def broken(self, what: str) -> WireError:
        """Say that the exchange is lost; the answer was perhaps billed."""
        return WireError("broken", f"the exchange with {self.target} broke off: {what}", maybe_sent=True)
