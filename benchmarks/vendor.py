"""The vendor that everything is measured against: nginx with a Lua handler (`server.lua`), on 127.0.0.1, one worker.

`make benchmarks/.server/unpacked` fetches it from Debian's packages, without root; elsewhere set NGINX to an nginx that
has the Lua module built in.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # throw-away certificates

from certificates import certificate, new_key, private_pem

HERE = Path(__file__).parent
UNPACKED = HERE / ".server" / "root"
ANSWER = "The order went out on Tuesday and should reach the customer within three days; the invoice follows. "
ANSWER_TOKENS = 190
"""Of ten `ANSWER`s under o200k_base: about 1 KB."""
REQUEST_OVERHEAD = 7
"""Tokens of a chat with one message beside its text, by OpenAI's formula."""
PATIENCE_SECONDS = 10
AUTHORITY = "authority.pem"

CONFIGURATION = """
daemon off; master_process off; worker_rlimit_nofile 16384; pcre_jit off;
pid {folder}/pid; error_log {folder}/error.log;
{modules}
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
    client_max_body_size 4m; client_body_buffer_size 1m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {lua_path}
    init_by_lua_block {{ vendor = assert(loadfile("{script}"))({{ {options} }}) }}
    server {{
        listen 127.0.0.1:{port} backlog=8192;
        listen 127.0.0.1:{secure_port} ssl backlog=8192;
        ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
        location = /v1/chat/completions {{ content_by_lua_block {{ vendor.serve() }} }}
        location = /stats {{ content_by_lua_block {{ vendor.stats() }} }}
        location = /reset {{ content_by_lua_block {{ vendor.reset() }} }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the vendor answers."""

    median_seconds: float = 0.0
    sigma: float = 0.0
    """Of a lognormal latency; 0 is always the median."""
    per_minute: float = 0.0
    """Its limit, a bucket of a tenth of a second and of two requests at least; 0 is none."""
    counts_tokens: bool = False
    """The limit is one of tokens."""
    largest: int = 1
    """The largest single request's tokens: the bucket holds so many more."""

    def lua(self) -> str:
        """Write it as Lua fields."""
        content = (ANSWER * 10).strip()
        burst = max(2.0, self.per_minute / 600) + (self.largest if self.counts_tokens else 0)
        facts = {
            "content": json.dumps(content),
            "completion_tokens": ANSWER_TOKENS,
            "overhead": REQUEST_OVERHEAD,
            "median": self.median_seconds,
            "sigma": self.sigma,
            "per_minute": self.per_minute,
            "burst": burst,
            "count_tokens": json.dumps(self.counts_tokens),
        }
        return ", ".join(f"{name} = {value}" for name, value in facts.items())


@dataclass
class Vendor:
    """A running vendor."""

    port: int
    secure_port: int
    pid: int
    folder: Path
    base_url: str = field(init=False)
    secure_base_url: str = field(init=False)
    """The same over TLS, for whoever trusts `authority`."""
    authority: Path = field(init=False)

    def __post_init__(self) -> None:
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.secure_base_url = f"https://127.0.0.1:{self.secure_port}/v1"
        self.authority = self.folder / AUTHORITY

    def reset(self) -> None:
        """Forget what was seen."""
        self._get("reset")

    def stats(self) -> dict[str, Any]:
        """Say what was seen: requests, refused, tokens, slept (seconds), first and last (epoch), tenths (per 0.1 s)."""
        stats: dict[str, Any] = json.loads(self._get("stats"))
        return stats

    def cpu_seconds(self) -> float:
        """Return its processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=PATIENCE_SECONDS) as reply:
            body: bytes = reply.read()
        return body


@contextmanager
def serving(behaviour: Behaviour | None = None) -> Iterator[Vendor]:
    """Run a vendor for a while."""
    binary, modules, lua_path, environ = _nginx()
    with tempfile.TemporaryDirectory(prefix="vendor-") as name:
        folder, port, secure_port = Path(name), _free_port(), _free_port()
        _write_certificates(folder)
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                port=port,
                secure_port=secure_port,
                modules=modules,
                lua_path=lua_path,
                script=HERE / "server.lua",
                options=(behaviour or Behaviour()).lua(),
            )
        )
        command = [binary, "-p", name, "-e", f"{name}/error.log", "-c", f"{name}/nginx.conf"]
        process = subprocess.Popen(command, env={**os.environ, **environ})  # noqa: S603 -- our own configuration
        try:
            vendor = Vendor(port, secure_port, process.pid, folder)
            _wait_for(vendor, process)
            yield vendor
        finally:
            process.terminate()
            process.wait()


def _write_certificates(folder: Path) -> None:
    issuer_key, key = new_key(), new_key()
    issuer = certificate("Bench CA", issuer_key, "Bench CA", issuer_key, is_authority=True)
    (folder / AUTHORITY).write_bytes(issuer)
    (folder / "certificate.pem").write_bytes(certificate("127.0.0.1", key, "Bench CA", issuer_key, is_authority=False))
    (folder / "key.pem").write_bytes(private_pem(key))


def _wait_for(vendor: Vendor, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            vendor.stats()
        except URLError:
            time.sleep(0.02)
        else:
            return
    log = vendor.folder / "error.log"
    sys.exit(f"the benchmarks' nginx does not start: {log.read_text() if log.exists() else 'it said nothing'}")


def _nginx() -> tuple[str, str, str, dict[str, str]]:
    """Return the binary, the lines that load modules, the path of Lua's libraries, and what its environment needs."""
    if own := os.environ.get("NGINX"):
        return own, "", "", {}
    binary = UNPACKED / "usr/sbin/nginx"
    if not binary.exists():
        sys.exit(
            "the benchmarks need nginx with its Lua module: `make benchmarks/.server/unpacked` fetches it on Debian and"
            " Ubuntu; elsewhere install it (for example OpenResty) and set NGINX to its nginx"
        )
    modules = [UNPACKED / "usr/lib/nginx/modules" / f"{name}_module.so" for name in ("ndk_http", "ngx_http_lua")]
    loads = " ".join(f"load_module {module};" for module in modules)
    libraries = ":".join(sorted({str(file.parent) for file in UNPACKED.rglob("*.so.*")}))
    lua_path = f'lua_package_path "{UNPACKED}/usr/share/lua/5.1/?.lua;;";'
    return str(binary), loads, lua_path, {"LD_LIBRARY_PATH": libraries}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def version() -> str:
    """Name the server."""
    binary, _, _, environ = _nginx()
    said = subprocess.run([binary, "-v"], env={**os.environ, **environ}, capture_output=True, text=True, check=True)  # noqa: S603 -- our own nginx
    return said.stderr.strip().removeprefix("nginx version: ")
