"""Anthropic: usage and cost reports, as its admin API answers them or its console exports them.

Input tokens are told apart (uncached, read from the cache, written to it) and added up here: so the ledger counts them.
Requests are not told. The API's amounts are cents.
"""

from datetime import date

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

_READ = ("cache_read_input_tokens", "usage_input_tokens_cache_read")
_UNCACHED = ("uncached_input_tokens", "usage_input_tokens_no_cache")
_WRITTEN = (
    "cache_creation.ephemeral_5m_input_tokens", "cache_creation.ephemeral_1h_input_tokens",
    "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_write",
)  # fmt: skip
_OUTPUT = ("output_tokens", "usage_output_tokens")
_USAGE = frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"})
_COSTS = frozenset({"usage_date_utc", "model", "cost_usd"})


def _usage(said: Said, day: date, document: Document) -> UsageLine:
    uncached, cached = _sum(said, _UNCACHED, document), _sum(said, _READ, document)
    more = (cached or 0) + (_sum(said, _WRITTEN, document) or 0)
    return UsageLine(
        day,
        model_of(said.get("model", said.get("model_version"))),
        input_tokens=None if uncached is None else uncached + more,
        cached_input_tokens=cached,
        output_tokens=_sum(said, _OUTPUT, document),
    )


def _costs(said: Said, day: date, document: Document) -> UsageLine:
    check_currency(said.get("currency"), document)
    cents = number_of(said["amount"], document)
    model = model_of(said.get("model")) or model_of(said.get("description"))
    return UsageLine(day, model, usd=None if cents is None else cents.scaleb(-2))


def _row_of_costs(row: Said, day: date, document: Document) -> UsageLine:
    return UsageLine(day, _as_id(row["model"]), usd=number_of(row["cost_usd"], document))


def _as_id(name: str) -> str | None:
    """Turn a name into an id: the cost export shows names (`Claude Opus 4.5`) for `claude-opus-4-5`."""
    return model_of(name.strip().lower().replace(" ", "-").replace(".", "-"))


def _sum(said: Said, names: tuple[str, ...], document: Document) -> int | None:
    """Add up what is told of these; None: nothing is."""
    told = [count for name in names if (count := count_of(said.get(name), document)) is not None]
    return sum(told) if told else None


_TOKENS = Kind(
    "usage",
    _usage,
    {"input_tokens": (*_UNCACHED, *_WRITTEN), "cached_input_tokens": _READ, "output_tokens": _OUTPUT},
    is_one=lambda said: not said.keys().isdisjoint(_UNCACHED),
)
_MONEY = Kind("costs", _costs, {"usd": ("amount",)}, is_one=lambda said: "amount" in said)
_MONEY_ROWS = Kind("costs", _row_of_costs, {"usd": ("cost_usd",)})
_STARTED = ("usage_date_utc",)

SHAPES = (
    Shape(
        "Anthropic's usage and costs (JSON)",
        "anthropic",
        "buckets with starting_at and results, from /v1/organizations/usage_report/messages or .../cost_report",
        has_buckets("starting_at"),
        reads_pages("starting_at", "ending_at", (_MONEY, _TOKENS), "neither usage of messages nor costs"),
    ),
    Shape(
        "Anthropic's usage (CSV)",
        "anthropic",
        columns_text(_USAGE),
        has_columns(_USAGE),
        reads_rows(_TOKENS, _STARTED),
    ),
    Shape(
        "Anthropic's costs (CSV)",
        "anthropic",
        columns_text(_COSTS),
        has_columns(_COSTS),
        reads_rows(_MONEY_ROWS, _STARTED),
    ),
)
