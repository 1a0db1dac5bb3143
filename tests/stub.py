"""A vendor that bills exactly what it serves: OpenAI-compatible chat completions on 127.0.0.1.

It counts tokens by a rule of its own (`stub_bill`), keeps a bill to the last digit, and fails on command
(`stub_faults`). An answer is on the bill from the moment it is generated, so a client that left owes for it too.
Everything public may be called from any thread. As a script it serves until its stdin closes.
"""

import argparse
import asyncio
import math
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import orjson
from stub_bill import Prices, make_answer
from stub_faults import NO_FAULT, Fault, Faults, Reply, modelslab_queue_full, status, vllm_not_found
from stub_http import Asked, Connection, render
from stub_log import PATIENCE_SECONDS, Log, StubRequest


@dataclass(frozen=True, slots=True)
class _Response:
    fault: Fault
    head: bytes
    body: bytes


class _Bucket:
    """Requests per second; starts full."""

    def __init__(self, rate: float, burst: float | None, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._size = self._level = max(1.0, rate / 10) if burst is None else burst
        self._seen = clock()

    def take(self) -> float:
        """Take one and return 0, or return the seconds until there is one."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._seen) * self._rate)
        self._seen = now
        if self._level < 1 - 1e-9:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0


def echo(payload: Any) -> str:
    """Answer with `{"echo": <last user message>}`."""
    said = [message["content"] for message in payload["messages"] if message["role"] == "user"]
    return orjson.dumps({"echo": said[-1] if said else None}).decode()


class StubServer(Log):
    """The vendor. `with StubServer(...) as stub:` runs it in a thread of its own.

    After `stop()` the same object can `start()` again on the same port, with its bill and its log.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        answer: Callable[[Any], str | Reply] = echo,
        faults: Faults | None = None,
        latency: float | Callable[[int], float] = 0.0,
        input: str = "0.25",  # noqa: A002 - the price component's name
        cached_input: str | None = None,
        output: str = "2.00",
        per_request: str = "0",
        report_cost: bool = False,
        api_key: str | None = None,
        key_in_body: bool = False,
        requests_per_second: float | None = None,
        burst: float | None = None,
        max_concurrency: int | None = None,
        queue_retry_after: float = 30,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prices are dollars per 1M tokens, `per_request` dollars per answer.

        `answer` gets the payload, `latency` (seconds) may depend on the request's number. `report_cost` puts the
        charge into `usage.cost`, as OpenRouter does. `requests_per_second` is a bucket of `burst` requests
        (default: a tenth of a second's worth, at least 1) that starts full; beyond it a 429 says in `retry-after`
        when the next one fits. More than `max_concurrency` requests at once get ModelsLab's 429, with
        `queue_retry_after` seconds in its body. `clock` dates arrivals and drives the bucket.
        """
        super().__init__()
        self.port = port
        self.answer = answer
        self.faults = faults
        self.latency = latency
        self.api_key = api_key
        self._prices = Prices(*map(Decimal, (input, cached_input or input, output, per_request)))
        self._report_cost = report_cost
        self._key_in_body = key_in_body
        self._bucket = _Bucket(requests_per_second, burst, clock) if requests_per_second else None
        self._max_concurrency = max_concurrency
        self._queue_retry_after = queue_retry_after
        self._tls = tls
        self._clock = clock
        self._held = False
        self._gate: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    @property
    def base_url(self) -> str:
        """The address for a job's `base_url`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def hold(self) -> None:
        """Let requests arrive but answer none; refusals by key and limits still go out."""
        self._in_loop(lambda: setattr(self, "_held", True))

    def release(self, n: int | None = None) -> None:
        """Answer the n oldest held requests and go on holding; without n, open the gate."""
        self._in_loop(lambda: self._open_gate(n))

    def start(self) -> Self:
        """Listen; returns when the port is open."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="stub vendor", daemon=True)
        self._thread.start()
        ready.result(PATIENCE_SECONDS)
        return self

    def stop(self) -> None:
        """Drop every connection and close the port. What was not generated by then is not billed."""
        if self._thread is not None and self._thread.is_alive():
            self._in_loop(self._stop.set)
            self._thread.join(PATIENCE_SECONDS)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *_rest: object) -> None:
        self.stop()
        if self.errors and kind is None:
            raise self.errors[0]

    def _in_loop(self, act: Callable[[], None]) -> None:
        """Run `act` between two steps of the server, and return when it ran."""
        if threading.current_thread() is self._thread:
            act()
            return
        done: Future[None] = Future()

        def run() -> None:
            act()
            done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(PATIENCE_SECONDS)

    def _run(self, ready: "Future[None]") -> None:
        try:
            asyncio.run(self._listen(ready))
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _listen(self, ready: "Future[None]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[Connection] = set()
        server = await self._loop.create_server(
            lambda: Connection(self._serve, connections), "127.0.0.1", self.port, ssl=self._tls, backlog=1024
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set_result(None)
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while connections:
            for connection in connections:
                connection.transport.abort()
            await asyncio.gather(*(connection.closed.wait() for connection in connections))
        self._gate.clear()

    def _open_gate(self, n: int | None) -> None:
        self._held = self._held and n is not None
        for _ in range(len(self._gate) if n is None else min(n, len(self._gate))):
            self._gate.popleft().set_result(None)

    def _serve(self, connection: Connection, asked: Asked) -> None:
        """Answer one HTTP request: at once where that is possible, else from a task."""
        with self._changed:
            if asked.method != "POST" or not asked.path.endswith("/chat/completions"):
                self._serve_other(connection, asked)
                return
            request = self._arrive(asked)
            refusal = self._refusal(request)
            fault, wait = (refusal, 0.0) if refusal else self._plan(request)
            gate = self._loop.create_future() if self._held and not refusal else None
            if gate is None and not wait and fault.delivery in {"whole", "reset", "cut"}:
                self._finish(connection, request, self._make(request, fault))
                return
            if gate is not None:
                self._gate.append(gate)  # not in the task: release() must find what a test saw arrive
            task = self._loop.create_task(self._serve_later(connection, request, fault, gate, wait))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._task_ended(task, request))

    def _serve_other(self, connection: Connection, asked: Asked) -> None:
        if asked.path == "/health":
            response = render(200, {}, b'{"status":"ok"}')
        else:
            self.strays.append(f"{asked.method} {asked.path}")
            response = render(404, {}, vllm_not_found("Not Found").body or b"")
        connection.write(b"".join(response))
        connection.done(close=_wants_close(asked.headers))

    async def _serve_later(
        self,
        connection: Connection,
        request: StubRequest,
        fault: Fault,
        gate: "asyncio.Future[None] | None",
        wait: float,
    ) -> None:
        if gate is not None:
            await gate
        await asyncio.sleep(wait)
        with self._changed:
            response = self._make(request, fault)
        if response.fault.delivery == "stall":
            await connection.closed.wait()
        elif response.fault.delivery == "drip":
            response = await _drip(connection, response)
        with self._changed:
            self._finish(connection, request, response)

    def _task_ended(self, task: "asyncio.Task[None]", request: StubRequest) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            with self._changed:
                self._leave(request, "server stopped", None)

    def _arrive(self, asked: Asked) -> StubRequest:
        try:
            payload = orjson.loads(asked.body)
        except orjson.JSONDecodeError:
            payload = None
        request = StubRequest(len(self._requests) + 1, self._clock(), asked.path, asked.headers, payload)
        self._enter(request)
        return request

    def _refusal(self, request: StubRequest) -> Fault | None:
        """Say no at the door: form, key, limits."""
        payload = request.payload
        if not isinstance(payload, dict) or not isinstance(payload.get("messages"), list):
            return status(400, "The body must be a JSON object with a list of messages.")
        sent = f"Bearer {payload.get('key')}" if self._key_in_body else request.headers.get("authorization")
        if self.api_key is not None and sent != f"Bearer {self.api_key}":
            return status(401, "Incorrect API key provided.")
        if self._max_concurrency is not None and self._in_flight > self._max_concurrency:
            return modelslab_queue_full(self._max_concurrency, self._queue_retry_after)
        wait_ms = math.ceil(self._bucket.take() * 1000) if self._bucket is not None else 0
        if wait_ms:
            return status(429, retry_after=wait_ms / 1000, headers={"retry-after-ms": str(wait_ms)})
        return None

    def _plan(self, request: StubRequest) -> tuple[Fault, float]:
        """What the test wants of this request: its fault and its latency."""
        try:
            fault = self.faults(request.n, request.payload) if self.faults else None
            wait = self.latency(request.n) if callable(self.latency) else self.latency
        except Exception as error:  # noqa: BLE001 - the test's own code
            return self._mistake(error), 0.0
        return fault or NO_FAULT, wait

    def _mistake(self, error: Exception) -> Fault:
        self.errors.append(error)
        return status(500, f"The test's own function raised {type(error).__name__}.")

    def _make(self, request: StubRequest, fault: Fault) -> _Response:
        """Generate the answer and book it, then let the fault have its way with it."""
        if not fault.billed:
            return _Response(fault, *render(fault.status, fault.headers, fault.body or b""))
        try:
            return self._generate(request, fault)
        except Exception as error:  # noqa: BLE001 - the test's own code
            return self._make(request, self._mistake(error))

    def _generate(self, request: StubRequest, fault: Fault) -> _Response:
        said = self.answer(request.payload)
        reply = said if isinstance(said, Reply) else Reply(said)
        reply = fault.reply(reply) if fault.reply else reply
        answer, entry = make_answer(request.n, request.payload, reply, self._prices)
        self._book(entry)
        if self._report_cost:
            answer["usage"]["cost"] = float(entry.usd)
        headers = {"x-request-id": f"req-{request.n}", **reply.headers, **fault.headers}
        return _Response(fault, *render(fault.status, headers, fault.spoil(answer)))

    def _finish(self, connection: Connection, request: StubRequest, response: _Response) -> None:
        """Send what is left to send, and say in the log how the request ended."""
        fault, close = response.fault, _wants_close(request.headers)
        if fault.delivery in {"reset", "stall"}:
            self._leave(request, fault.name, None)
            connection.reset()
            return
        gone = connection.closed.is_set()
        self._leave(request, "client left" if gone else fault.name, None if gone else fault.status)
        if fault.delivery == "cut":
            connection.write(response.head + response.body[: len(response.body) // 2])
            connection.reset()
        else:
            connection.write(response.head + response.body, lambda: self._deliver(request))
            connection.done(close=close)


def _wants_close(headers: Mapping[str, str]) -> bool:
    return headers.get("connection", "").lower() == "close"


async def _drip(connection: Connection, response: _Response) -> _Response:
    """Send all pieces but the last, which is returned."""
    data, pieces = response.head + response.body, max(1, response.fault.pieces)
    size = math.ceil(len(data) / pieces)
    *early, last = (data[start : start + size] for start in range(0, len(data), size))
    for piece in early:
        connection.write(piece)
        await asyncio.sleep(response.fault.gap_seconds)
    return _Response(response.fault, b"", last)


def main() -> None:
    """Serve until stdin closes, then write the bill: for tests and benchmarks that want another process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--requests-per-second", type=float)
    parser.add_argument("--bill-file", type=Path, help="gets one JSON object: calls, usd and the entries")
    options = vars(parser.parse_args())
    bill_file = options.pop("bill_file")
    with StubServer(**options) as stub:
        sys.stdout.write(f"{stub.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()
    if bill_file is not None:
        entries = [asdict(entry) for entry in stub.entries]
        bill = {"calls": stub.calls, "usd": stub.bill, "entries": entries}
        bill_file.write_bytes(orjson.dumps(bill, default=str))


if __name__ == "__main__":
    main()
