"""Which proxy the environment, or the system's settings, put before an address, and whether a wire can use it.

A library may pass over what it can't read and send past the proxy, or may break with words of its own.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from pipeline.errors import UserError

_IN_A_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}")
_HTTP = ("http", "https")
_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
_SOCKS_OF_HTTPX = ("socks5", "socks5h")


def has_proxy(url: str) -> bool:
    """Tell whether a proxy stands before this address."""
    return _chosen(url, _proxies()) is not None


def require_usable_proxy(wire: str, url: str) -> None:
    """Raise UserError where the proxy before this address is none that the wire can use; it shows no password."""
    proxies = _proxies()
    httpx = wire == "httpx" or (wire == "auto" and find_spec("pyreqwest") is None)
    chosen = _chosen(url, proxies)
    names = [] if chosen is None else [chosen]
    if (wire == "httpx" or (httpx and chosen)) and "*" not in [
        host.strip() for host in proxies.get("no", "").split(",")
    ]:
        names = [name for name in (*_HTTP, "all") if name in proxies]  # it opens all of them at once
    for name in names:
        problem = _problem(proxies[name], httpx=httpx)
        if problem:
            raise UserError(f"the proxy in {_place(name, proxies[name])} can't be used: {problem}")


def _proxies() -> Mapping[str, str]:
    from urllib.request import getproxies  # noqa: PLC0415 (slow to import)

    return getproxies()


def _chosen(url: str, proxies: Mapping[str, str]) -> str | None:
    from urllib.request import proxy_bypass  # noqa: PLC0415 (slow to import)

    scheme = url.partition(":")[0].lower()
    name = scheme if scheme in proxies else "all"
    if name not in proxies:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if scheme == "https" else 80)
    except ValueError:
        return name  # no address at all: the wire says so
    passed = proxy_bypass(host) or proxy_bypass(f"{host}:{port}") or _in_a_network(host, proxies.get("no", ""))
    return None if passed else name


def _in_a_network(host: str, no_proxy: str) -> bool:
    """Tell whether NO_PROXY names a network that holds the host, such as 127.0.0.0/8: the libraries go by that, too."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        with suppress(ValueError):
            if address in ip_network(entry.strip(), strict=False):
                return True
    return False


def _problem(proxy: str, *, httpx: bool) -> str | None:
    """Say what is wrong, and what to do."""
    write = "write it as http://HOST:PORT, or unset the variable to send without a proxy"
    kind, found, rest = proxy.partition("://")
    if not found:
        kind, rest = "http", proxy
    if not httpx and not _IN_A_URL.fullmatch(proxy):
        return f"it holds a character that no address has (in a user name or password that is written %20); {write}"
    if not httpx and "@" in rest.rpartition("@")[0]:
        return f"it holds two @; in a user name or password that is written %40; {write}"
    if kind.lower() in _HTTP:
        return None if _has_host(f"http://{rest}") else f"it is no address; {write}"
    if kind in _SOCKS_OF_HTTPX and httpx and find_spec("socksio") is None:
        return f'for {kind}:// the wire httpx needs the package socksio: pip install "httpx[socks]"'
    kinds = _SOCKS_OF_HTTPX if httpx else _SOCKS
    if kind in kinds:
        return None if _has_host(f"http://{rest}") else f"it is no address; write it as {kind}://HOST:PORT"
    shown = f"{kind}:// is" if _KIND.fullmatch(kind) else "that is"
    return f"{shown} none of {', '.join(f'{name}://' for name in (*_HTTP, *kinds))}; {write}"


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.port != 0 and _HOST.fullmatch(parts.hostname or "") is not None
    except ValueError:
        return False


def _place(name: str, proxy: str) -> str:
    for variable in (f"{name}_proxy", f"{name.upper()}_PROXY"):
        if os.environ.get(variable) == proxy:
            return f"${variable}"
    return "the system's settings"
