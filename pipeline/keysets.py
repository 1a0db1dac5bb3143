"""Sets and maps of keys that take some 20 bytes a key: a million keys as Python texts in a set take 150 MB.

A key is `v1` and 128 bits. Its first 16 bits choose one of 65,536 byte strings, which holds the other bits of its keys
one behind the other: so nothing is approximate, nothing is ever rehashed, and a look-up searches a few hundred bytes.
"""

from binascii import unhexlify
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

PLACES = 1 << 16
_PREFIX, _LENGTH = "v1", 34
_REST, _CODE = 14, 4
"""Bytes of a key behind its place, and of the number of its value, or of its count."""
V = TypeVar("V")


def _bits(key: str) -> bytes | None:
    """Return the 16 bytes of a key, None if it is none of ours."""
    if len(key) == _LENGTH and key[:2] == _PREFIX:
        try:
            return unhexlify(key[2:])
        except ValueError:
            return None
    return None


def _find(bucket: bytes, rest: bytes, step: int) -> int:
    """Return where a record begins with these bytes; what lies across two records is none."""
    at = bucket.find(rest)
    while at > 0 and at % step:
        at = bucket.find(rest, at + 1)
    return at


class KeySet:
    """Keys that were seen."""

    def __init__(self) -> None:
        self._places = [b""] * PLACES
        self._odd: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        bits = _bits(key)
        if bits is None:
            return key in self._odd
        return _find(self._places[bits[0] << 8 | bits[1]], bits[2:], _REST) >= 0

    def add(self, key: str) -> bool:
        """Put a key in; tell whether it is new."""
        bits = _bits(key)
        if bits is None:
            new = key not in self._odd
            self._odd.add(key)
        else:
            place, rest = bits[0] << 8 | bits[1], bits[2:]
            bucket = self._places[place]
            new = rest not in bucket or _find(bucket, rest, _REST) < 0
            if new:
                self._places[place] = bucket + rest
        self._count += new
        return new

    def fill(self, places: Iterable[tuple[int, bytes]]) -> None:
        """Add keys of which none is here yet: for each place, what follows its 16 bits, joined."""
        for place, rests in places:
            self._places[place] += rests
            self._count += len(rests) // _REST


class KeyCounts:
    """How often keys were seen, beside each key."""

    def __init__(self) -> None:
        self._places = [b""] * PLACES
        self._odd: dict[str, int] = {}

    def add(self, key: str) -> int:
        """Count a key once more; return how often it was seen before."""
        bits = _bits(key)
        if bits is None:
            before = self._odd.get(key, 0)
            self._odd[key] = before + 1
            return before
        place, rest = bits[0] << 8 | bits[1], bits[2:]
        bucket = self._places[place]
        at = _find(bucket, rest, _REST + _CODE)
        if at < 0:
            self._places[place] = bucket + rest + (1).to_bytes(_CODE, "big")
            return 0
        start, end = at + _REST, at + _REST + _CODE
        before = int.from_bytes(bucket[start:end], "big")
        self._places[place] = bucket[:start] + (before + 1).to_bytes(_CODE, "big") + bucket[end:]
        return before


class IdSet:
    """Hashes of ids: good enough to tell people how many repeat."""

    def __init__(self) -> None:
        self._places = [b""] * PLACES

    def add(self, text: str) -> bool:
        """Put an id in; tell whether it is new."""
        bits = (hash(text) & (2**64 - 1)).to_bytes(8, "little")
        place, rest = bits[0] << 8 | bits[1], bits[2:]
        bucket = self._places[place]
        if rest in bucket and _find(bucket, rest, len(rest)) >= 0:
            return False
        self._places[place] = bucket + rest
        return True


class KeyMap(Mapping[str, V], Generic[V]):
    """A value for each key; the different values must be few (they are numbered)."""

    def __init__(self, content: Mapping[str, V] | None = None) -> None:
        self._places = [b""] * PLACES
        self._odd: dict[str, V] = {}
        self._values: list[V] = []
        self._numbers: dict[V, int] = {}
        self._count = 0
        for key, value in (content or {}).items():
            self[key] = value

    def __setitem__(self, key: str, value: V) -> None:
        bits = _bits(key)
        if bits is None:
            self._count += key not in self._odd
            self._odd[key] = value
            return
        place, rest, code = bits[0] << 8 | bits[1], bits[2:], self.number(value).to_bytes(_CODE, "big")
        bucket = self._places[place]
        at = _find(bucket, rest, _REST + _CODE)
        if at < 0:
            self._places[place] = bucket + rest + code
            self._count += 1
        else:
            self._places[place] = bucket[: at + _REST] + code + bucket[at + _REST + _CODE :]

    def number(self, value: V) -> int:
        """Return the number of a value; a new one gets the next."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self._values)
            self._values.append(value)
        return number

    def fill(self, places: Iterable[tuple[int, bytes]]) -> None:
        """Add keys of which none is here yet: for each place, what follows its 16 bits and the value's number, joined.

        The numbers are 4 bytes, the highest first.
        """
        for place, records in places:
            self._places[place] += records
            self._count += len(records) // (_REST + _CODE)

    def get(self, key: str, default: V | None = None) -> V | None:  # type: ignore[override]  # no other default is used
        """Return the value of a key, or the default."""
        if not self._count:
            return default
        bits = _bits(key)
        if bits is None:
            return self._odd.get(key, default)
        bucket = self._places[bits[0] << 8 | bits[1]]
        at = _find(bucket, bits[2:], _REST + _CODE)
        if at < 0:
            return default
        return self._values[int.from_bytes(bucket[at + _REST : at + _REST + _CODE], "big")]

    def __getitem__(self, key: str) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        step = _REST + _CODE
        for place, bucket in enumerate(self._places):
            for at in range(0, len(bucket), step):
                yield f"{_PREFIX}{place:04x}{bucket[at : at + _REST].hex()}"
        yield from self._odd

    def __len__(self) -> int:
        return self._count
