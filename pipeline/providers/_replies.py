"""Decode a chat completion of OpenAI's dialect: whatever a server sends becomes a `Reply` or a `Failure`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import orjson

from pipeline.providers._errors import failure_from, ran_out, request_id_of
from pipeline.providers._hints import rate_hint
from pipeline.providers._json import UNREADABLE, load
from pipeline.providers._redact import LONGEST_NAME, name_in
from pipeline.records import Failure, Reply, Usage, WireReply

Finish = Literal["stop", "length", "refused", "other"]

_Ending = Finish | Literal["broken off"]
_FINISH: dict[str, _Ending] = {
    "stop": "stop",
    "tool_calls": "stop",
    "tool_use": "stop",
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "model_length": "length",  # Mistral, and the next: the model's context is full
    "model_context_window_exceeded": "length",
    "max_output_tokens": "length",  # the words of other dialects, as gateways pass them on: here and below
    "token_limit": "length",
    "incomplete": "length",
    "context_window_exceeded": "length",
    "context_length_exceeded": "length",
    "repetition": "length",  # vLLM: it ended an answer that repeated itself
    "content_filter": "refused",
    "content_filtered": "refused",
    "guardrail_intervened": "refused",
    "refusal": "refused",
    "sensitive": "refused",  # Z.AI
    "safety": "refused",  # Gemini, and the next
    "recitation": "refused",
    "prohibited_content": "refused",
    "blocklist": "refused",
    "spii": "refused",
    "image_safety": "refused",
    "error": "broken off",
    "abort": "broken off",
    "cancelled": "broken off",
    "canceled": "broken off",
    "timeout": "broken off",
    "network_error": "broken off",
    "insufficient_system_resource": "broken off",  # DeepSeek
}
_REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
_BROKE_OFF = {"type": "server_error", "message": "the model failed while it was answering"}

_ANTHROPIC_READ, _ANTHROPIC_WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"
"""Anthropic's words, which gateways such as LiteLLM pass on."""
_HITS = ("prompt_cache_hit_tokens", "cached_tokens", _ANTHROPIC_READ)
"""Where else than in the details it stands what was read from a cache: DeepSeek, Moonshot."""
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens")
"""What was written to one, in the details of the prompt; the second is LiteLLM's."""
_THOUGHT = "reasoning_tokens"
"""In the details of the answer, or beside all counts (SGLang)."""
_SOUND = "audio_tokens"
"""In the details of both. They have prices of their own, which this version does not know."""
_BESIDE_THE_DETAILS = frozenset((*_HITS, _ANTHROPIC_WRITTEN, _THOUGHT))

_MOST_TOKENS = 10**12
_MOST_DOLLARS = 10**6
_COST_UNIT = Decimal("0.000000000001")
"""What the ledger's DECIMAL(18,12) holds."""
_LETTERS_PER_TOKEN = 5
"""More than tokens have on average, in text of any language whose letters stand for sounds."""
_DENSE, _DENSE_TIMES = re.compile("[\u2e80-\U0003ffff]"), 4
"""Letters that stand for more (Chinese, Japanese, Korean): of these a token has one or two."""
_LONGEST_USAGE = 10_000
"""Bytes of the provider's own usage object that are kept; real ones have a few hundred."""


def decode(
    reply: WireReply,
    *,
    now: float,
    secrets: Sequence[str] = (),
    billed_path: str | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Reply | Failure:
    """Translate one answer; never raises. Only a 2xx with `choices` and without `error` is a `Reply`.

    So is an error which says that an answer was cut off before its first word. What an error says it used, or charged,
    is kept as well. `billed_path` says where the body tells what was charged, such as `usage.cost`. `extra` is what the
    request had beside the usual: the tools, of which several have to be told apart.
    """
    body = load(reply.body)
    fields = body if isinstance(body, dict) else {}
    billed = None if billed_path is None else billed_usd(fields, billed_path)
    result = _decoded(reply, body, fields, now, secrets, extra=extra)
    return result if billed is None else result._replace(billed_usd=billed)


def _decoded(
    reply: WireReply, body: Any, fields: dict[str, Any], now: float, secrets: Sequence[str], *, extra: Mapping[str, Any]
) -> Reply | Failure:
    usage, model, choice = usage_of(fields.get("usage")), _name(fields.get("model"), secrets), _first_choice(fields)
    if fields.get("error") or choice is None or not 200 <= reply.status < 300:  # noqa: PLR2004 (success)
        if ran_out(reply, body):
            usage = usage if usage is not None and usage.output_tokens else None
            return Reply(None, "length", None, usage, model, request_id_of(reply, fields, secrets))
        return failure_from(reply, now, body=body, secrets=secrets, usage=usage, model=model)
    reason = _name(_reason(choice), secrets)
    finish = "other" if reason is None else _FINISH.get(reason) or _finish_of(reason)
    if finish == "broken off" or choice.get("error"):
        # OpenRouter, once the model has begun: the choice ends with `error`, and may say why. vLLM and SGLang, when
        # they are shut down: `abort`, with what there was of the answer.
        said = {"id": fields.get("id"), "error": choice.get("error") or _BROKE_OFF}
        return failure_from(reply, now, body=said, secrets=secrets, usage=usage, model=model)
    message = _part(choice, "message")
    reasoned = _has_reasoned(message, usage)
    text, finish = _answer(message, finish, extra, reasoned=reasoned)
    if usage is not None and not (usage.input_tokens and usage.output_tokens) and finish != "refused":
        # What was asked and said has tokens, and so has what ate the limit: a server that reports none would make it
        # free. A filter's words may be.
        usage = None if text or reasoned or not usage.input_tokens or finish == "length" else usage
    request_id = request_id_of(reply, fields, secrets)
    found = Reply(text, finish, reason, usage, model, request_id, reasoned, rate_hint(reply.headers, now))
    if reasoned and finish == "length" and usage is not None and _leaves_reasoning_out(usage, message, text):
        found = found._replace(reasoned_beyond_usage=True)
    odd = _part(fields, "usage") if usage is None else None
    return found._replace(odd_usage=_kept(odd)) if odd else found


def billed_usd(fields: dict[str, Any], path: str) -> Decimal | None:
    """Read what the provider says it charged; None where that is no amount of money.

    With a key of the account's own (OpenRouter's `is_byok`) its `cost` is only a fee: the upstream's charge is added.
    """
    *way, name = path.split(".")
    place = fields
    for step in way:
        place = _part(place, step)
    billed = _amount(place.get(name))
    if billed is None or place.get("is_byok") is not True:
        return billed
    upstream = _amount(_part(place, "cost_details").get("upstream_inference_cost"))
    return None if upstream is None else billed + upstream


def _amount(value: Any) -> Decimal | None:
    """Read an amount. A JSON number has passed as a float, whose shortest text is what was sent up to 15 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    fits = amount.is_finite() and 0 <= amount < _MOST_DOLLARS
    return amount.quantize(_COST_UNIT) if fits else None


def usage_of(raw: Any) -> Usage | None:
    """Normalise a usage object; None where no cost follows from it: it is absent, contradicts itself, or has sound.

    Tokens that only the total has are reasoning that isn't told apart (xAI, Gemini), unless what is said of a cache
    explains them. What is said of one in Anthropic's words alone is taken to be beside the prompt: the dearer reading.
    That there is an answer to no tokens, or one of none, shows only beside the answer.
    """
    if not isinstance(raw, dict):
        return None
    inputs, outputs = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    total = _count(raw.get("total_tokens"), absent=0)
    if inputs is None or outputs is None:
        return None
    untold = 0 if total is None else max(total - inputs - outputs, 0)
    into, out = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    if into is None and out is None and not untold and _BESIDE_THE_DETAILS.isdisjoint(raw):
        return Usage(inputs, outputs, 0, 0, 0, _kept(raw))
    into, out = _part(raw, "prompt_tokens_details"), _part(raw, "completion_tokens_details")
    told_hits, told_written = _count(into.get("cached_tokens"), absent=0), _count(into.get(_WRITTEN[0]), absent=0)
    reasoning = _count(out.get(_THOUGHT), absent=0)
    if told_hits is None or told_written is None or reasoning is None or into.get(_SOUND) or out.get(_SOUND):
        return None
    reasoning = reasoning or _count(raw.get(_THOUGHT)) or 0
    hits = told_hits or _first_count(map(raw.get, _HITS))
    written = told_written or _first_count((into.get(_WRITTEN[1]), raw.get(_ANTHROPIC_WRITTEN)))
    of_caches = hits + written
    in_its_words_alone = not told_hits and (_ANTHROPIC_READ in raw or (_ANTHROPIC_WRITTEN in raw and not into))
    if of_caches and (in_its_words_alone or (untold == of_caches != reasoning)):
        inputs += of_caches  # as Anthropic counts: beside the prompt, not in it
        untold = max(untold - of_caches, 0)
    if untold:
        outputs += untold
        reasoning += 0 if reasoning == untold else untold
    if hits + written > inputs or reasoning > outputs:
        return None
    return Usage(inputs, outputs, hits, written, reasoning, _kept(raw))


def _first_choice(fields: dict[str, Any]) -> dict[str, Any] | None:
    choices = fields.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else None


def _reason(choice: dict[str, Any]) -> Any:
    """Return the reason to stop; some servers make an object of it."""
    reason = choice.get("finish_reason")
    return reason.get("type") if isinstance(reason, dict) else reason


@lru_cache(maxsize=256)
def _finish_of(reason: str) -> _Ending:
    """Read a reason in other letters, or with a detail behind it (Gemini's `content_filter: RECITATION`)."""
    return _FINISH.get(reason.lower().partition(":")[0].strip().replace("-", "_"), "other")


def _answer(
    message: dict[str, Any], finish: Finish, extra: Mapping[str, Any], *, reasoned: bool
) -> tuple[str | None, Finish]:
    text = _content(message, extra)
    refusal = _refusal(message)
    if refusal is not None:
        return text or refusal, "refused"
    if finish == "stop" and reasoned and not (text or "").strip():
        return text, "length"  # the limit was eaten by reasoning, whatever the server calls it
    if finish == "stop" and text is None:
        return None, "other"  # nothing was said, so nothing may count as an answer
    return text, finish


def _refusal(message: dict[str, Any]) -> str | None:
    """Return the words with which a model refused: beside the content, or a part of it."""
    refusal, content = message.get("refusal"), message.get("content")
    if not refusal and isinstance(content, list):
        refusals = (part.get("refusal") for part in content if isinstance(part, dict) and part.get("type") == "refusal")
        refusal = next((said for said in refusals if said), None)
    return refusal if isinstance(refusal, str) and refusal.strip() else None


def _content(message: dict[str, Any], extra: Mapping[str, Any]) -> str | None:
    """Return what was said; where tools were called that is the calls, whatever text the model put before them."""
    text = _text(message.get("content"))
    if not message.get("tool_calls") and "function_call" not in message:  # nearly always
        return text
    return _calls(message, extra) or text


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, dict):  # JSON that a server has parsed for us
        return _dumped(content)
    if not isinstance(content, list):
        return None
    parts = [part if isinstance(part, str) else _part_text(part) for part in content]
    return "".join(part for part in parts if part is not None)


def _part_text(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") not in (None, "text", "output_text"):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _calls(message: dict[str, Any], extra: Mapping[str, Any]) -> str | None:
    """Return what the only tool was called with: JSON text, as the model wrote it. Of several tools or calls, a list.

    Without their names nobody could tell what the arguments are for.
    """
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        calls = [{"function": message.get("function_call")}]
    if len(calls) > 1 or _has_a_choice(extra):
        said = any(called.get("name") or called.get("arguments") for called in map(_called, calls))
        return _dumped([_call(call) for call in calls]) if said else None
    arguments = _called(calls[0]).get("arguments")
    if isinstance(arguments, dict):  # some servers parse it for us
        return _dumped(arguments)
    return arguments if isinstance(arguments, str) else None


def _has_a_choice(extra: Mapping[str, Any]) -> bool:
    """Tell whether the model may call one tool or another: several are offered, and none is demanded by its name."""
    tools, choice = extra.get("tools") or extra.get("functions"), extra.get("tool_choice") or extra.get("function_call")
    if not isinstance(tools, list | tuple) or len(tools) < 2:  # noqa: PLR2004 (several)
        return False
    return not isinstance(choice, Mapping) or choice.get("type") == "allowed_tools"


def _called(call: Any) -> dict[str, Any]:
    """Return what a call says of its tool, whose type is mostly `function`: `name` and `arguments`."""
    if not isinstance(call, dict):
        return {}
    custom = call.get("custom")
    if isinstance(custom, dict) and "function" not in call:
        return {"name": custom.get("name"), "arguments": custom.get("input")}
    return _part(call, "function")


def _call(call: Any) -> dict[str, Any]:
    """Return a call's name and arguments, these as they were written if they are no JSON."""
    called = _called(call)
    arguments = called.get("arguments")
    if isinstance(arguments, str) and load(arguments.encode()) is not UNREADABLE:
        arguments = orjson.Fragment(arguments)
    return {"name": called.get("name"), "arguments": arguments}


def _has_reasoned(message: dict[str, Any], usage: Usage | None) -> bool:
    if usage is not None and usage.reasoning_tokens:
        return True
    content = message.get("content")
    if isinstance(content, list) and any(map(_is_thought, content)):
        return True
    if _REASONING.isdisjoint(message):  # nearly always
        return False
    return any(isinstance(message.get(name), str | list) and message[name] for name in _REASONING)


def _leaves_reasoning_out(usage: Usage, message: dict[str, Any], text: str | None) -> bool:
    """Tell whether a server counts reasoning nowhere: it tells none, and more was written than its tokens can hold.

    Of what is told, `usage` holds all. Some servers send the same thoughts twice, under two names.
    """
    if usage.reasoning_tokens:
        return False
    content = message.get("content")
    in_parts = [part for part in content if _is_thought(part)] if isinstance(content, list) else None
    longest = max(_letters(thoughts) for thoughts in (in_parts, *map(message.get, _REASONING)))
    return _letters(text) + longest > _LETTERS_PER_TOKEN * usage.output_tokens


def _letters(thoughts: Any) -> int:
    """Return the length of thoughts; of a list, whose parts have many forms, that of its JSON, which is no shorter."""
    if not thoughts:
        return 0
    text = thoughts if isinstance(thoughts, str) else _dumped(thoughts) or ""
    return len(text) + (_DENSE_TIMES - 1) * len(_DENSE.findall(text))


def _is_thought(part: Any) -> bool:
    """Tell what was thought from what was said (Magistral)."""
    if not isinstance(part, dict) or part.get("type") not in ("thinking", "reasoning"):
        return False
    return any(part.get(name) for name in ("thinking", "reasoning", "text"))


def _part(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _count(value: Any, absent: int | None = None) -> int | None:
    if value is None:
        return absent
    if type(value) is float and value.is_integer():  # some gateways write every number so
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _first_count(values: Iterable[Any]) -> int:
    """Return the first count that is not 0, 0 if there is none; what is no number of tokens is passed over."""
    return next((count for value in values if (count := _count(value))), 0)


def _kept(raw: dict[str, Any]) -> Mapping[str, Any]:
    try:
        size = len(orjson.dumps([[[[[[[[raw]]]]]]]]))  # room for the levels that a journal line puts around it
    except TypeError:  # nested deeper than the writer goes
        return {}
    return raw if size <= _LONGEST_USAGE else {}


def _dumped(value: Any) -> str | None:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested deeper than the writer goes
        return None


def _name(value: Any, secrets: Sequence[str]) -> str | None:
    """Return a model's name, a reason to stop: what many answers have in common."""
    if not isinstance(value, str) or not value:
        return None
    return _known_name(value) if len(value) <= LONGEST_NAME else name_in(value, secrets)


@lru_cache(maxsize=256)
def _known_name(text: str) -> str:
    return name_in(text, ())  # nothing is cut, so no secret has to be looked for
