"""Chooses the wire for each address: the leanest that can reach it."""

from collections.abc import Coroutine, Mapping
from typing import Any

from pipeline.errors import WireError
from pipeline.records import WireReply
from pipeline.wire import Wire, WireOptions, certificates, closed, open_library, target_of
from pipeline.wire._proxy import has_proxy
from pipeline.wire.plain import PlainWire


class AutoWire:
    """A `Wire` made of others; the one that can do everything is opened when it is first needed."""

    def __init__(self, options: WireOptions) -> None:
        if options.root_certificates is not None:
            certificates(options.root_certificates)  # a bad file shows before the first request
        self._options = options
        self._plain = PlainWire(options)
        self._able: Wire | None = None
        self._closed = False
        self._url = ""
        self._wire: Wire | None = None

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Coroutine[Any, Any, WireReply]:
        """Send one request and read the whole answer."""
        if self._wire is None or url != self._url:
            self._url, self._wire = url, self._choose(url)
        return self._wire.post(url, headers, body)

    async def close(self) -> None:
        """Drop all connections."""
        self._closed = True
        await self._plain.close()
        if self._able is not None:
            await self._able.close()

    def _choose(self, url: str) -> Wire:
        scheme = url.partition(":")[0].lower()
        direct = self._options.direct or not has_proxy(url)
        if direct and (scheme == "http" or (scheme == "https" and self._plain.encrypts)):
            return self._plain
        if self._able is None:
            if self._closed:
                raise closed(target_of(url))
            self._able = open_library("auto", self._options)
        return self._able if direct else _BehindProxy(self._able)


class _BehindProxy:
    """Another wire, whose words about a failed connection name the server: that is not what was called."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WireReply:
        try:
            return await self._wire.post(url, headers, body)
        except WireError as error:
            if error.kind != "connect":
                raise
            message = f"{error} (by way of the proxy that the environment names)"
            raise WireError("connect", message, maybe_sent=error.maybe_sent) from error

    async def close(self) -> None:
        await self._wire.close()
