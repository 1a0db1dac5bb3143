"""What providers say was used: their exports, read into one form. One file per vendor; each lists its shapes.

A shape is recognised by what is in the file, never by its name. Money is parsed as text, so no digit is lost.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.errors import InputError
from pipeline.usage_exports._document import Document, read_document
from pipeline.usage_exports._shape import FIGURES, Shape, UsageLine

__all__ = ["FIGURES", "Export", "UsageLine", "read_export"]


@dataclass(frozen=True, slots=True)
class Export:
    """What a file says."""

    path: Path
    digest: str
    """Equal for files that hold the same."""
    shape: str
    """The shape's name, for people."""
    provider: str | None
    """Whose it is, by the name of our preset; None: a plain CSV doesn't say."""
    lines: Sequence[UsageLine]
    """In the file's order; several may be about the same day and model."""
    days: frozenset[date]
    """UTC days the file speaks about, also those without usage."""
    notes: Sequence[str]
    """What is known to be missing from it."""


def read_export(path: Path, columns: Mapping[str, str] | None = None) -> Export:
    """Read a provider's export; `columns` says which column of a CSV holds the day, the model and the figures.

    Raises InputError for a file of no known shape, or one that can't be read to its end.
    """
    document = read_document(path)
    shapes = [shape for shape in _shapes() if not columns or shape.provider is None]
    for shape in shapes:
        if shape.matches(document, columns or {}):
            found = shape.read(document, columns or {})
            if not found.lines:
                raise InputError(f"{path}: {shape.name}, but no usage in it; export a period that has some")
            days = found.days | {line.day for line in found.lines}
            return Export(path, document.digest, shape.name, shape.provider, found.lines, days, found.notes)
    raise InputError(_unknown(document, columns or {}, shapes))


def _shapes() -> list[Shape]:
    """Every vendor's shapes; the plain CSV last, since it takes what is named for it."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    found = [shape for name in names for shape in importlib.import_module(f"{__name__}.{name}").SHAPES]
    return sorted(found, key=lambda shape: shape.provider is None)


def _unknown(document: Document, columns: Mapping[str, str], shapes: Sequence[Shape]) -> str:
    missing = [name for name in columns.values() if name not in document.header]
    if columns and document.header and missing:
        return f"{document.path}: there is no column {missing[0]!r}; found: {', '.join(document.header)}"
    found = f"the columns {', '.join(document.header)}" if document.header else document.keys
    wanted = "".join(f"\n  {shape.name}: {shape.wants}" for shape in shapes)
    return (
        f"{document.path}: this is no usage export that is known. Found: {found}. Known:{wanted}\nFor another CSV say"
        " which column is which: --columns day=...,model=...,input_tokens=...,usd=..."
    )
