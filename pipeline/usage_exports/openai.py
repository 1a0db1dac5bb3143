"""OpenAI: the organization's usage and costs, as its admin API answers them or its dashboard exports them.

Cached tokens are part of the input tokens. Costs name the model in their line item only.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from pipeline.usage_exports._document import Document, results_of
from pipeline.usage_exports._shape import (
    Found,
    Shape,
    UsageLine,
    check_currency,
    columns_text,
    count_of,
    cut_off,
    day_of,
    has_columns,
    left_out,
    model_of,
    number_of,
)

_COMPLETIONS = "organization.usage.completions.result"
_USAGE = frozenset({"input_tokens", "output_tokens", "num_model_requests"})
_COSTS = frozenset({"amount_value", "line_item"})
_LINE_ITEM = re.compile(r"(?:[^|]*\|)?\s*([^\s,|]+)(?: [^,]*)?,.*")
"""`gpt-4o-mini-2024-07-18, cached input`, `priority | gpt-5, output, long context`, `gpt-audio audio, input`."""


def _is_pages(document: Document, _: Mapping[str, str]) -> bool:
    return any("start_time" in bucket for bucket in document.buckets)


def _read_pages(document: Document, _: Mapping[str, str]) -> Found:
    lines: list[UsageLine] = []
    days = set()
    others = 0
    for bucket in document.buckets:
        day = day_of(bucket.get("start_time"), document)
        days.add(day)
        for result in results_of(bucket):
            if isinstance(result.get("amount"), dict):
                amount = result["amount"]
                check_currency(amount.get("currency"), document)
                model = _model_in(result.get("line_item"))
                lines.append(UsageLine(day, model, usd=number_of(amount.get("value"), document)))
            elif result.get("object", _COMPLETIONS) == _COMPLETIONS and "input_tokens" in result:
                lines.append(_usage(result, day, document))
            else:
                others += 1
    return Found(lines, frozenset(days), (*cut_off(document), *left_out(others, "embeddings, images and so on")))


def _read_usage_csv(document: Document, _: Mapping[str, str]) -> Found:
    dated = [(day_of(_started(row), document), row) for row in document.rows]
    lines = [_usage(row, day, document) for day, row in dated if row.get("num_model_requests")]
    return Found(lines, frozenset(day for day, _ in dated))


def _read_costs_csv(document: Document, _: Mapping[str, str]) -> Found:
    lines, days = [], set()
    for row in document.rows:
        day = day_of(_started(row), document)
        days.add(day)
        check_currency(row.get("amount_currency"), document)
        usd = number_of(row.get("amount_value"), document)
        if usd is not None:  # a day without costs has a row without an amount
            lines.append(UsageLine(day, _model_in(row.get("line_item")), usd=usd))
    return Found(lines, frozenset(days))


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
        _is_pages,
        _read_pages,
    ),
    Shape("OpenAI's usage (CSV)", "openai", columns_text(_USAGE), has_columns(_USAGE), _read_usage_csv),
    Shape("OpenAI's costs (CSV)", "openai", columns_text(_COSTS), has_columns(_COSTS), _read_costs_csv),
)
