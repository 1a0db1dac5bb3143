"""Frames that wait on the disk until it is known which columns they have together, and of which types."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl


class Pieces:
    """Frames in a folder. Together they have all columns, in order of appearance, of types that hold all values."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._none = pl.DataFrame()
        """A frame without rows that has the columns of all pieces."""

    def add(self, frame: pl.DataFrame) -> None:
        """Put a frame behind the others. Raises what Polars does where no type holds all values of a column."""
        self._none = pl.concat([self._none, frame.clear()], how="diagonal_relaxed")
        path = self._folder / f"{len(self._paths):09}.arrow"
        frame.write_ipc(path, compression="lz4")
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
