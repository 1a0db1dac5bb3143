"""What the stub vendor has seen and charged so far, readable from any thread."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stub_bill import BillEntry, words_in

PATIENCE_SECONDS = 10.0
"""How long a test waits for something that must happen; reached only when the test fails."""


@dataclass(slots=True)
class StubRequest:
    """One chat request as it arrived, and how it ended."""

    n: int
    """1-based, in order of arrival."""
    at: float
    """Arrival, seconds of the server's clock."""
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    payload: Any
    """The parsed JSON; None if it was none."""
    outcome: str = "open"
    """`answered`, the fault's name, `client left`, or `server stopped`; `open` while it has none."""
    status: int | None = None
    """The HTTP status that was sent, if one was."""


class Log:
    """Requests, bill and what is in flight. The server writes; tests read and wait."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        """What the test's own functions raised; the client got a 500."""
        self.strays: list[str] = []
        """`METHOD path` of requests that were neither chat completions nor for /health."""
        self.peak_concurrency = 0
        # One lock around each step of the server: a test that has seen an answer, or an arrival, also sees
        # every number that belongs to it.
        self._changed = threading.Condition()
        self._requests: list[StubRequest] = []
        self._entries: list[BillEntry] = []
        self._delivered: set[int] = set()
        self._in_flight = 0

    @property
    def requests(self) -> list[StubRequest]:
        """Every chat request so far, in order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def calls(self) -> int:
        """How many chat requests arrived, refused ones included."""
        with self._changed:
            return len(self._requests)

    def calls_for(self, text: str) -> int:
        """How many chat requests say `text` in a message, as whole words ("row 1" is not in "row 10")."""
        said = re.compile(rf"(?<!\w){re.escape(' '.join(text.split()))}(?!\w)")
        payloads = [request.payload for request in self.requests if isinstance(request.payload, dict)]
        return sum(any(said.search(" ".join(words_in(m))) for m in p.get("messages", ())) for p in payloads)

    @property
    def statuses(self) -> Counter[int | None]:
        """How many requests ended with each HTTP status; None: without one, or not yet."""
        return Counter(request.status for request in self.requests)

    @property
    def entries(self) -> list[BillEntry]:
        """The bill, line by line, in the order of generation."""
        with self._changed:
            return list(self._entries)

    @property
    def bill(self) -> Decimal:
        """Dollars for every answer that was generated."""
        return sum((entry.usd for entry in self.entries), Decimal(0))

    @property
    def delivered_bill(self) -> Decimal:
        """Dollars for answers whose last byte the kernel took; the client may still not have read it."""
        with self._changed:
            return sum((entry.usd for entry in self._entries if entry.n in self._delivered), Decimal(0))

    @property
    def in_flight(self) -> int:
        """How many chat requests are here and have no answer yet."""
        with self._changed:
            return self._in_flight

    def wait_until(self, true: Callable[[], bool], what: str, timeout: float = PATIENCE_SECONDS) -> None:
        """Block until `true()`, looked at after every change; after `timeout` seconds raise TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(true, timeout):
                seen = f"{len(self._requests)} calls, {self._in_flight} in flight"
                raise TimeoutError(f"The stub waited {timeout} s for {what}; it saw {seen}.")

    def wait_for_in_flight(self, n: int, timeout: float = PATIENCE_SECONDS) -> None:
        """Block until at least n requests are here without an answer."""
        self.wait_until(lambda: self._in_flight >= n, f"{n} requests in flight", timeout)

    def wait_for_calls(self, n: int, timeout: float = PATIENCE_SECONDS) -> None:
        """Block until at least n requests have arrived in all."""
        self.wait_until(lambda: len(self._requests) >= n, f"{n} calls", timeout)

    def _enter(self, request: StubRequest) -> None:
        self._requests.append(request)
        self._in_flight += 1
        self.peak_concurrency = max(self.peak_concurrency, self._in_flight)
        self._changed.notify_all()

    def _book(self, entry: BillEntry) -> None:
        self._entries.append(entry)
        self._changed.notify_all()

    def _leave(self, request: StubRequest, outcome: str, status: int | None) -> None:
        request.outcome, request.status = outcome, status
        self._in_flight -= 1
        self._changed.notify_all()

    def _deliver(self, request: StubRequest) -> None:
        with self._changed:  # for a large body this comes later than the rest of the step
            self._delivered.add(request.n)
            self._changed.notify_all()
