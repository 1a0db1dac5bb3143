"""How the values of columns are nested. Polars bends what differs: an object becomes a text, a number an object."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

_PLAIN = "plain values"
_NESTED = (dict, list)
_Shape = str | list[Any] | dict[str, Any] | None
"""_PLAIN, a list of the shape of its elements, the shapes of an object's values by name; None is not known yet."""


class Misfit(Exception):
    """A column's values are nested in different ways."""


class Shapes:
    """What the columns of all rows so far look like."""

    def __init__(self, known: Collection[str]) -> None:
        """Leave the `known` columns alone."""
        self._known = frozenset(known)
        self._shapes: dict[str, _Shape] = {}

    def take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in more rows. Raises Misfit."""
        known, shapes = self._known, self._shapes
        for row in rows:
            for name, value in row.items():
                if name in known or (shapes.get(name) is _PLAIN and not isinstance(value, _NESTED)):
                    continue
                try:
                    shapes[name] = _folded(shapes.get(name), value)
                except Misfit as misfit:
                    raise Misfit(f"{name!r} holds {misfit}") from None
                except RecursionError:
                    raise Misfit(f"{name!r} holds values that are nested too deeply") from None


def _folded(shape: _Shape, value: Any) -> _Shape:
    """Return the shape of what had one already and of one more value."""
    if value is None:
        return shape
    if isinstance(value, dict):
        fields = {} if shape is None else shape
        if not isinstance(fields, dict):
            raise _misfit(shape, value)
        for name, each in value.items():
            fields[name] = _folded(fields.get(name), each)
        return fields
    if isinstance(value, list):
        elements = [None] if shape is None else shape
        if not isinstance(elements, list):
            raise _misfit(shape, value)
        for each in value:
            if elements[0] is not _PLAIN or isinstance(each, _NESTED):  # else it is one of many numbers
                elements[0] = _folded(elements[0], each)
        return elements
    if shape is not None and shape is not _PLAIN:
        raise _misfit(shape, value)
    return _PLAIN


def _misfit(shape: _Shape, value: Any) -> Misfit:
    return Misfit(f"{_kind(shape)} in some rows and {_kind(value)} in others")


def _kind(value: Any) -> str:
    return "objects" if isinstance(value, dict) else "lists" if isinstance(value, list) else _PLAIN
