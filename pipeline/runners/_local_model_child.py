"""The process that serves the bundled model: reads its settings from stdin, prints its address, ends with its stdin.

Run as a script, on its own: it imports the standard library and xllamacpp, and nothing of this package. Whatever ends
the parent (kill -9 too) closes the pipe, so this process can't be left behind.
"""

import contextlib
import http.client
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

MAX_THREADS = 4
"""More threads than this gain nothing with a model of 135 million parameters."""
_SAMPLE_SECONDS = 0.2
_POLL_SECONDS = 0.02


def main() -> None:
    """Serve until stdin closes; one JSON line on stdout says where, once the model answers."""
    announce = os.dup(1)
    os.dup2(2, 1)  # whatever llama.cpp prints goes to the log, never into the one line the parent waits for
    line = sys.stdin.buffer.readline()
    if not line:
        return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    settings = json.loads(line)
    server = _serve(settings, settings["threads"] or choose_threads(_usable_cores(), _idle_cores()))
    address = server.listening_address
    _wait_until_healthy(address)
    os.write(announce, json.dumps({"address": address}).encode() + b"\n")
    os.close(announce)
    threading.Event().wait()


def choose_threads(cores: float, idle: float) -> int:
    """Return as many threads as there are idle cores among those we may use, from 1 to MAX_THREADS.

    llama.cpp's threads wait for each other after every layer: one that has to share its core holds up all.
    Measured on 2 cores, 28 rows of 120 tokens in and 40 out: quiet, 2 threads took 17 s and 1 thread 31 s; beside one
    busy process 1 thread took 83 s and 2 threads had not finished after 100 s.
    """
    return max(1, min(MAX_THREADS, round(min(cores, idle))))


def _end_with_stdin() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock, held by a waiting read, aborts a normal exit
        pass
    os._exit(0)


def _serve(settings: dict[str, Any], threads: int) -> Any:
    xllamacpp = importlib.import_module("xllamacpp")  # optional, without types, and only this process loads it
    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.model_alias = {settings["model"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["api_key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context_tokens"] * settings["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0  # the same speed and the same answers on every machine
    params.cache_ram_mib = 0  # the default keeps up to 8 GB of old prompts
    params.fit_params = False
    params.ui = False
    params.endpoint_slots = False  # it would show prompts
    params.verbosity = 1
    return xllamacpp.Server(params)


def _wait_until_healthy(address: str) -> None:
    """Ask until the server answers 200; the parent decides when that takes too long."""
    host = address.removeprefix("http://")
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException), _get(host, "/health") as reply:
            if reply.status == http.client.OK:
                return
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _get(host: str, path: str) -> Any:
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", path)
        yield connection.getresponse()
    finally:
        connection.close()


def _usable_cores() -> float:
    """Cores this process may run on: its affinity, and a container's quota where there is one (cgroup v2)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(float(cores), int(quota) / int(period))  # no quota is the word `max`: ValueError
    return cores


def _idle_cores() -> float:
    """Cores nobody used during a moment's look; the load average would still count what ended a minute ago."""
    try:
        busy_before, idle_before = _jiffies()
        time.sleep(_SAMPLE_SECONDS)
        busy, idle = _jiffies()
    except (OSError, ValueError):
        return _idle_by_load()
    spent = (busy - busy_before) + (idle - idle_before)
    return (os.cpu_count() or 1) * (idle - idle_before) / spent if spent else 1.0


def _jiffies() -> tuple[int, int]:
    """Return busy and idle time of all cores since the machine started (proc(5): idle and iowait are 4th and 5th)."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        times = [int(n) for n in file.readline().split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, idle


def _idle_by_load() -> float:
    cores = os.cpu_count() or 1
    try:
        return cores - os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return cores


if __name__ == "__main__":
    main()
