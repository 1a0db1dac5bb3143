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
        "type": "sent",
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
    # All at once: a named tuple finds each name anew, which every answer would pay for twenty times.
    (
        key, number, kind, result, sent_at, latency_ms, reserved_usd, computed_usd, billed_usd, price_id, http_status,
        model_returned, finish_reason, usage, request_id, error_type, error, output, parsed, odd_usage,
    ) = attempt  # fmt: skip
    line = {
        "type": "attempt",
        "key": key,
        "attempt": number,
        "kind": kind,
        "result": result,
        "sent_at": sent_at,
        "latency_ms": latency_ms,
        "http_status": http_status,
        "model_returned": model_returned,
        "finish_reason": finish_reason,
        "usage": None if usage is None else _usage(usage),
        "usage_json": odd_usage if usage is None else dict(usage.raw),
        "counted": ticket.input_tokens,
        "count_method": ticket.count_method,
        "computed_usd": _text(computed_usd),
        "billed_usd": _text(billed_usd),
        "price_id": price_id,
        "reserved_usd": _text(reserved_usd),
        "request_id": request_id,
        "error_type": error_type,
        "error": error,
        "output": output,
        "parsed": parsed,
    }
    if held:
        line["held"] = True
    if ticket.answered_attempt is not None:  # for whoever has to find out the outcome without its line
        line["repairs"], line["repaired_attempt"] = ticket.repairs, ticket.answered_attempt
        if ticket.answered_run is not None:
            line["repaired_run"] = ticket.answered_run
    return line


def outcome_line(outcome: Outcome) -> Fields:
    """Say how a key ended."""
    key, status, attempts, answer_run, answer_attempt, max_tokens, reused, error_type, error = outcome
    return {
        "type": "outcome",
        "key": key,
        "status": status,
        "attempts": attempts,
        "answer_run": answer_run,
        "answer_attempt": answer_attempt,
        "max_tokens": max_tokens,
        "reused": reused,
        "error_type": error_type,
        "error": error,
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
