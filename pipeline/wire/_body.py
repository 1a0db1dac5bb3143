"""Collects a body that may be packed, and never holds more of it than allowed.

httpx itself unpacks all it has read and shows the size afterwards: 64 kB of a gzip bomb become 64 MB, and of a Brotli
bomb (where that package is installed) gigabytes.
"""

import zlib
from typing import Any

from pipeline.errors import WireError
from pipeline.wire import too_large

_GZIP = zlib.MAX_WBITS | 16
_MEMBER = 0x1F
"""The first byte of each member of a gzip body, which may have several."""
_MEMBER_BYTES = 64
"""What each further member counts as, be it empty: about what it costs to open one."""
_AT_ONCE = 4096
"""Bytes that are unpacked at once: zlib copies, at the end of each member, all that is left of them."""
_PACKED_TIMES, _PACKED_MORE = 2, 64 * 1024
"""Packed, a body is hardly ever longer than unpacked; what has no end is given up though nothing comes out of it."""


_MOST_PIECES = 256


class Pieces:
    """Bytes as they arrive. A piece takes some forty bytes more than it has, so many are put together."""

    __slots__ = ("_joined", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._joined: bytearray | None = None

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        if len(self._pieces) >= _MOST_PIECES:
            if self._joined is None:
                self._joined = bytearray()
            self._joined += b"".join(self._pieces)
            self._pieces.clear()

    def whole(self) -> bytes:
        """Return all of it."""
        if self._joined is None:
            return b"".join(self._pieces)
        return b"".join((self._joined, *self._pieces))


class Body:
    """The bytes of one answer, unpacked."""

    def __init__(self, encoding: str, target: str, limit: int) -> None:
        self._target, self._limit = target, limit
        self._pieces = Pieces()
        self._size = self._packed = 0
        self._several = False
        self._inflate = self._inflater(encoding.strip().lower())
        self._first = True
        self._start = b""
        """A first byte that came alone: two tell how a body is packed."""

    def _inflater(self, encoding: str) -> Any:
        if encoding in {"", "identity"}:
            return None
        if encoding in {"gzip", "x-gzip"}:
            self._several = True
            return zlib.decompressobj(_GZIP)
        if encoding == "deflate":
            return zlib.decompressobj()
        raise self._unreadable("packed in a way that was not asked for")

    def add(self, chunk: bytes) -> None:
        """Take what has arrived. Raises WireError where it is too much, or is not what it says."""
        if self._inflate is None:
            self._keep(chunk)
            return
        if self._first:
            chunk, self._start = self._start + chunk, b""
            if len(chunk) == 1:
                self._start = chunk
                return
        self._packed += len(chunk)
        if self._packed > _PACKED_TIMES * self._limit + _PACKED_MORE:
            raise too_large(self._target, self._limit)
        for at in range(0, len(chunk), _AT_ONCE):
            self._unpack(chunk[at : at + _AT_ONCE])

    def _unpack(self, chunk: bytes) -> None:
        while chunk:
            if self._inflate.eof:
                if not (self._several and chunk[0] == _MEMBER):
                    return  # padding
                self._inflate = zlib.decompressobj(_GZIP)
                self._count(_MEMBER_BYTES)
            self._keep(self._unpacked(chunk))
            chunk = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _unpacked(self, chunk: bytes) -> bytes:
        room = self._limit - self._size + 1
        first, self._first = self._first, False
        try:
            return bytes(self._inflate.decompress(chunk, room))
        except zlib.error:
            if not first:
                raise self._unreadable("damaged") from None
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers send `deflate` without its two-byte header
        try:
            return bytes(self._inflate.decompress(chunk, room))
        except zlib.error:
            raise self._unreadable("damaged") from None

    def _keep(self, data: bytes) -> None:
        self._count(len(data))
        self._pieces.add(data)

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise too_large(self._target, self._limit)

    def whole(self) -> bytes:
        """Return the body. Raises WireError if its end is missing."""
        if self._start or (self._inflate is not None and not self._first and not self._inflate.eof):
            raise self._unreadable("cut off")
        return self._pieces.whole()

    def _unreadable(self, what: str) -> WireError:
        return WireError("broken", f"the answer of {self._target} is {what}", maybe_sent=True)
