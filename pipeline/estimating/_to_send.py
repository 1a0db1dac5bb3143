"""Running sums over the requests that will be sent."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
        self._cut_off: dict[int, Counter[int]] = {}
        self._methods: set[str] = {"exact"}

    def add(self, counts: Sequence[TokenCount]) -> None:
        """Count requests."""
        self.sizes.update([count.tokens for count in counts])
        self.bounds.update([count.bound for count in counts])
        self._methods.update([count.method for count in counts])

    def was_cut_off(self, count: TokenCount, limit: int) -> None:
        """Hear that a request that is counted had its answer cut off at a lower limit before."""
        self._cut_off.setdefault(limit, Counter())[count.tokens] += 1

    def remove(self, count: TokenCount, cut_off: int | None) -> None:
        """Take back a request that was sent meanwhile; `cut_off`: the limit at which it had been cut off before."""
        self.sizes -= Counter([count.tokens])
        self.bounds -= Counter([count.bound])
        if cut_off is not None:
            self._cut_off[cut_off] -= Counter([count.tokens])

    @property
    def cut_off(self) -> Mapping[int, Counter[int]]:
        """The sizes of requests whose answers were cut off at a lower limit before, by that limit."""
        return {limit: sizes for limit, sizes in self._cut_off.items() if sizes}

    @property
    def fresh(self) -> Counter[int]:
        """The sizes of all others."""
        return self.sizes - sum(self._cut_off.values(), Counter())

    @property
    def requests(self) -> int:
        """How many there are."""
        return self.sizes.total()

    @property
    def input_tokens(self) -> int:
        """Input tokens of all requests, as counted."""
        return sum(size * requests for size, requests in self.sizes.items())

    def limit_tokens(self, size: int) -> int:
        """Input tokens + max_tokens: what tokens-per-minute limits are charged before an answer is there."""
        return self._meter.limit_tokens(size)

    @property
    def longest(self) -> int:
        """Input tokens of the longest request."""
        return max(self.sizes, default=0)

    @property
    def method(self) -> str:
        """The least sure method among the counts."""
        return max(self._methods, key=_RANK.__getitem__)


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
