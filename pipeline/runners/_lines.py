"""Records to journal lines: the fields that docs/design.md lists for `sent`, `attempt` and `outcome`."""

import time
from decimal import Decimal
from typing import Any

from pipeline.doorman import Ticket
from pipeline.records import Attempt, Outcome, Usage

Fields = dict[str, Any]


def sent_line(ticket: Ticket) -> Fields:
    """Say what is about to go out, and what it may cost at worst."""
    return {
        "key": ticket.request.key,
        "attempt": ticket.attempt,
        "kind": ticket.kind,
        "reserved_usd": _text(ticket.reserve_usd),
        "counted": ticket.input_tokens,
        "count_method": ticket.count_method,
        "at": time.time(),
    }


def attempt_line(attempt: Attempt, ticket: Ticket, *, held: bool = False) -> Fields:
    """Keep everything that came back. `held`: its outcome is not due yet, because the job itself may be wrong."""
    return {
        "key": attempt.key,
        "attempt": attempt.attempt,
        "kind": attempt.kind,
        "result": attempt.result,
        "sent_at": attempt.sent_at,
        "latency_ms": attempt.latency_ms,
        "http_status": attempt.http_status,
        "model_returned": attempt.model_returned,
        "finish_reason": attempt.finish_reason,
        "usage": None if attempt.usage is None else _usage(attempt.usage),
        "usage_json": None if attempt.usage is None else dict(attempt.usage.raw),
        "counted": ticket.input_tokens,
        "count_method": ticket.count_method,
        "computed_usd": _text(attempt.computed_usd),
        "billed_usd": _text(attempt.billed_usd),
        "price_id": attempt.price_id,
        "reserved_usd": _text(attempt.reserved_usd),
        "request_id": attempt.request_id,
        "error_type": attempt.error_type,
        "error": attempt.error,
        "output": attempt.output,
        "parsed": attempt.parsed,
        **({"held": True} if held else {}),
    }


def outcome_line(outcome: Outcome) -> Fields:
    """Say how a key ended."""
    return {
        "key": outcome.key,
        "status": outcome.status,
        "attempts": outcome.attempts,
        "answer_run": outcome.answer_run,
        "answer_attempt": outcome.answer_attempt,
        "max_tokens": outcome.max_tokens,
        "reused": outcome.reused,
        "error_type": outcome.error_type,
        "error": outcome.error,
        "at": time.time(),
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input": usage.input_tokens,
        "cached": usage.cached_input_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
