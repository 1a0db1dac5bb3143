"""What providers say was used: their exports, read into one form. One file per vendor; each lists its shapes.

A shape is recognised by what is in the file, never by its name. Money is parsed as text, so no digit is lost.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import InputError
from pipeline.usage_exports._document import Document, read_document
from pipeline.usage_exports._shape import FIGURES, Export, Shape, UsageLine
from pipeline.usage_exports._together import by_days, covered, cut_off, notes_of

__all__ = ["FIGURES", "Export", "UsageLine", "by_days", "covered", "cut_off", "notes_of", "read_export"]


def read_export(path: Path, columns: Mapping[str, str] | None = None) -> Export:
    """Read a provider's export; `columns` says which column of a CSV holds the day, the model and the figures.

    A file without these columns may still have our names, or be a vendor's own. Raises InputError for a file of no
    known shape, one that can't be read to its end, or one without a figure that is no page on which nothing was used.
    """
    document = read_document(path)
    for shape, said in _ways(columns or {}):
        if shape.matches(document, said):
            found = shape.read(document, said)
            if not found.pages and not any(line.told for line in found.lines):
                raise InputError(f"{path}: {shape.name}, but no usage in it; export a period that has some")
            return Export(
                path, document.digest, shape.name, shape.provider, found.lines, found.spans, found.notes, found.pages
            )
    raise InputError(_unknown(document, columns or {}))


def _ways(columns: Mapping[str, str]) -> list[tuple[Shape, Mapping[str, str]]]:
    """Return what a file is tried as: first as a plain CSV with the columns that were named, if any were."""
    shapes = _shapes()
    named = [(shape, columns) for shape in shapes if shape.provider is None and columns]
    return [*named, *((shape, {}) for shape in shapes)]


def _shapes() -> list[Shape]:
    """Every vendor's shapes; the plain CSV last, since it takes what has our names."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    found = [shape for name in names for shape in importlib.import_module(f"{__name__}.{name}").SHAPES]
    return sorted(found, key=lambda shape: shape.provider is None)


def _unknown(document: Document, columns: Mapping[str, str]) -> str:
    header = ", ".join(document.header)
    missing = [name for name in columns.values() if name not in document.header]
    if header and missing:
        return f"{document.path}: there is no column {missing[0]!r}; found: {header}"
    figures = [name for name in FIGURES if name in columns or name in document.header]
    if header and figures and "day" not in columns:
        return (
            f"{document.path}: {figures[0]}, but no column `day`; found: {header}. Say which it is: --columns day=..."
        )
    found = f"the columns {header}" if header else document.keys
    wanted = "".join(f"\n  {shape.name}: {shape.wants}" for shape in _shapes())
    return (
        f"{document.path}: this is no usage export that is known. Found: {found}. Known:{wanted}\nFor another CSV say"
        " which column is which: --columns day=...,model=...,input_tokens=...,usd=..."
    )
