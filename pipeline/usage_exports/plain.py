"""Any CSV whose columns are named for it, by `--columns` or because they have our names."""

from collections.abc import Mapping

from pipeline.usage_exports._document import Document
from pipeline.usage_exports._shape import FIGURES, Found, Shape, UsageLine, count_of, day_of, model_of, number_of

COLUMNS = ("day", "model", *FIGURES)


def _named(document: Document, columns: Mapping[str, str]) -> dict[str, str]:
    """Return which of the file's columns is which; those that are not said may have our names."""
    ours = {name: name for name in COLUMNS if name in document.header}
    return ours | dict(columns)


def _is_plain(document: Document, columns: Mapping[str, str]) -> bool:
    named = _named(document, columns)
    known = set(named.values()) <= set(document.header)
    return known and "day" in named and not named.keys().isdisjoint(FIGURES)


def _read(document: Document, columns: Mapping[str, str]) -> Found:
    named = _named(document, columns)
    rows = document.by_line()
    return Found([_line({name: row.get(column) for name, column in named.items()}, at_line) for row, at_line in rows])


def _line(said: Mapping[str, str | None], document: Document) -> UsageLine:
    return UsageLine(
        day_of(said["day"], document),
        model_of(said.get("model")),
        requests=count_of(said.get("requests"), document),
        input_tokens=count_of(said.get("input_tokens"), document),
        cached_input_tokens=count_of(said.get("cached_input_tokens"), document),
        output_tokens=count_of(said.get("output_tokens"), document),
        usd=number_of(said.get("usd"), document),
    )


SHAPES = (Shape("a plain CSV", None, f"columns day, model and one or more of {', '.join(FIGURES)}", _is_plain, _read),)
