"""Anthropic: usage and cost reports, as its admin API answers them or its console exports them.

Input tokens are told apart (uncached, read from the cache, written to it) and added up here: so the ledger counts them.
Requests are not told. The API's amounts are cents.
"""

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

_READ = ("cache_read_input_tokens", "usage_input_tokens_cache_read")
_UNCACHED = ("uncached_input_tokens", "usage_input_tokens_no_cache")
_WRITTEN = (
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_write",
)  # fmt: skip
_OUTPUT = ("output_tokens", "usage_output_tokens")
_USAGE = frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"})
_COSTS = frozenset({"usage_date_utc", "model", "cost_usd"})


def _line(said: Mapping[str, Any], day: date, document: Document) -> UsageLine | None:
    if "amount" in said:
        check_currency(said.get("currency"), document)
        cents = number_of(said["amount"], document)
        model = model_of(said.get("model")) or model_of(said.get("description"))
        return UsageLine(day, model, usd=None if cents is None else cents.scaleb(-2))
    if "uncached_input_tokens" not in said:
        return None
    written = said.get("cache_creation")
    flat = {**said, **written} if isinstance(written, dict) else said
    return _usage(flat, day, said.get("model"), document)


def _row_of_usage(row: Mapping[str, Any], day: date, document: Document) -> UsageLine:
    return _usage(row, day, row["model_version"], document)


def _row_of_costs(row: Mapping[str, Any], day: date, document: Document) -> UsageLine:
    return UsageLine(day, _as_id(row["model"]), usd=number_of(row["cost_usd"], document))


def _day(row: Mapping[str, str]) -> str:
    return row["usage_date_utc"]


def _as_id(name: str) -> str | None:
    """Turn a name into an id: the cost export shows names (`Claude Opus 4.5`) for `claude-opus-4-5`."""
    return model_of(name.strip().lower().replace(" ", "-").replace(".", "-"))


def _usage(said: Mapping[str, Any], day: date, model: Any, document: Document) -> UsageLine:
    cached = _sum(said, _READ, document)
    return UsageLine(
        day,
        model_of(model),
        input_tokens=_sum(said, _UNCACHED, document) + _sum(said, _WRITTEN, document) + cached,
        cached_input_tokens=cached,
        output_tokens=_sum(said, _OUTPUT, document),
    )


def _sum(said: Mapping[str, Any], names: tuple[str, ...], document: Document) -> int:
    return sum(count_of(said.get(name), document) or 0 for name in names)


SHAPES = (
    Shape(
        "Anthropic's usage and costs (JSON)",
        "anthropic",
        "buckets with starting_at and results, from /v1/organizations/usage_report/messages or .../cost_report",
        has_buckets("starting_at"),
        reads_pages("starting_at", _line, "neither usage of messages nor costs"),
    ),
    Shape(
        "Anthropic's usage (CSV)",
        "anthropic",
        columns_text(_USAGE),
        has_columns(_USAGE),
        reads_rows(_day, _row_of_usage),
    ),
    Shape(
        "Anthropic's costs (CSV)",
        "anthropic",
        columns_text(_COSTS),
        has_columns(_COSTS),
        reads_rows(_day, _row_of_costs),
    ),
)
