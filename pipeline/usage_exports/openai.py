"""OpenAI: the organization's usage and costs, as its admin API answers them or its dashboard exports them.

Cached tokens are part of the input tokens. Costs name the model in their line item only.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from pipeline.usage_exports._document import Document
from pipeline.usage_exports._shape import (
    Shape,
    UsageLine,
    check_currency,
    columns_text,
    count_of,
    has_buckets,
    has_columns,
    model_of,
    number_of,
    reads_pages,
    reads_rows,
)

_COMPLETIONS = "organization.usage.completions.result"
_USAGE = frozenset({"input_tokens", "output_tokens", "num_model_requests"})
_COSTS = frozenset({"amount_value", "line_item"})
_LINE_ITEM = re.compile(r"(?:[^|]*\|)?\s*([^\s,|]+)(?: [^,]*)?,.*")
"""`gpt-4o-mini-2024-07-18, cached input`, `priority | gpt-5, output, long context`, `gpt-audio audio, input`."""


def _line(said: Mapping[str, Any], day: date, document: Document) -> UsageLine | None:
    amount = said.get("amount")
    if isinstance(amount, dict):
        check_currency(amount.get("currency"), document)
        return UsageLine(day, _model_in(said.get("line_item")), usd=number_of(amount.get("value"), document))
    is_chat = said.get("object", _COMPLETIONS) == _COMPLETIONS and "input_tokens" in said
    return _usage(said, day, document) if is_chat else None


def _row_of_usage(row: Mapping[str, Any], day: date, document: Document) -> UsageLine | None:
    return _usage(row, day, document) if row.get("num_model_requests") else None


def _row_of_costs(row: Mapping[str, Any], day: date, document: Document) -> UsageLine | None:
    check_currency(row.get("amount_currency"), document)
    usd = number_of(row.get("amount_value"), document)
    return None if usd is None else UsageLine(day, _model_in(row.get("line_item")), usd=usd)


def _usage(said: Mapping[str, Any], day: date, document: Document) -> UsageLine:
    return UsageLine(
        day,
        model_of(said.get("model")),
        requests=count_of(said.get("num_model_requests"), document),
        input_tokens=count_of(said.get("input_tokens"), document),
        cached_input_tokens=count_of(said.get("input_cached_tokens"), document),
        output_tokens=count_of(said.get("output_tokens"), document),
    )


def _started(row: Mapping[str, str]) -> str:
    return row.get("start_time") or row.get("start_time_iso") or ""


def _model_in(line_item: Any) -> str | None:
    """Return the model a line item names; the whole item where it names none (`web search tool calls`)."""
    if not line_item:
        return None
    named = _LINE_ITEM.fullmatch(str(line_item))
    return named[1] if named else str(line_item).strip()


SHAPES = (
    Shape(
        "OpenAI's usage and costs (JSON)",
        "openai",
        "buckets with start_time and results, from /v1/organization/usage/completions or /v1/organization/costs",
        has_buckets("start_time"),
        reads_pages("start_time", _line, "embeddings, images and so on"),
    ),
    Shape(
        "OpenAI's usage (CSV)", "openai", columns_text(_USAGE), has_columns(_USAGE), reads_rows(_started, _row_of_usage)
    ),
    Shape(
        "OpenAI's costs (CSV)", "openai", columns_text(_COSTS), has_columns(_COSTS), reads_rows(_started, _row_of_costs)
    ),
)
