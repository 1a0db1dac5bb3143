"""What the stub vendor charges: its own way of counting tokens, its prices, one bill entry per answer. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import orjson
from stub_faults import Reply


@dataclass(frozen=True, slots=True)
class BillEntry:
    """One generated answer. `usd` is exact."""

    n: int
    """The request's number."""
    digest: str
    """`digest_of` its messages: equal for equal messages."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per 1,000,000 tokens, and per answer."""

    input: Decimal
    cached_input: Decimal
    output: Decimal
    per_request: Decimal

    def of(self, prompt: int, cached: int, completion: int) -> Decimal:
        tokens = (prompt - cached) * self.input + cached * self.cached_input + completion * self.output
        return tokens.scaleb(-6) + self.per_request


def words_in(message: Mapping[str, Any]) -> list[str]:
    """List the whitespace-separated words of a message's text, parts included."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content)
    return content.split()


def count_prompt(messages: list[Mapping[str, Any]]) -> int:
    """Count as this vendor does: words, 3 per message, 3."""
    return sum(len(words_in(message)) + 3 for message in messages) + 3


def digest_of(messages: list[Mapping[str, Any]]) -> str:
    """BLAKE2b-128 of the messages as canonical JSON, hex."""
    return blake2b(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def limit_of(payload: Mapping[str, Any]) -> int | None:
    """The most completion tokens the caller allows for one choice."""
    return payload.get("max_completion_tokens", payload.get("max_tokens"))


def cap(reply: Reply, limit: int | None) -> tuple[str | None, str, int]:
    """Text, finish reason and completion tokens of a reply; reasoning uses up the limit first."""
    words = (reply.text or "").split()
    wanted = reply.reasoning_tokens + len(words)
    if limit is None or wanted <= limit:
        return reply.text, reply.finish_reason, wanted
    return " ".join(words[: max(0, limit - reply.reasoning_tokens)]), "length", limit


def make_answer(
    number: int, payload: Mapping[str, Any], reply: Reply, prices: Prices
) -> tuple[dict[str, Any], BillEntry]:
    """Build the response's JSON and what it costs; with `n` in the payload, n equal choices, each billed."""
    choices = payload.get("n") or 1
    text, finish_reason, completion = cap(reply, limit_of(payload))
    completion = completion * choices if reply.completion_tokens is None else reply.completion_tokens
    prompt = count_prompt(payload["messages"]) if reply.prompt_tokens is None else reply.prompt_tokens
    usd = prices.of(prompt, reply.cached_tokens, completion)
    entry = BillEntry(number, digest_of(payload["messages"]), prompt, completion, reply.cached_tokens, usd)
    message = {"role": "assistant", "content": text, **reply.message}
    answer = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_795_392_000,
        "model": reply.model or payload.get("model"),
        "choices": [{"index": index, "finish_reason": finish_reason, "message": message} for index in range(choices)],
        "usage": dict(_usage(entry, min(reply.reasoning_tokens * choices, completion))),
    }
    return answer, entry


def _usage(entry: BillEntry, reasoning: int) -> Iterator[tuple[str, Any]]:
    yield "prompt_tokens", entry.prompt_tokens
    yield "completion_tokens", entry.completion_tokens
    yield "total_tokens", entry.prompt_tokens + entry.completion_tokens
    if entry.cached_tokens:
        yield "prompt_tokens_details", {"cached_tokens": entry.cached_tokens}
    if reasoning:
        yield "completion_tokens_details", {"reasoning_tokens": reasoning}
