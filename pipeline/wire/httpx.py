"""The portable wire: httpx, for platforms or proxy set-ups the native one does not serve, and for tests.

It takes any `httpx.AsyncBaseTransport` (`httpx.MockTransport` makes a server out of a function).
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from pipeline.errors import UsageError, WireError
from pipeline.records import WireReply
from pipeline.wire import (
    IDLE_SECONDS,
    WireOptions,
    certificates,
    check_headers,
    closed,
    first_of_each,
    no_address,
    one_line,
    target_of,
    timed_out,
)
from pipeline.wire._body import Body
from pipeline.wire._reuse import Reuse

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)


class HttpxWire:
    """A `Wire` over `httpx.AsyncClient`."""

    def __init__(self, options: WireOptions, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._options = options
        self._reuse = Reuse()
        try:
            self._client = self._opened(transport)
        except (ValueError, ImportError, httpx.InvalidURL):  # their words may hold a password
            raise UsageError(
                "a proxy that the environment names is none that httpx can use: look at $HTTP_PROXY, $HTTPS_PROXY and"
                " $ALL_PROXY"
            ) from None

    def _opened(self, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
        options = self._options
        return httpx.AsyncClient(
            transport=transport,
            verify=_trust(options) if transport is None else True,
            trust_env=not options.direct,
            follow_redirects=False,
            headers={"user-agent": "promptmill", "accept-encoding": "gzip, deflate"},
            # httpx would keep cookies and send them with the next row's request.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(None, connect=options.connect_seconds),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=options.concurrency,
                keepalive_expiry=IDLE_SECONDS,
            ),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WireReply:
        """Send one request and read the whole answer."""
        target = target_of(url)
        check_headers(headers)
        if self._client.is_closed:
            raise closed(target)
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                return await self._exchange(url, headers, body, target)
        except TimeoutError as error:
            raise timed_out(target, self._options.timeout_seconds) from error
        except _NOT_SENT as error:
            raise self._no_connection(error, target) from error
        except _UNSENDABLE:
            raise no_address() from None
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as error:
            # RuntimeError: the client was closed under the exchange.
            reason = one_line(str(error)) or type(error).__name__
            raise WireError("broken", f"the exchange with {target} broke off: {reason}", maybe_sent=True) from error

    async def close(self) -> None:
        """Drop all connections."""
        await self._client.aclose()

    def _no_connection(self, error: Exception, target: str) -> WireError:
        if isinstance(error, httpx.TimeoutException):  # in a handshake its chain holds an SSLError ("want read") too
            seconds = self._options.connect_seconds
            return WireError("connect", f"no connection to {target} within {seconds:g} s", maybe_sent=False)
        reason = one_line(str(error)) or type(error).__name__
        if _is_tls(error):
            return WireError("tls", f"no secure connection to {target}: {reason}", maybe_sent=False)
        return WireError("connect", f"no connection to {target}: {reason}", maybe_sent=False)

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, target: str) -> WireReply:
        headers, begun = self._reuse.headers(headers, time.monotonic()), False
        try:
            async with self._client.stream("POST", url, headers=headers, content=body) as response:
                begun = True
                reply = await self._read(response, target)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if not begun:
                self._reuse.died(time.monotonic())
            raise
        self._reuse.good += 1
        return reply

    async def _read(self, response: httpx.Response, target: str) -> WireReply:
        received = first_of_each(response.headers.multi_items())
        read = response.is_stream_consumed  # the answer of a function (MockTransport) is whole, and unpacked
        encoding = "" if read else received.get("content-encoding", "")
        answer = Body(encoding, target, self._options.body_limit)
        async for chunk in response.aiter_bytes() if read else response.aiter_raw():
            answer.add(chunk)
        return WireReply(response.status_code, received, answer.whole())


def _trust(options: WireOptions) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=not options.direct)
    if options.root_certificates is not None:
        for der in certificates(options.root_certificates):
            context.load_verify_locations(cadata=der)
    return context


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
