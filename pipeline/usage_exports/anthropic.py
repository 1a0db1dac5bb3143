"""Anthropic: usage and cost reports, as its admin API answers them or its console exports them.

Input tokens are told apart (uncached, read from the cache, written to it) and added up here: so the ledger counts them.
Requests are not told. The API's amounts are cents.
"""

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

_READ = ("cache_read_input_tokens", "usage_input_tokens_cache_read")
_UNCACHED = ("uncached_input_tokens", "usage_input_tokens_no_cache")
_WRITTEN = (
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_write",
)  # fmt: skip
_OUTPUT = ("output_tokens", "usage_output_tokens")
_USAGE = frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"})
_COSTS = frozenset({"usage_date_utc", "model", "cost_usd"})


def _is_pages(document: Document, _: Mapping[str, str]) -> bool:
    return any("starting_at" in bucket for bucket in document.buckets)


def _read_pages(document: Document, _: Mapping[str, str]) -> Found:
    lines: list[UsageLine] = []
    days = set()
    others = 0
    for bucket in document.buckets:
        day = day_of(bucket.get("starting_at"), document)
        days.add(day)
        for result in results_of(bucket):
            if "amount" in result:
                check_currency(result.get("currency"), document)
                cents = number_of(result["amount"], document)
                model = model_of(result.get("model")) or model_of(result.get("description"))
                lines.append(UsageLine(day, model, usd=None if cents is None else cents.scaleb(-2)))
            elif "uncached_input_tokens" in result:
                written = result.get("cache_creation")
                flat = {**result, **written} if isinstance(written, dict) else result
                lines.append(_usage(flat, day, result.get("model"), document))
            else:
                others += 1
    return Found(lines, frozenset(days), (*cut_off(document), *left_out(others, "neither usage of messages nor costs")))


def _read_usage_csv(document: Document, _: Mapping[str, str]) -> Found:
    return Found(
        [_usage(row, day_of(row["usage_date_utc"], document), row["model_version"], document) for row in document.rows]
    )


def _read_costs_csv(document: Document, _: Mapping[str, str]) -> Found:
    return Found(
        [
            UsageLine(
                day_of(row["usage_date_utc"], document), _as_id(row["model"]), usd=number_of(row["cost_usd"], document)
            )
            for row in document.rows
        ]
    )


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
        _is_pages,
        _read_pages,
    ),
    Shape("Anthropic's usage (CSV)", "anthropic", columns_text(_USAGE), has_columns(_USAGE), _read_usage_csv),
    Shape("Anthropic's costs (CSV)", "anthropic", columns_text(_COSTS), has_columns(_COSTS), _read_costs_csv),
)
