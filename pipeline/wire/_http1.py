"""One HTTP/1.1 answer out of the bytes of a connection. Pure: no I/O, no clock.

Strict where an answer could be taken for another's (lengths, what follows the end), lenient where a paid answer would
be lost over nothing (odd header lines, bytes that are no text).
"""

import re
from collections.abc import Mapping

from pipeline.errors import WireError
from pipeline.wire import first_of_each, too_large
from pipeline.wire._body import Body

LONGEST_HEAD = 64 * 1024
"""Bytes of a status line and headers, or of a chunk's size and trailers, that are looked at."""
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?")
_WITHOUT_BODY = (204, 304)
_SWITCHING = 101


class Answer:
    """What has arrived of one answer. Feed it until it is `whole`; tell it when the connection ended."""

    __slots__ = (
        "_body", "_chunked", "_head_read", "_left", "_limit", "_pending", "_state", "_target", "_trailing", "content",
        "headers", "reusable", "status", "whole",
    )  # fmt: skip

    def __init__(self, target: str, limit: int) -> None:
        self._target, self._limit = target, limit
        self._pending = b""
        self._head_read = self._chunked = False
        self._left: int | None = None
        """Bytes of the body, or of its current chunk, that are still to come; None: until the connection ends."""
        self._state = "size"
        """Of a chunked body: size | data | end | trailers."""
        self._body: Body | None = None
        self._trailing = 0
        self.whole = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.content = b""
        self.reusable = False
        """Another request may follow on the connection."""

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises WireError (the exchange is lost, and perhaps billed)."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        at = 0
        while at < len(data) and not self.whole:
            if not self._head_read:
                at = self._head(data, at)
            elif self._chunked:
                at = self._chunk(data, at)
            else:
                at = self._plain(data, at)
        if at < len(data):  # more than an answer: nobody asked for it
            self.reusable = False

    def ended(self) -> None:
        """Hear that the other side sends no more. Raises WireError if the answer is not whole."""
        if self.whole:
            return
        if self._body is None or self._chunked or self._left is not None:
            raise self.broken("the connection was closed before the whole answer was there")
        self._finish()

    # -- inside -------------------------------------------------------------------------------------

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
        lines = data[at:end].split(b"\n")
        status_line = _STATUS_LINE.fullmatch(lines[0].rstrip(b"\r"))
        if status_line is None:
            raise self.broken("what came back is not HTTP")
        status = int(status_line[2])
        if status < 200 and status != _SWITCHING:  # noqa: PLR2004 -- "continue", "early hints": the answer follows
            return end + gap
        self._begin(status, lines[1:], old=status_line[1] == b"0")
        return end + gap

    def _begin(self, status: int, lines: list[bytes], *, old: bool) -> None:
        pairs = [
            (name, value.strip())
            for name, colon, value in (line.decode("latin-1").partition(":") for line in lines)
            if colon
        ]
        self.status, self.headers, self._head_read = status, first_of_each(pairs), True
        headers = self.headers
        connection = headers.get("connection", "").lower()
        self.reusable = status != _SWITCHING and ("keep-alive" in connection if old else "close" not in connection)
        self._body = Body(headers.get("content-encoding", ""), self._target, self._limit)
        if status in _WITHOUT_BODY:
            self._finish()
        elif "transfer-encoding" in headers:
            self._chunked = headers["transfer-encoding"].strip().lower() == "chunked"
            if not self._chunked:
                raise self.broken("the answer is transferred in a way that is not known")
            self.reusable = self.reusable and "content-length" not in headers
        elif "content-length" in headers:
            self._left = self._length(pairs)
            if self._left == 0:
                self._finish()
        else:
            self.reusable = False

    def _length(self, pairs: list[tuple[str, str]]) -> int:
        lengths = {value for name, value in pairs if name.lower() == "content-length"}
        (length, *others) = {part.strip() for value in lengths for part in value.split(",")}
        if others or not _LENGTH.fullmatch(length):
            raise self.broken("the answer's length is not a number")
        if int(length) > self._limit:
            raise too_large(self._target, self._limit)
        return int(length)

    def _plain(self, data: bytes, at: int) -> int:
        if self._left is None:
            self._add(data[at:])
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
        end = data.find(b"\n", at, at + LONGEST_HEAD)
        if end < 0:
            if len(data) - at >= LONGEST_HEAD:
                raise self.broken("a chunk of the answer has no size")
            self._pending = data[at:]
            return len(data)
        self._chunk_line(data[at:end].rstrip(b"\r"))
        return end + 1

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
        if self._body is not None and data:
            self._body.add(data)

    def _finish(self) -> None:
        if self._body is not None:
            self.content = self._body.whole()
        self.whole = True

    def broken(self, what: str) -> WireError:
        """Say that the exchange is lost; the answer was perhaps billed."""
        return WireError("broken", f"the exchange with {self._target} broke off: {what}", maybe_sent=True)
