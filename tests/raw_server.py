"""A scripted HTTP/1.1 server on loopback, down at the bytes: for what a well-behaved server would never send."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass
class Peer:
    """What a script may do to the client."""

    writer: asyncio.StreamWriter
    closing: asyncio.Event

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def stall(self) -> None:
        """Say nothing until the test is over."""
        await self.closing.wait()
        raise ConnectionAbortedError

    def hang_up(self) -> None:
        """Close in good order (FIN)."""
        self.writer.close()

    def cut(self) -> None:
        """End what we send without a word of TLS about it, as somebody on the way could."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the hard way (RST)."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Seen, Peer], Awaitable[None]]


@dataclass
class RawServer:
    script: Script
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    base: str = ""
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.base}/v1/chat/completions"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        peer = Peer(writer, self._closing)
        # No reader left (the client hung up, or the test ended) is not this server's problem.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                seen = await read_request(reader, number)
                self.requests.append(seen)
                await self.script(seen, peer)
        writer.close()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        self._closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            with contextlib.suppress(AttributeError):  # asyncio can't abort what is closed already
                writer.transport.abort()  # what is still unsent will not be read
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


async def read_request(reader: asyncio.StreamReader, connection: int) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(head[0], headers, body, connection)


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of a whole response."""
    lines = [f"HTTP/1.1 {status} Any", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def raw_server(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Serve `script` (called once per request) on a free port of 127.0.0.1."""
    server = RawServer(script)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls, backlog=256)
    port = listener.sockets[0].getsockname()[1]
    server.base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
