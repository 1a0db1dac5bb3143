"""What the values of Parquet columns become: as JSON has them, exactly, apart from decimals, which stay `Decimal`.

Dates, times and durations are ISO 8601 text (`infinity` and `-infinity` where a database wrote that), JSON is its text,
UUIDs are text, other bytes are base64 text, categories are text, whole columns of 32-bit floats are the shortest
numbers that mean them (0.1, not 0.10000000149), lists, structs and maps are lists and dicts.
"""

import base64
import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, repeat
from typing import Any

import polars as pl
from polars import selectors
from polars.datatypes import DataTypeClass

from pipeline.sources._footer import Leaf, Meaning
from pipeline.text import PlainDecimal, decimal_text

Schema = Mapping[str, pl.DataType]
Turn = Callable[[Any], Any]
_Type = pl.DataType | DataTypeClass
_Meanings = Iterator[Meaning | None]
_DIGITS_SHOWN = 6
"""Behind the point: Python writes decimals that have more with an exponent, if they are small."""
_UUID_PARTS = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))


class Meant:
    """What the plain values inside of columns mean, where bytes alone don't say it."""

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        """Take the leaves of all columns in order."""
        self._by_column: dict[str, list[Meaning | None]] = {}
        for column, meaning in leaves:
            self._by_column.setdefault(column, []).append(meaning)

    def of(self, column: str) -> _Meanings:
        """Yield the meanings inside of a column, in order; None for what needs no word."""
        return chain(self._by_column.get(column, ()), repeat(None))


def column_of(name: str) -> pl.Expr:
    """Return the column of this very name: `pl.col` takes `*` and `^...$` for patterns."""
    return selectors.by_name(name).as_expr()


def texts(schema: Schema, meant: Meant) -> dict[str, pl.Expr]:
    """Return what makes text of whole columns of bytes that mean it."""
    found = {}
    for name, dtype in schema.items():
        meaning = next(meant.of(name))
        if dtype == pl.Binary and meaning is not None:
            column = column_of(name)
            found[name] = _uuids(column) if meaning == "uuid" else column.map_batches(_decoded, return_dtype=pl.String)
    return found


def opaque(schema: Schema, meant: Meant) -> list[str]:
    """Name the columns in which some plain values are bytes that mean no text."""
    return [
        name
        for name, dtype in schema.items()
        if any(leaf == pl.Binary and meaning is None for leaf, meaning in zip(_leaf_types(dtype), meant.of(name)))  # noqa: B905 -- one never ends
    ]


def as_json(schema: Schema) -> Iterator[pl.Expr]:
    """Yield what turns whole columns, to the last digit."""
    for name, dtype in schema.items():
        column = column_of(name)
        if dtype == pl.Datetime:
            yield _or_infinity(name, 2**63 - 1, "iso:strict")
        elif dtype == pl.Date:
            yield _or_infinity(name, 2**31 - 1, "iso")
        elif dtype in (pl.Time, pl.Duration):
            yield column.dt.to_string("iso")
        elif dtype in (pl.Categorical, pl.Enum):
            yield column.cast(pl.String)
        elif dtype == pl.Binary:
            yield column.bin.encode("base64")
        elif dtype == pl.Float32:
            yield column.cast(pl.String).cast(pl.Float64)


def with_odd_keys(schema: Schema) -> str | None:
    """Name a column with a map whose keys are lists, objects or maps: no text stands for them."""
    return next((name for name, dtype in schema.items() if _has_odd_keys(dtype)), None)


def turns(schema: Schema, meant: Meant) -> list[tuple[str, Turn]]:
    """Return what turns the values of those columns that Polars can't: nested ones, to the microsecond."""
    return [
        (name, _turn(dtype, meant.of(name))) for name, dtype in schema.items() if dtype.is_nested() or _is_fine(dtype)
    ]


def _uuids(column: pl.Expr) -> pl.Expr:
    digits = column.bin.encode("hex")
    return pl.concat_str([digits.str.slice(start, length) for start, length in _UUID_PARTS], separator="-")


def _decoded(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:  # some are no text, whatever the file says
        return pl.Series(values.name, [None if each is None else _text(each) for each in values], pl.String)


def _or_infinity(name: str, infinity: int, form: str) -> pl.Expr:
    """Write dates as text. The largest number that fits means infinity to databases, and is no date to Polars."""
    column = column_of(name)
    number = column.to_physical()
    return (
        pl.when(number == infinity)
        .then(pl.lit("infinity"))
        .when(number <= -infinity)
        .then(pl.lit("-infinity"))
        .otherwise(pl.when(number.abs() < infinity).then(column).dt.to_string(form))
        .alias(name)
    )


def _is_fine(dtype: _Type) -> bool:
    return isinstance(dtype, pl.Decimal) and dtype.scale > _DIGITS_SHOWN


def _within(dtype: _Type) -> Sequence[_Type]:
    """Return the types that values of a nested one are made of, in the order in which a footer has them."""
    if isinstance(dtype, pl.Struct):
        return [field.dtype for field in dtype.fields]
    if isinstance(dtype, pl.List | pl.Array):
        return [dtype.inner]
    return [dtype.key, dtype.value] if isinstance(dtype, pl.Map) else []


def _has_odd_keys(dtype: _Type) -> bool:
    own = isinstance(dtype, pl.Map) and bool(_within(dtype.key))
    return own or any(map(_has_odd_keys, _within(dtype)))


def _leaf_types(dtype: _Type) -> Iterator[_Type]:
    within = _within(dtype)
    for each in within:
        yield from _leaf_types(each)
    if not within:
        yield dtype


def _turn(dtype: _Type, meanings: _Meanings) -> Turn:
    within = [_turn(each, meanings) for each in _within(dtype)]
    if isinstance(dtype, pl.Struct):
        fields = list(zip([field.name for field in dtype.fields], within, strict=True))
        return _unless_none(lambda value: {name: turn(value[name]) for name, turn in fields})
    if isinstance(dtype, pl.List | pl.Array):
        (element,) = within
        return _unless_none(lambda value: [element(each) for each in value])
    if isinstance(dtype, pl.Map):
        key, content = within
        return _unless_none(lambda value: {_key(key(name)): content(each) for name, each in value.items()})
    meaning = next(meanings)
    if meaning is None:
        return _unless_none(PlainDecimal) if _is_fine(dtype) else _plain
    return _unless_none(_uuid if meaning == "uuid" else _text)


def _unless_none(turn: Turn) -> Turn:
    return lambda value: None if value is None else turn(value)


def _key(name: Any) -> Any:
    return decimal_text(name) if isinstance(name, Decimal) else name


def _text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _uuid(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"PT{value.total_seconds()}S"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
