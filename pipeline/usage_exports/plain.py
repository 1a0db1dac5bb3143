"""Any CSV whose columns are named for it, by `--columns` or because they have our names."""

import re
from collections.abc import Mapping
from datetime import date

from pipeline.usage_exports._document import Document
from pipeline.usage_exports._shape import FIGURES, Found, Kind, Said, Shape, UsageLine, reads_rows
from pipeline.usage_exports._values import check_currency, count_of, model_of, number_of

COLUMNS = ("day", "model", *FIGURES)
_CURRENCY = re.compile(r"currency([ _-]?code)?\s*$", re.IGNORECASE)


def _named(document: Document, columns: Mapping[str, str]) -> dict[str, str]:
    """Return which of the file's columns is which; those that are not said may have our names."""
    ours = {name: name for name in COLUMNS if name in document.header}
    if "day" not in ours and "date" in document.header:
        ours["day"] = "date"
    return ours | dict(columns)


def _is_plain(document: Document, columns: Mapping[str, str]) -> bool:
    named = _named(document, columns)
    known = set(named.values()) <= set(document.header)
    return known and "day" in named and not named.keys().isdisjoint(FIGURES)


def _read(document: Document, columns: Mapping[str, str]) -> Found:
    named = _named(document, columns)
    currencies = [name for name in document.header if _CURRENCY.search(name) and "usd" in named]

    def line_of(row: Said, day: date, place: Document) -> UsageLine:
        said = {name: row[column] for name, column in named.items()}
        for name in currencies if said.get("usd") else ():
            check_currency(row[name], place)
        return _line(said, day, place)

    figures = {figure: (named[figure],) for figure in FIGURES if figure in named}
    beside = frozenset(named[name] for name in ("day", "model") if name in named)
    return reads_rows(Kind("usage", line_of, figures, beside), (named["day"],))(document, columns)


def _line(said: Mapping[str, str], day: date, document: Document) -> UsageLine:
    return UsageLine(
        day,
        model_of(said.get("model")),
        requests=count_of(said.get("requests"), document),
        input_tokens=count_of(said.get("input_tokens"), document),
        cached_input_tokens=count_of(said.get("cached_input_tokens"), document),
        output_tokens=count_of(said.get("output_tokens"), document),
        usd=number_of(said.get("usd"), document),
    )


SHAPES = (Shape("a plain CSV", None, f"columns day, model and one or more of {', '.join(FIGURES)}", _is_plain, _read),)
