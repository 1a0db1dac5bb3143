"""HTTP/1.1 by hand for the stub vendor: keep-alive, Content-Length, and every way to break off."""

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP request, complete. Header names are lower case; the path is without its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def render(status: int, headers: Mapping[str, str], body: bytes) -> tuple[bytes, bytes]:
    """Head and body of a response; `headers` win over the usual ones, Content-Length excepted."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in ({"content-type": "application/json"} | headers).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1"), body


class Connection(asyncio.Protocol):
    """One client's connection: hands out one request at a time, the next after `done`."""

    transport: asyncio.Transport

    def __init__(self, on_request: Callable[["Connection", Asked], None], connections: set["Connection"]) -> None:
        self.closed = asyncio.Event()
        self._on_request = on_request
        self._connections = connections
        self._received = bytearray()
        self._busy = False
        self._pumping = False
        self._on_flushed: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # so resume_writing means: the kernel has it all
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._pump()

    def resume_writing(self) -> None:
        flushed, self._on_flushed = self._on_flushed, None
        if flushed is not None and not self.closed.is_set():
            flushed()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        while not self._busy and (asked := self._take()) is not None:
            self._busy = True
            self._on_request(self, asked)
        self._pumping = False

    def _take(self) -> Asked | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        size = end + 4 + int(headers.get("content-length", 0))
        if len(self._received) < size:
            return None
        body = bytes(self._received[end + 4 : size])
        del self._received[:size]
        method, target, _version = first.split(" ", 2)
        return Asked(method, target.partition("?")[0], headers, body)

    def write(self, data: bytes, flushed: Callable[[], None] | None = None) -> None:
        """Send bytes; `flushed` is called when the kernel has the last one, and never if the client is gone."""
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if flushed is None:
            return
        if self.transport.get_write_buffer_size():
            self._on_flushed = flushed
        elif not self.transport.is_closing():
            flushed()

    def done(self, *, close: bool = False) -> None:
        """End the exchange: take the next request, or close once everything is written."""
        self._busy = False
        if close:
            self.transport.close()
        else:
            self._pump()

    def reset(self) -> None:
        """Break off with a TCP reset, dropping what is not written yet."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
