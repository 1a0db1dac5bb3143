"""Datasets: what an `[input]` section says, and the rows it stands for, in bounded batches.

A new format is one new file in this package; see `_formats.py` for what it states.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.sources._formats import find_format, format_of
from pipeline.sources._select import left_out, select_files
from pipeline.sources._source import Source

__all__ = ["InputSpec", "Source", "is_readable", "left_out", "open_source"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Which rows a job is about. Paths are relative to the current directory."""

    path: str
    """A file, a glob, or a folder (its own files with known endings, hidden ones left out)."""
    format: str | None = None
    """The name of a format; default: by the files' ending."""
    id: str | None = None
    """The column people know a row by; default: the 1-based row number."""
    where: str | None = None
    """A condition in Polars SQL on one row; NULL does not select."""
    limit: int | None = None
    """The first N rows, after `where`; broken rows count too."""
    bad_rows: Literal["stop", "reject"] = "stop"


def open_source(spec: InputSpec) -> Source:
    """Find the files that an input names and check what can be checked unread. Raises InputError."""
    files, format_name = select_files(spec.path, spec.format)
    source = Source(
        files,
        find_format(format_name),
        format_name=format_name,
        id_column=spec.id,
        where=spec.where,
        limit=spec.limit,
        reject=spec.bad_rows == "reject",
    )
    source.check_where()
    return source


def is_readable(file: Path) -> bool:
    """Tell whether a file of this name is read where an input names its folder."""
    return not file.name.startswith(".") and format_of(file) is not None
