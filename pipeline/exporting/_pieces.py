"""Frames that wait on the disk until it is known which columns they have together, and of which types."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from polars.datatypes import DataTypeClass


class MixedTypes(Exception):
    """A column holds nested values in some rows, and others, or nested ones of another kind, elsewhere."""


class Pieces:
    """Frames in a folder. Together they have all columns, in order of appearance, of types that hold all values."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._none = pl.DataFrame()
        """A frame without rows that has the columns of all pieces."""

    def add(self, frame: pl.DataFrame) -> None:
        """Put a frame behind the others. Raises MixedTypes, and what Polars does where no type holds both."""
        for name in frame.columns:
            if _mixed(self._none.schema.get(name, pl.Null()), frame.schema[name]):
                raise MixedTypes(f"{name!r} holds {self._none.schema[name]} and {frame.schema[name]}")
        self._none = pl.concat([self._none, frame.clear()], how="diagonal_relaxed")
        path = self._folder / f"{len(self._paths):09}.arrow"
        frame.write_ipc(path, compression="zstd")
        self._paths.append(path)

    def whole(self) -> pl.LazyFrame:
        """Return all rows in order, to be streamed somewhere."""
        return pl.concat([self._none.lazy(), *map(_scan, self._paths)], how="diagonal_relaxed")

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the frames, all with the same columns now."""
        for path in self._paths:
            yield pl.concat([self._none, _scan(path).collect()], how="diagonal_relaxed")


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_ipc(path, glob=False, hive_partitioning=False)  # whatever the folders above are called


def _mixed(one: pl.DataType | DataTypeClass, other: pl.DataType | DataTypeClass) -> bool:
    """Tell whether something nested would have to become something else: Polars would write it as a text."""
    if pl.Null() in (one, other):
        return False
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields = {field.name: field.dtype for field in one.fields}
        return any(_mixed(fields.get(each.name, pl.Null()), each.dtype) for each in other.fields)
    if isinstance(one, pl.List) and isinstance(other, pl.List):
        return _mixed(one.inner, other.inner)
    return (one.is_nested() or other.is_nested()) and one != other


@contextmanager
def pieces_beside(output: Path) -> Iterator[Pieces]:
    """Keep pieces in a folder hidden beside the output, and take it away again."""
    folder = output.with_name(f".{output.name}.pieces")
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    folder.mkdir()
    try:
        yield Pieces(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
