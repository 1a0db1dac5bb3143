"""Texts that a spreadsheet would run as formulas, made harmless."""

from itertools import count

import polars as pl

_FORMULA = r"""^[\s\x00"'\u{feff}\u{200b}]*[=+\-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}]|^[\t\r]"""
"""How a text begins that a spreadsheet would run, also behind blanks, quotes and in full width."""
_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"


def guard(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Put an apostrophe before every text that a spreadsheet would run as a formula; return how many there were."""
    names, guarded = _guarded(pl.Series(frame.columns, dtype=pl.String))
    columns = []
    for column, name in zip(frame.get_columns(), _told_apart(names.to_list()), strict=True):
        cells, more = _guarded(column) if column.dtype == pl.String else (column, 0)
        columns.append(cells.alias(name))
        guarded += more
    return pl.DataFrame(columns), guarded


def _guarded(texts: pl.Series) -> tuple[pl.Series, int]:
    texts = texts.alias("")  # `^x$` and `*` are patterns to Polars
    runs = _runs(texts)
    return texts.zip_with(~runs, "'" + texts), int(runs.sum())


def _told_apart(names: list[str]) -> list[str]:
    """Give equal names a number: a guarded name may be that of another column."""
    kept: list[str] = []
    for name in names:
        kept.append(next(free for n in count(1) if (free := name if n == 1 else f"{name}_{n}") not in kept))
    return kept


def _runs(texts: pl.Series) -> pl.Series:
    return (texts.str.contains(_FORMULA) & ~texts.str.contains(_NUMBER)).fill_null(value=False)
