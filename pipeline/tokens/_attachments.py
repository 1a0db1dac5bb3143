"""Tokens of what is sent beside plain text: tools, a schema, parts of a message.

Only the tools formula is published (OpenAI's cookbook); everything here makes a count a formula or less.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.tokens._parts import FILE_BOUND, IMAGE_BOUND, IMAGE_TOKENS, NOTHING_ATTACHED, attached_in, is_text

EXACT, FORMULA, APPROXIMATE = range(3)
"""How sure a number is, in this order, so that the worst of several is their maximum."""

CountText = Callable[[str], int]


class Size(NamedTuple):
    """Tokens of one thing, a bound for any tokenizer, and how sure the first number is."""

    tokens: int
    bound: int
    grade: int


NOTHING = Size(0, 0, EXACT)

# Parameters of a request that never become part of the prompt.
_OUTSIDE_THE_PROMPT = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "n",
        "presence_penalty",
        "prompt_cache_key",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_logprobs",
        "top_p",
        "user",
    }
)
# Servers may add instructions of their own around tools and schemas; several hundred tokens have been seen.
_ATTACHMENT_ALLOWANCE = 1024


def json_size(value: Any, count: CountText) -> Size:
    """Size of a value that is sent as JSON. The bound covers servers that print it indented and escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return Size(count(text), len(json.dumps(value, indent=4, default=str)), FORMULA)


def attachments_size(
    schema: Mapping[str, Any] | None,
    extra: Mapping[str, Any] | None,
    count: CountText,
    *,
    function_tokens: int,
) -> Size:
    """Size of the schema and of everything in `extra` that may enter the prompt."""
    sent = {key: value for key, value in (extra or {}).items() if key not in _OUTSIDE_THE_PROMPT}
    if schema is None and not sent:
        return NOTHING
    tokens = 0 if schema is None else json_size(schema, count).tokens
    for key, value in sent.items():
        if key in {"tools", "functions"}:
            tokens += tools_tokens(value, count, function_tokens=function_tokens)
        elif key == "response_format":
            tokens += json_size(value, count).tokens
    bound = json_size([schema, sent], count).bound + _ATTACHMENT_ALLOWANCE
    return Size(tokens, bound, FORMULA)


def tools_tokens(tools: Any, count: CountText, *, function_tokens: int) -> int:
    """Tokens of tool definitions by the cookbook's formula; `function_tokens` is 7 on o200k, 10 on cl100k."""
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        return json_size(tools, count).tokens
    functions = [_function(tool) for tool in tools]
    return sum(function_tokens + _function_tokens(function, count) for function in functions) + 12 * bool(tools)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else tool


def _function_tokens(function: Mapping[str, Any], count: CountText) -> int:
    tokens = count(f"{function.get('name', '')}:{_sentence(function)}")
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping):
        return tokens + (json_size(parameters, count).tokens if parameters else 0)
    if properties:
        tokens += 3
    return tokens + sum(_property_tokens(name, value, count) for name, value in properties.items())


def _property_tokens(name: str, value: Any, count: CountText) -> int:
    if not isinstance(value, Mapping):
        return 3 + count(name) + json_size(value, count).tokens
    kind = value.get("type", "")
    tokens = 3 + count(f"{name}:{kind if isinstance(kind, str) else json.dumps(kind)}:{_sentence(value)}")
    choices = value.get("enum")
    if isinstance(choices, Sequence):
        tokens += -3 + sum(3 + count(str(choice)) for choice in choices)
    # The published formula ends here; nested shapes are counted as the JSON they are.
    rest = {key: inner for key, inner in value.items() if key not in {"type", "description", "enum"}}
    return tokens + (json_size(rest, count).tokens if rest else 0)


def _sentence(described: Mapping[str, Any]) -> str:
    return str(described.get("description", "")).removesuffix(".")


def part_size(part: Any, text_size: Callable[[str], Size], count: CountText) -> Size:
    """Size of one part of a message's content: text, images, a file, or something never seen before."""
    if isinstance(part, str):
        return text_size(part)
    text, attached = part.get("text") if isinstance(part, Mapping) else None, attached_in(part)
    beside = text_size(text) if isinstance(text, str) else NOTHING
    if attached == NOTHING_ATTACHED:
        return beside if is_text(part) else json_size(part, count)._replace(grade=APPROXIMATE)
    return Size(
        beside.tokens + IMAGE_TOKENS * (attached.images + attached.files),
        beside.bound + IMAGE_BOUND * attached.images + FILE_BOUND * attached.files,
        APPROXIMATE,
    )
