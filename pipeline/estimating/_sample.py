"""A pilot's choice: N random requests of a plan, the same ones each time it is asked, under whatever prompt."""

import heapq
from dataclasses import dataclass
from hashlib import blake2b

from pipeline.records import TokenCount
from pipeline.tokens import NOTHING_ATTACHED, Attached


@dataclass(slots=True)
class Chosen:
    """A request of the pilot."""

    count: TokenCount | None = None
    """Of one that is to be sent; None: it has its answer, or can't be sent."""
    row_id: str = ""
    """Of its first row, if it is to be sent."""
    attached: Attached = NOTHING_ATTACHED
    """What goes with it beside its text."""
    rows: int = 1
    cut_off: int | None = None
    """The lower limit at which its answer was cut off before; None: it had none, or nothing is to be sent."""


class Sample:
    """The requests of the N rows whose places, hashed with the seed, come first: that has nothing to do with content.

    What has its answer already is chosen all the same: a pilot that was interrupted or is repeated pays only for what
    is missing, and stays a random choice.
    """

    def __init__(self, size: int, seed: bytes) -> None:
        """Take how many to choose, and a seed of at most 64 bytes."""
        self.size = size
        self._hash = blake2b(digest_size=8, key=seed)
        self._heap: list[tuple[int, str]] = []
        self.chosen: dict[str, Chosen] = {}
        """By key."""

    def offer(self, key: str, index: int) -> None:
        """Choose a request of the plan, if its first row is one of the first so far."""
        hashed = self._hash.copy()
        hashed.update(index.to_bytes(8))
        place = (-int.from_bytes(hashed.digest()), key)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, place)
        elif place > self._heap[0]:
            del self.chosen[heapq.heapreplace(self._heap, place)[1]]
        else:
            return
        self.chosen[key] = Chosen()

    def again(self, key: str) -> None:
        """Hear of another row with this key."""
        if key in self.chosen:
            self.chosen[key].rows += 1

    def counted(
        self,
        key: str,
        count: TokenCount,
        cut_off: int | None = None,
        *,
        row_id: str = "",
        attached: Attached = NOTHING_ATTACHED,
    ) -> None:
        """Hear how large a request is that is to be sent; `cut_off`: the lower limit that cut its answer off before."""
        chosen = self.chosen.get(key)
        if chosen is not None:
            chosen.count, chosen.cut_off, chosen.row_id, chosen.attached = count, cut_off, row_id, attached

    @property
    def to_send(self) -> frozenset[str]:
        """Keys of the pilot that have no outcome yet."""
        return frozenset(key for key, chosen in self.chosen.items() if chosen.count is not None)
