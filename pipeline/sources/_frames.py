"""The one place that runs a Polars scan in bounded memory: `collect_batches` is marked unstable in Polars."""

from collections.abc import Iterator

import polars as pl

from pipeline.sources._formats import CHUNK_ROWS

FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What Polars raises; a panic is not even an `Exception`."""


def frames(scan: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the scan's rows in order, at most CHUNK_ROWS at a time; dropping the iterator ends the scan."""
    yield from scan.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True)


def reason(error: BaseException) -> str:
    """Return what Polars says, in one short line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
