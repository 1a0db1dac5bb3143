"""What a Parquet file says of its columns and Polars does not: which bytes are JSON text or UUIDs.

The end of a file holds its schema (https://github.com/apache/parquet-format, `FileMetaData`) in Thrift's compact
protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). Of the libraries that read
it, DuckDB belongs to the ledger alone, and pyarrow is larger than all of this project's dependencies together.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

Meaning = Literal["text", "uuid", "interval", "variant"]

_MAGIC = b"PAR1"
_TAIL = 8
"""Bytes behind the footer: its length, and the magic."""
_SCHEMA = 2
_NAME, _CHILDREN, _CONVERTED, _LOGICAL = 4, 5, 6, 10
"""The fields of a `SchemaElement`."""
_CONVERTED_TYPES: dict[int, Meaning] = {4: "text", 19: "text", 21: "interval"}
"""ENUM, JSON, INTERVAL."""
_LOGICAL_TYPES: dict[int, Meaning] = {4: "text", 12: "text", 14: "uuid", 16: "variant"}
"""ENUM, JSON, UUID, VARIANT."""

_DAMAGED = (LookupError, ValueError, TypeError, AttributeError, OverflowError, StopIteration, RecursionError)
"""What comes of bytes that are no footer."""


class Leaf(NamedTuple):
    """A column of plain values, perhaps inside of lists and structs."""

    column: str
    """The name of the whole column."""
    meaning: Meaning | None
    """None where Polars knows it all."""


def leaves(file: Path) -> list[Leaf] | None:
    """Return the leaves of a file's columns in order, a variant as one; None if this is no footer. Raises OSError."""
    try:
        root, *elements = _schema(_footer(file))
        columns = iter(elements)
        return [leaf for _ in range(root[_CHILDREN]) for leaf in _column(columns, None)]
    except _DAMAGED:
        return None  # Polars says what is wrong


def _footer(file: Path) -> BytesIO:
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL))
        length, magic = stream.read(4), stream.read(4)
        if magic != _MAGIC:
            raise ValueError
        start = size - _TAIL - int.from_bytes(length, "little")
        if start < 0:
            raise ValueError
        stream.seek(start)
        return BytesIO(stream.read())


def _schema(footer: BytesIO) -> list[dict[int, Any]]:
    return next(value for number, value in _fields(footer) if number == _SCHEMA)


def _column(elements: Iterator[dict[int, Any]], column: str | None) -> list[Leaf]:
    """Return the leaves of the next element, which is a column unless it is part of one."""
    element = next(elements)
    name = element[_NAME].decode() if column is None else column
    below = [leaf for _ in range(element.get(_CHILDREN, 0)) for leaf in _column(elements, name)]
    (logical,) = element.get(_LOGICAL) or (None,)
    meaning = _LOGICAL_TYPES.get(logical) or _CONVERTED_TYPES.get(element.get(_CONVERTED))  # type: ignore[arg-type]  # None
    return below if below and meaning is None else [Leaf(name, meaning)]


def _fields(stream: BytesIO) -> Iterator[tuple[int, Any]]:
    number = 0
    while head := stream.read(1)[0]:
        number = number + (head >> 4) if head >> 4 else _integer(stream)
        yield number, _value(stream, head & 15)


def _value(stream: BytesIO, kind: int) -> Any:
    match kind:
        case 1 | 2:
            return kind == 1
        case 3:
            return stream.read(1)[0]
        case 4 | 5 | 6:
            return _integer(stream)
        case 8:
            return stream.read(_unsigned(stream))
        case 9:
            return _list(stream)
        case 12:
            return dict(_fields(stream))
    raise ValueError(kind)  # none that stands before or in a schema


def _list(stream: BytesIO) -> list[Any]:
    head = stream.read(1)[0]
    size, kind = head >> 4, head & 15
    if size == 15:  # noqa: PLR2004 -- it does not fit there
        size = _unsigned(stream)
    if size > len(stream.getbuffer()):  # each takes a byte at least
        raise ValueError
    return [stream.read(1)[0] == 1 if kind in (1, 2) else _value(stream, kind) for _ in range(size)]


def _integer(stream: BytesIO) -> int:
    coded = _unsigned(stream)
    return coded >> 1 ^ -(coded & 1)


def _unsigned(stream: BytesIO) -> int:
    number = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)[0]
        number |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 -- the highest bit says that more follows
            return number
    raise ValueError
