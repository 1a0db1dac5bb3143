"""The leanest wire: HTTP/1.1 over asyncio's own connections, for servers that no proxy stands before.

A row takes two thirds of the processor time that the native wire takes, and a third of it where nothing is encrypted.
What goes through a proxy is left to the others.
"""

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import cast
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from pipeline.errors import WireError
from pipeline.records import WireReply
from pipeline.wire import IDLE_SECONDS, WireOptions, check_headers, closed, no_address, one_line, target_of, timed_out
from pipeline.wire._http1 import Answer
from pipeline.wire._reuse import Reuse
from pipeline.wire._trust import explained, system_context

SURELY_TAKEN_BYTES = 64 * 1024
"""A request of this size is in the server's hands, or on its way there, when the answer comes."""
_FIRST_ERROR = 400
_GOODBYE = re.compile(rb"HTTP/1\.[01] [45]")
"""Some servers say 408 on a connection that was idle for too long, and end it."""
STOOD_STILL_SECONDS = 1.0
"""A deadline that is noticed so late: the process was stopped. It gets as long to read what came meanwhile, once."""
TURN_BYTES = 64 * 1024
"""After so much of an answer that goes on, others get a turn: a server that always has more would be read on and on,
and neither a deadline nor a signal would be heard."""
NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a name is tried alone (RFC 8305): behind a broken IPv6 the others must be reached, too."""


_Origin = tuple[str, int, bool]
"""Host, port, encrypted: requests that agree in them use the same connections."""


class _Kept(Reuse):
    """The connections to one origin that wait for the next request, and whether any should."""

    __slots__ = ("idle",)

    def __init__(self) -> None:
        super().__init__()
        self.idle: deque[_Connection] = deque()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where requests go, and what they all begin with."""

    url: str
    headers: Mapping[str, str]
    target: str
    origin: _Origin
    head: bytes
    kept: _Kept


class PlainWire:
    """A `Wire` over asyncio."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._seconds, self._body_limit = options.timeout_seconds, options.body_limit
        self._place: _Place | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that its connections live in."""
        self._kept: dict[_Origin, _Kept] = {}
        self._all: set[_Connection] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def encrypts(self) -> bool:
        """Tell whether it can be used for `https://` here: whether it knows whom to trust."""
        return self._trust is not None

    @cached_property
    def _trust(self) -> ssl.SSLContext | None:
        return system_context(self._options.root_certificates)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WireReply:
        """Send one request and read the whole answer."""
        place = self._place
        if place is None or place.headers is not headers or place.url != url:
            place = self._place = _place(url, headers, self._kept)
        if self._closed:
            raise closed(place.target)
        loop = self._loop
        if loop is None:  # asked for once: up to Python 3.11 that is a system call
            loop = self._loop = asyncio.get_running_loop()
        now, kept = loop.time(), place.kept
        connection = self._free(kept.idle, now) or await self._connect(place)
        data = b"%b%d\r\n\r\n%b" % (place.head, len(body), body)
        answer = Answer(place.target, self._body_limit)
        try:
            await connection.exchange(loop, data, answer, now + self._seconds)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, TimeoutError):
                raise timed_out(place.target, self._seconds) from None
            if isinstance(error, WireError) and connection.idle_since and not answer.begun:
                self._died(kept, loop.time())
            raise
        kept.good += 1
        # An error may come before the request was read to its end, and TLS hides what is still unsent of it.
        taken = connection.at_rest and (answer.status < _FIRST_ERROR or len(data) <= SURELY_TAKEN_BYTES)
        if answer.reusable and taken and kept.allowed and not self._closed:
            self._keep(kept.idle, connection, loop)
        else:
            self._drop(connection)
        return WireReply(answer.status, answer.headers, answer.content)

    async def close(self) -> None:
        """Drop all connections."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        for connection in list(self._all):
            self._drop(connection)
        await asyncio.sleep(0)  # the loop closes them

    def _free(self, idle: "deque[_Connection]", now: float) -> "_Connection | None":
        while idle:
            connection = idle.pop()  # the newest: the others may end in peace
            if connection.usable and now - connection.idle_since < IDLE_SECONDS:
                return connection
            self._drop(connection)
        return None

    async def _connect(self, place: _Place) -> "_Connection":
        loop, patience = asyncio.get_running_loop(), self._options
        place.kept.look(loop.time())
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        seconds = min(patience.connect_seconds, patience.timeout_seconds)
        host, port, encrypted = place.origin
        trust = self._trust if encrypted else None
        try:
            async with asyncio.timeout(seconds):
                reached = await start_connection(
                    await _addresses(loop, host, port), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
                )
                _, connection = await loop.create_connection(
                    partial(_Connection, partial(self._unasked, place)),
                    sock=reached,
                    ssl=trust,
                    server_hostname=host if encrypted else None,
                )
        except TimeoutError:
            message = f"no connection to {place.target} within {seconds:g} s"
            raise WireError("connect", message, maybe_sent=False) from None
        except ssl.SSLError as error:
            message = f"no secure connection to {place.target}: {explained(error)}"
            raise WireError("tls", message, maybe_sent=False) from error
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            # Names that can't be one fail in their encoding; the last two are aiohappyeyeballs' where uvloop failed.
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            message = f"no connection to {place.target}: {one_line(reason)}"
            raise WireError("connect", message, maybe_sent=False) from error
        self._all.add(connection)
        if task is not None and task.cancelling() > cancelled:  # lost between two addresses that were tried
            self._drop(connection)
            raise asyncio.CancelledError
        if self._closed:
            self._drop(connection)
            raise closed(place.target)
        return connection

    def _unasked(self, place: _Place) -> None:
        """Hear of bytes that nobody asked for: on a kept connection they would be the next request's answer."""
        kept = place.kept
        while kept.idle:
            self._drop(kept.idle.pop())
        if kept.unasked() and self._options.notify is not None:
            self._options.notify(
                f"{place.target} has sent more than it was asked for, so an answer may have been taken for another"
                " row's: look whether the answers so far fit their rows. From now on each request has a connection of"
                " its own"
            )

    def _died(self, kept: _Kept, now: float) -> None:
        """Hear of a kept connection that was dead, or all but; those that have waited with it may be, too."""
        kept.died(now)
        while kept.idle:
            self._drop(kept.idle.pop())

    def _keep(self, idle: "deque[_Connection]", connection: "_Connection", loop: asyncio.AbstractEventLoop) -> None:
        connection.idle_since = loop.time()
        idle.append(connection)
        if self._tidying is None:
            self._tidying = loop.call_later(IDLE_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """End connections that nobody has used for a while."""
        loop = asyncio.get_running_loop()
        self._tidying, now = None, loop.time()
        waiting = [kept.idle for kept in self._kept.values()]
        for idle in waiting:
            while idle and not (idle[0].usable and now - idle[0].idle_since < IDLE_SECONDS):
                self._drop(idle.popleft())
        oldest = min((idle[0].idle_since for idle in waiting if idle), default=None)
        if oldest is not None:
            self._tidying = loop.call_later(max(oldest + IDLE_SECONDS - now, 0.05), self._tidy)

    def _drop(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        connection.abort()


class _Connection(asyncio.Protocol):
    """One connection, with at most one exchange on it."""

    __slots__ = (
        "_answer", "_deadline", "_spared", "_taken", "_timer", "_transport", "_unasked", "_waiting", "idle_since",
        "usable",
    )  # fmt: skip

    def __init__(self, unasked: Callable[[], None]) -> None:
        """`unasked` hears when something comes while nothing is asked."""
        self._unasked = unasked
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._deadline = 0.0
        self._spared = 0.0
        """The deadline that was moved because the process was stopped."""
        self._taken = 0
        """Bytes since the others had a turn; of answers that came at once none."""
        self._timer: asyncio.TimerHandle | None = None
        self.usable = False
        self.idle_since = 0.0
        """0: it was not used yet."""

    def exchange(
        self, loop: asyncio.AbstractEventLoop, data: bytes, answer: Answer, deadline: float
    ) -> asyncio.Future[Answer]:
        """Send a request; the answer is returned when it is whole.

        Raises WireError, as the future does, which raises TimeoutError when the deadline has come.
        """
        if self._transport is None or not self.usable:  # gone between two turns of the loop
            raise WireError("connect", f"the connection to {answer.target} broke off", maybe_sent=False)
        self._answer, self._waiting, self._deadline = answer, loop.create_future(), deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer(loop)
        self._transport.write(data)
        return self._waiting

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing is under way in either direction."""
        return self.usable and self._transport is not None and not self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """End the connection at once."""
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer serves many exchanges: it looks again at the deadline of the one that is on when it rings."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._deadline, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiting is not None and not self._is_over(loop.time()):
            self._set_timer(loop)

    def _is_over(self, now: float) -> bool:
        """Fail where the deadline has come."""
        late = now - self._deadline
        if late < 0:
            return False
        if late > STOOD_STILL_SECONDS and self._spared != self._deadline:  # uvloop rings before it reads
            self._deadline = self._spared = now + STOOD_STILL_SECONDS
            return False
        self._fail(TimeoutError())
        return True

    def _let_others_pass(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._taken = 0
        if not self._is_over(loop.time()):
            transport.pause_reading()
            loop.call_soon(self._read_on, transport)

    @staticmethod
    def _read_on(transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            transport.resume_reading()

    def _fail(self, error: Exception) -> None:
        self.usable = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport, self.usable = cast("asyncio.Transport", transport), True  # uvloop's are of no such class

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer; what comes unasked makes the connection useless."""
        answer, waiting = self._answer, self._waiting
        if answer is None or waiting is None:
            if self.usable and not _GOODBYE.match(data):
                self._unasked()
            self.abort()
            return
        try:
            answer.feed(data)
        except WireError as error:
            self._fail(error)
            return
        if answer.whole:
            self._answer = self._waiting = None
            if not waiting.done():
                waiting.set_result(answer)
            return
        self._taken += len(data)
        if self._taken >= TURN_BYTES and self._transport is not None:
            self._let_others_pass(self._transport, waiting.get_loop())

    def eof_received(self) -> bool:
        """Hear that the server sends no more."""
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the connection is gone; without `eof_received` before, it was cut."""
        self._end("the connection was cut" if exc is None else one_line(str(exc)))

    def _end(self, problem: str | None) -> None:
        self.usable = False
        answer, waiting = self._answer, self._waiting
        if answer is None or waiting is None or waiting.done():
            return
        self._answer = self._waiting = None
        try:
            if problem is not None:
                raise answer.broken(problem)
            answer.ended()
        except WireError as error:
            waiting.set_exception(error)
        else:
            waiting.set_result(answer)


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[AddrInfoType]:
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _place(url: str, headers: Mapping[str, str], kept: dict[_Origin, _Kept]) -> _Place:
    """Check an address and headers once for all requests that share them. Raises WireError."""
    target = target_of(url)
    check_headers(headers)
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " for character in path):
        raise no_address()
    encrypted, written = parts.scheme == "https", parts.hostname or ""
    host = written if written.isascii() else _ascii(written)
    usual = 443 if encrypted else 80
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {target.removesuffix(f':{usual}').replace(written, host)}",
        "user-agent: promptmill",
        "accept: */*",
        *(f"{name}: {value.strip()}" for name, value in headers.items()),
        "content-length: ",
    ]
    origin = (host, parts.port or usual, encrypted)
    head = "\r\n".join(lines).encode("ascii")
    return _Place(url, headers, target, origin, head, kept.setdefault(origin, _Kept()))


def _ascii(host: str) -> str:
    """Write a name as DNS has it, in the way that the libraries do: Python's own codec makes fass.de of faß.de."""
    import idna  # noqa: PLC0415 (tables; hardly an address needs them)

    try:
        return idna.encode(host).decode("ascii")
    except idna.IDNAError:
        message = "the host's name is none that DNS could have; write it in its xn-- form"
        raise WireError("bad_request", message, maybe_sent=False) from None
