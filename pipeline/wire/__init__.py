"""One exchange with a server: bytes out, bytes in. The only place that knows transport errors.

A wire never follows a redirect, keeps no cookies, never retries by itself and never raises for a status: what
came back is a reply. What did not come back is a `WireError` that says whether the request may have been received.
Three implementations pass one contract (tests/test_wire.py): `plain` (asyncio, the leanest, without
proxies), `native` (Rust, fast) and `httpx` (Python, anywhere).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol
from urllib.parse import urlsplit

from pipeline.errors import UsageError, WireError
from pipeline.notices import Notify
from pipeline.records import WireReply

IDLE_SECONDS = 4.0
"""How long an idle connection is kept. Many servers close theirs after 5 s, and a request that crosses with
the closing is one of unknown cost; a new connection is cheaper than that."""

ALL_BODIES_BYTES = 512 * 2**20
"""About what the answers that arrive at the same time may take of memory, if all of them are huge."""
SMALLEST_BODY_LIMIT, LARGEST_BODY_LIMIT = 4 * 2**20, 32 * 2**20
"""A model that is allowed 100,000 tokens writes about 0.5 MB."""

WireChoice = Literal["auto", "native", "httpx"]


@dataclass(frozen=True, slots=True)
class WireOptions:
    """How exchanges are made, whatever library makes them."""

    timeout_seconds: float = 300
    """One exchange in all, from connecting to the answer's last byte."""
    connect_seconds: float = 10
    """Name look-up, TCP and TLS."""
    concurrency: int = 32
    """At least so many idle connections are kept for the next request."""
    max_body_bytes: int | None = None
    """A longer answer, counted after decompression, is given up with `too_large`. None: see `body_limit`."""
    root_certificates: bytes | None = None
    """PEM; trusted in addition to the usual ones."""
    direct: bool = False
    """Ignore proxies from the environment (the local model)."""
    notify: Notify | None = None
    """Hears, once, that a server sends what nobody asked for."""

    @property
    def body_limit(self) -> int:
        """Bytes of one answer: a fair share of what all answers under way may take, within reason."""
        if self.max_body_bytes is not None:
            return self.max_body_bytes
        return min(max(ALL_BODIES_BYTES // max(self.concurrency, 1), SMALLEST_BODY_LIMIT), LARGEST_BODY_LIMIT)


class Wire(Protocol):
    """Open connections to some servers; safe to use from many tasks of one event loop."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> WireReply:
        """Send one request and read the whole answer. Raises `WireError` and nothing else.

        `headers` are checked once and must not be changed between calls.
        """
        ...

    async def close(self) -> None:
        """Drop all connections. Exchanges under way fail; later ones are refused."""
        ...


def open_wire(choice: WireChoice, options: WireOptions) -> Wire:
    """Make a wire.

    `auto` is plain for servers that no proxy stands before, else native, or httpx where the native library has no build
    for this platform. Where OpenSSL doesn't know whom the system trusts (macOS), plain is for `http://` alone.
    """
    if choice == "auto":
        from pipeline.wire._auto import AutoWire  # noqa: PLC0415 (it opens the others)

        return AutoWire(options)
    return open_library(choice, options)


def open_library(choice: WireChoice, options: WireOptions) -> Wire:
    """Make a wire of somebody else's client, which can do everything: proxies, and the trust of any system."""
    if choice != "httpx":
        try:
            from pipeline.wire.native import NativeWire  # noqa: PLC0415 (compiled: may be absent)
        except ImportError:
            if choice == "native":
                raise UsageError(
                    '[limits] wire = "native" needs the package pyreqwest, which can\'t be loaded here; '
                    'use wire = "httpx"'
                ) from None
        else:
            return NativeWire(options)
    from pipeline.wire.httpx import HttpxWire  # noqa: PLC0415 (slow to import)

    return HttpxWire(options)


def require_usable_proxy(choice: WireChoice, url: str) -> None:
    """See that the proxy before this address, if there is one, is of a kind that the wire can use. Raises UserError."""
    from pipeline.wire import _proxy  # noqa: PLC0415 (only runs need it)

    _proxy.require_usable_proxy(choice, url)


@lru_cache(maxsize=256)
def target_of(url: str) -> str:
    """`host:port` of an http(s) address, for messages. Refuses what no wire should be asked to send to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise no_address() from None
    if parts.scheme not in {"http", "https"} or not host:
        raise _bad_request("the address must start with http:// or https:// and name a host")
    port = port or (443 if parts.scheme == "https" else 80)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if parts.username is not None or parts.password is not None:
        raise _bad_request(f"the address of {target} carries a user name or password; use the API key instead")
    return target


_LONGEST_REASON = 2000
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse header lines that libraries treat differently; the message never shows a value."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            shown = name if _NAME.fullmatch(name) else "?"
            raise _bad_request(
                f"the header {shown!r} holds a character that can't be sent "
                "(a line break or a letter outside ASCII, perhaps in the API key)"
            )


def first_of_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Lower-case header names; of repeated headers the first counts."""
    kept: dict[str, str] = {}
    for name, value in pairs:
        kept.setdefault(name.lower(), value)
    return kept


def one_line(text: str) -> str:
    """Make a library's words fit for a message: one line without an address, which may hold secrets.

    It is cut between words, and late: half of a secret would not be recognised as one.
    """
    line = re.sub(r"\S+://\S+", "the address", " ".join(text.split()))
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON].rpartition(" ")[0]


def too_large(target: str, limit: int) -> WireError:
    """Say that an answer was given up; it was computed, and so perhaps billed."""
    return WireError(
        "too_large", f"the answer of {target} is longer than {limit:,} bytes and was given up", maybe_sent=True
    )


def timed_out(target: str, seconds: float) -> WireError:
    """Say that the whole exchange took too long; the provider may go on computing, and bill."""
    return WireError("timeout", f"no complete answer from {target} within {seconds:g} s", maybe_sent=True)


def closed(target: str) -> WireError:
    """Say that the wire was closed before this request."""
    return WireError("connect", f"the wire to {target} is closed", maybe_sent=False)


def certificates(pem: bytes) -> list[bytes]:
    """Every certificate of a PEM file, as DER. A library may silently skip what it can't read; we don't."""
    import ssl  # noqa: PLC0415 (only who brings a certificate pays for it)

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii"))
        found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem.decode("ascii"), re.DOTALL)
        return [ssl.PEM_cert_to_DER_cert(one) for one in found]
    except (ssl.SSLError, ValueError):
        raise UsageError("the root certificates are not a PEM file with certificates") from None


def no_address() -> WireError:
    """Say that an address is none; it is not shown, for it may hold secrets."""
    return _bad_request("the address is not a valid URL")


def _bad_request(message: str) -> WireError:
    return WireError("bad_request", message, maybe_sent=False)
