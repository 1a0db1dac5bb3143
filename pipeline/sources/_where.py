"""The filter of an input: Polars SQL, asked about one row at a time, so that it can be asked in batches."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import polars as pl

from pipeline.errors import InputError
from pipeline.sources._frames import FAILURES, reason

Kind = Literal["null", "bool", "int", "float", "text"]

_DTYPES: dict[Kind, type[pl.DataType]] = {
    "null": pl.Null,
    "bool": pl.Boolean,
    "int": pl.Int64,
    "float": pl.Float64,
    "text": pl.String,
}
_ADVICE = (
    (re.compile("to a string value"), "write date '2026-01-31', timestamp '2026-01-31 18:30:00' or time '18:30:00'"),
    (re.compile(r"Datetime\('\w+', '"), "write cast(NAME as timestamp) for a column with a time zone: that is its UTC"),
    (re.compile(r"cs\.matches\("), "a column whose name looks like ^...$ can't be named here"),
)
"""What helps where Polars says this."""
_INT64 = range(-(2**63), 2**63)


class Where:
    """A condition, and the types it has met so far. Use a fresh one for each scan.

    JSON has no column types, so a column is what its values are: integers, numbers, true and false, or else text
    (strings as they are, everything else as its JSON). A column that was text once stays text in later batches.
    """

    def __init__(self, text: str) -> None:
        """Parse the condition. Raises InputError."""
        self._text = text
        try:
            self.expr = pl.sql_expr(text)
            self.names = tuple(dict.fromkeys(self.expr.meta.root_names()))
            alone = _sees_one_row(self.expr)
        except FAILURES as error:
            raise self.error(reason(error)) from error
        if not alone:
            raise self.error(
                "it looks at more than one row; use no aggregates, windows or sub-queries, and x::date for date(x)"
            )
        self._kinds: dict[str, Kind] = dict.fromkeys(self.names, "null")

    def learn(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Meet these rows' types: of all rows in order, also of those that nobody asks about."""
        for name in self.names:
            self._kinds[name] = _wider(self._kinds[name], _kind([row.get(name) for row in rows]))

    def select(self, rows: Sequence[Mapping[str, Any]], place: str) -> list[bool]:
        """Say for each row, met before, whether it is selected. Raises InputError that names the place."""
        try:
            answer = self._answer(rows, pl.Null)
        except FAILURES:
            try:
                # Some functions take no column of nothing but nulls unless it has a type.
                answer = self._answer(rows, pl.String)
            except pl.exceptions.StructFieldNotFoundError as error:
                raise self.error(
                    f"objects are texts here, as JSON, and have no field {reason(error)!r} ({place}); write NAME like"
                    ' \'%"field":"value"%\''
                ) from error
            except FAILURES as error:
                raise self.error(f"{reason(error)} ({place})") from error
        if answer.dtype not in (pl.Boolean, pl.Null):
            raise self.not_a_condition(answer.dtype)
        return [value is True for value in answer.to_list()]

    def _answer(self, rows: Sequence[Mapping[str, Any]], empty: type[pl.DataType]) -> pl.Series:
        columns = [self._column(name, rows, empty) for name in self.names]
        counter = pl.Series("_" + "".join(self.names), range(len(rows)))  # gives constants their height
        return pl.DataFrame([*columns, counter]).with_columns(self.expr.alias(counter.name)).get_column(counter.name)

    def _column(self, name: str, rows: Sequence[Mapping[str, Any]], empty: type[pl.DataType]) -> pl.Series:
        kind = self._kinds[name]
        values = [row.get(name) for row in rows]
        if kind == "text":
            values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
        elif kind == "float":
            values = [None if value is None else float(value) for value in values]
        return pl.Series(name, values, dtype=empty if kind == "null" else _DTYPES[kind])

    def not_a_condition(self, dtype: pl.DataType) -> InputError:
        """Return the error for an expression that doesn't answer yes or no."""
        return self.error(f"it must be true or false for each row, and is {dtype}")

    def error(self, why: str) -> InputError:
        """Return an error that shows the condition, and what helps if that is known."""
        advice = "".join(f"; {what}" for said, what in _ADVICE if said.search(why))
        return InputError(f"[input] where = {self._text!r} can't be used: {why}{advice}")


def _sees_one_row(expr: pl.Expr) -> bool:
    inputs = expr.meta.pop()
    if not inputs and expr.meta.is_literal():
        return True
    try:
        alone = expr.meta.is_row_separable()
    except pl.exceptions.ColumnNotFoundError:
        alone = True  # `IN` looks its column up even here; its inputs are judged below
    return alone and all(_sees_one_row(each) for each in inputs)


def _kind(values: Sequence[Any]) -> Kind:
    types = set(map(type, values)) - {type(None)}
    if not types:
        return "null"
    if types == {bool}:
        return "bool"
    if types == {int} and all(value is None or value in _INT64 for value in values):
        return "int"
    return "float" if types <= {int, float} else "text"


def _wider(one: Kind, other: Kind) -> Kind:
    kinds = {one, other} - {"null"}
    if len(kinds) < 2:  # noqa: PLR2004 - the kinds agree
        return next(iter(kinds), "null")
    return "float" if kinds == {"int", "float"} else "text"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
