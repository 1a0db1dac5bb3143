"""Running sums over the requests that will be sent."""

from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, localcontext

from pipeline.planning import Meter
from pipeline.records import TokenCount

_RANK = {"exact": 0, "formula": 1, "approximate": 2}
EXACT = Context(prec=60)
"""Sums of many exact costs, whatever the calling thread's own precision is."""


class ToSend:
    """How many requests there are of each size, and what they cost at most.

    Requests of one size cost the same, so sizes are counted and priced once. (Different sizes are few: a million of
    them would be 2 TB of text.)
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.sizes: Counter[int] = Counter()
        """Input tokens of a request -> how many requests have that many."""
        self.bounds: Counter[int] = Counter()
        """The most input tokens that a request can be billed for -> how many requests have that bound."""
        self._methods: set[str] = {"exact"}

    def add(self, counts: Sequence[TokenCount]) -> None:
        """Count requests."""
        self.sizes.update([count.tokens for count in counts])
        self.bounds.update([count.bound for count in counts])
        self._methods.update([count.method for count in counts])

    def remove(self, counts: Sequence[TokenCount]) -> None:
        """Take back requests that were sent meanwhile."""
        self.sizes -= Counter(count.tokens for count in counts)
        self.bounds -= Counter(count.bound for count in counts)

    @property
    def requests(self) -> int:
        """How many there are."""
        return self.sizes.total()

    @property
    def input_tokens(self) -> int:
        """Input tokens of all requests, as counted."""
        return sum(size * requests for size, requests in self.sizes.items())

    @property
    def limit_tokens(self) -> int:
        """Input tokens + max_tokens: what tokens-per-minute limits are charged before an answer is there."""
        return sum(self._meter.limit_tokens(size) * requests for size, requests in self.sizes.items())

    @property
    def longest(self) -> int:
        """Input tokens of the longest request."""
        return max(self.sizes, default=0)

    @property
    def method(self) -> str:
        """The least sure method among the counts."""
        return max(self._methods, key=_RANK.__getitem__)

    @property
    def ceiling_usd(self) -> Decimal | None:
        """Every request at its worst case, retries apart; None if price or max_tokens leave it open."""
        return total_usd(self.bounds, self._meter.worst_case)


def total_usd(sizes: Counter[int], cost: Callable[[int], Decimal | None]) -> Decimal | None:
    """Add up the cost of requests, given that of one of each size; None if that of any is unknown."""
    total = Decimal(0)
    with localcontext(EXACT):
        for size, requests in sizes.items():
            one = cost(size)
            if one is None:
                return None
            total += one * requests
    return total
