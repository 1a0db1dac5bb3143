"""OpenAI: the organization's usage and costs, as its admin API answers them or its dashboard exports them.

Cached tokens are part of the input tokens. Costs name the model in their line item only.
"""

import re
from datetime import date
from typing import Any

from pipeline.usage_exports._document import Document
from pipeline.usage_exports._shape import (
    Kind,
    Said,
    Shape,
    UsageLine,
    columns_text,
    has_buckets,
    has_columns,
    reads_pages,
    reads_rows,
)
from pipeline.usage_exports._values import check_currency, count_of, model_of, number_of

_COMPLETIONS = "organization.usage.completions.result"
_USAGE = frozenset({"input_tokens", "output_tokens", "num_model_requests"})
_COSTS = frozenset({"amount_value", "line_item"})
_LINE_ITEM = re.compile(r"(?:[^|]*\|)?\s*([^\s,|]+)(?: [^,]*)?,.*")
"""`gpt-4o-mini-2024-07-18, cached input`, `priority | gpt-5, output, long context`, `gpt-audio audio, input`."""


def _is_chat(said: Said) -> bool:
    return said.get("object", _COMPLETIONS) == _COMPLETIONS and "input_tokens" in said


def _usage(said: Said, day: date, document: Document) -> UsageLine:
    return UsageLine(
        day,
        model_of(said.get("model")),
        requests=count_of(said.get("num_model_requests"), document),
        input_tokens=count_of(said.get("input_tokens"), document),
        cached_input_tokens=count_of(said.get("input_cached_tokens"), document),
        output_tokens=count_of(said.get("output_tokens"), document),
    )


def _costs(said: Said, day: date, document: Document) -> UsageLine:
    check_currency(said.get("amount.currency"), document)
    return UsageLine(day, _model_in(said.get("line_item")), usd=number_of(said.get("amount.value"), document))


def _row_of_costs(row: Said, day: date, document: Document) -> UsageLine:
    check_currency(row.get("amount_currency"), document)
    return UsageLine(day, _model_in(row.get("line_item")), usd=number_of(row.get("amount_value"), document))


def _model_in(line_item: Any) -> str | None:
    """Return the model a line item names; the whole item where it names none (`web search tool calls`)."""
    if not line_item:
        return None
    named = _LINE_ITEM.fullmatch(str(line_item))
    return named[1] if named else str(line_item).strip()


_TOKENS = Kind(
    "usage",
    _usage,
    {
        "requests": ("num_model_requests",),
        "input_tokens": ("input_tokens",),
        "cached_input_tokens": ("input_cached_tokens",),
        "output_tokens": ("output_tokens",),
    },
    # The text of what is compared, and whether it went by batch.
    frozenset(
        {"input_uncached_tokens", "input_text_tokens", "input_cached_text_tokens", "output_text_tokens", "batch"}
    ),
    _is_chat,
)
# A cost's quantity is what it was charged for: tokens, of which the usage export tells.
_MONEY = Kind("costs", _costs, {"usd": ("amount.value",)}, frozenset({"quantity"}), lambda said: "amount.value" in said)
_MONEY_ROWS = Kind("costs", _row_of_costs, {"usd": ("amount_value",)}, frozenset({"quantity"}))
_STARTED, _ENDED = ("start_time", "start_time_iso"), ("end_time", "end_time_iso")

SHAPES = (
    Shape(
        "OpenAI's usage and costs (JSON)",
        "openai",
        "buckets with start_time and results, from /v1/organization/usage/completions or /v1/organization/costs",
        has_buckets("start_time"),
        reads_pages("start_time", "end_time", (_MONEY, _TOKENS), "embeddings, images and so on"),
    ),
    Shape(
        "OpenAI's usage (CSV)",
        "openai",
        columns_text(_USAGE),
        has_columns(_USAGE),
        reads_rows(_TOKENS, _STARTED, _ENDED),
    ),
    Shape(
        "OpenAI's costs (CSV)",
        "openai",
        columns_text(_COSTS),
        has_columns(_COSTS),
        reads_rows(_MONEY_ROWS, _STARTED, _ENDED),
    ),
)
