"""OpenAI's chat completions: the dialect that most servers speak, and OpenAI itself as the first preset."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import orjson

from pipeline.errors import JobFileError
from pipeline.prompts import address
from pipeline.providers import _replies
from pipeline.providers._redact import hide_in
from pipeline.providers._schema import obeys_strict_rules
from pipeline.records import Failure, HttpRequest, ModelSpec, Reply, Request, WireReply

Structured = Literal["json_schema", "json_object", "none"]

DIALECT_OPTIONS = frozenset({"max_tokens_field", "structured_output", "billed_cost_path"})
"""`[model]` keys that every provider of this dialect understands."""

_OPTIONS: Mapping[str, tuple[str, tuple[object, ...] | type[str]]] = {
    "max_tokens_field": ("max_tokens_field", ("max_tokens", "max_completion_tokens")),
    "structured_output": ("structured", ("json_schema", "json_object", "none")),
    "model_field": ("model_field", ("model", "model_id")),
    "key_in_body": ("key_in_body", (True, False)),
    "billed_cost_path": ("billed_cost_path", str),
}
"""Option -> the field it sets, and the values it takes (`str`: a path such as `usage.cost`)."""

_PATH = re.compile(r"\w+(\.\w+)*")
_OTHERS = "another model may then answer, at another price"
_LOOKED_UP = "what a server looks up costs beside the tokens, or is input that nobody counted"
_NOT_TEXT = "sound and pictures have prices of their own, which this version does not book"
_NOT_KEPT = "of an answer its text is kept, and how likely its tokens were is not"
_OURS = {
    "model": "set [model] name instead",
    "model_id": "set [model] name instead",
    "messages": "set [prompt] instead",
    "key": "set [model] api_key_env instead",
    "max_tokens": "set [model] max_tokens instead",
    "max_completion_tokens": "set [model] max_tokens instead",
    "extra_body": "put its fields into extra itself",
    "n": "one answer per request is kept",
    "best_of": "one answer per request is kept",
    "logprobs": _NOT_KEPT,
    "top_logprobs": _NOT_KEPT,
    "stream": "promptmill reads whole answers",
    "stream_options": "promptmill reads whole answers",
    "service_tier": "another tier has other prices, which this version does not book",
    "models": _OTHERS,  # OpenRouter, and the next two
    "route": _OTHERS,
    "preset": _OTHERS,
    "fallbacks": _OTHERS,  # LiteLLM's proxy, and the next
    "user_config": _OTHERS,
    "plugins": _LOOKED_UP,  # OpenRouter: the web, PDF files
    "web_search_options": _LOOKED_UP,  # OpenAI, Perplexity
    "search_parameters": _LOOKED_UP,  # xAI
    "enable_search": _LOOKED_UP,  # Qwen
    "data_sources": _LOOKED_UP,  # Azure
    "modalities": _NOT_TEXT,
    "audio": _NOT_TEXT,
    "prediction": "what was predicted wrongly is charged as output too, beyond [model] max_tokens",
}
"""Body fields that `extra` may not set, and why or what instead: a budget, a cost or an answer would be wrong."""

_OWN_TOOLS = ("function", "custom")
"""Tools that a model only asks for. Others (`web_search`, `code_interpreter`, `mcp`) a server runs, and charges."""
_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OpenAI:
    """A server that speaks chat completions. A vendor is one value of this class; its quirks are the fields."""

    name: str
    base_url: str | None
    """None: known when the server runs."""
    key_env: str | None = None
    needs_key: bool = True
    concurrency: int = 32
    """Requests at a time unless the job says otherwise."""
    dialect: str = "openai"
    max_tokens_field: str = "max_tokens"
    """The limit's name in the body: newer models of OpenAI refuse `max_tokens`, other servers know nothing else."""
    structured: Structured = "json_schema"
    """The most exact way to ask for JSON that the server has."""
    model_field: str = "model"
    key_in_body: bool = False
    """Send the key as `key` in the body instead of a header."""
    billed_cost_path: str | None = None
    """Where an answer's JSON says what was charged, in dollars, such as `usage.cost`."""
    options: frozenset[str] = DIALECT_OPTIONS

    @property
    def tells_costs(self) -> bool:
        """Tell whether its answers are looked through for what was charged."""
        return self.billed_cost_path is not None

    def configured(self, base_url: str | None, options: Mapping[str, object]) -> "OpenAI":
        """Return this provider at another address, and with the job's `options` (known names) applied.

        On another server the preset's key is not the one to send (a job names its own in `api_key_env`).
        """
        changes: dict[str, Any] = {}
        if base_url is not None:
            changes["base_url"] = base_url
            if self.base_url is None or urlsplit(address(base_url))[:2] != urlsplit(address(self.base_url))[:2]:
                changes |= {"key_env": None, "needs_key": False, "max_tokens_field": "max_tokens"}
        for option, value in options.items():
            field, allowed = _OPTIONS[option]
            if isinstance(allowed, type):
                changes[field] = _path(option, value)
                continue
            if not any(type(value) is type(one) and value == one for one in allowed):
                shown = ", ".join(str(orjson.dumps(one), "ascii") for one in allowed)
                raise JobFileError(f"[model] {option} must be one of {shown}")
            changes[field] = value
        return replace(self, **changes)

    def encode(self, spec: ModelSpec, request: Request, *, base_url: str, api_key: str | None) -> HttpRequest:
        """Make the bytes. Nothing is sent that the user did not set."""
        constant = _constant(self, spec, base_url, api_key)
        body = constant.head + orjson.dumps(request.messages, default=_plain) + b"}"
        return HttpRequest(constant.url, constant.headers, body)

    def decode(
        self, reply: WireReply, *, now: float, secrets: Sequence[str] = (), spec: ModelSpec | None = None
    ) -> Reply | Failure:
        """Translate the answer to what `spec` asked for; `now` is epoch seconds, `secrets` are hidden everywhere."""
        extra = _NOTHING if spec is None else spec.extra
        found = _replies.decode(reply, now=now, secrets=secrets, billed_path=self.billed_cost_path, extra=extra)
        return _hidden(found, secrets)


def _path(option: str, value: object) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise JobFileError(f'[model] {option} must be names with points between them, such as "usage.cost"')
    return value


def _hidden(result: Reply | Failure, secrets: Sequence[str]) -> Reply | Failure:
    """Hide the key in what is stored as it came, too: a model, or a proxy before it, may echo what it was sent."""
    if not secrets:
        return result
    usage, (reason, odd) = result.usage, (None, None)
    if not isinstance(result, Failure):
        reason, odd = result.finish_reason, result.odd_usage
    short = [result.model, result.request_id, reason, None if usage is None else dict(usage.raw), odd and dict(odd)]
    shown = hide_in(short, secrets)
    if shown != short:
        model, request_id, reason, raw, odd = shown
        usage = None if usage is None else usage._replace(raw=raw)
        result = result._replace(model=model, request_id=request_id, usage=usage)
        if not isinstance(result, Failure):
            result = result._replace(finish_reason=reason, odd_usage=odd)
    if isinstance(result, Failure):
        return result
    text = hide_in(result.text, secrets)
    return result if text == result.text else result._replace(text=text)


def check_extra(extra: Mapping[str, object]) -> None:
    """Refuse an `[model] extra` that would replace what the budget, the costs, the key or the answer rest on."""
    for name in extra:
        if name in _OURS:
            raise JobFileError(f"[model] extra may not hold {name!r}: {_OURS[name]}")
    tools = extra.get("tools")
    for tool in tools if isinstance(tools, list | tuple) else ():
        if not isinstance(tool, Mapping) or tool.get("type") not in _OWN_TOOLS:
            raise JobFileError(
                "[model] extra may hold tools of the type 'function' or 'custom' only: "
                "what a server's own tools cost beside the tokens is not booked"
            )


# All rows of a job share everything but their messages, so that part is made once (and kept by identity: a spec
# is frozen, but holds dicts and can't be hashed).
class _Constant(NamedTuple):
    provider: OpenAI
    spec: ModelSpec
    base_url: str
    api_key: str | None
    url: str
    headers: Mapping[str, str]
    """The same object for all rows: a wire checks it once."""
    head: bytes


_last: _Constant | None = None


def _constant(provider: OpenAI, spec: ModelSpec, base_url: str, api_key: str | None) -> _Constant:
    global _last  # noqa: PLW0603 (one remembered value; replaced in one step, so safe in threads)
    last = _last
    if last is not None and last[:2] == (provider, spec) and last[2:4] == (base_url, api_key):
        return last
    headers = {"content-type": "application/json"}
    if api_key and not provider.key_in_body:
        headers["authorization"] = f"Bearer {api_key}"
    url = f"{base_url.rstrip('/')}/chat/completions"
    head = orjson.dumps(_fields(provider, spec, api_key), default=_plain)[:-1] + b',"messages":'
    _last = _Constant(provider, spec, base_url, api_key, url, MappingProxyType(headers), head)
    return _last


def _fields(provider: OpenAI, spec: ModelSpec, api_key: str | None) -> dict[str, object]:
    check_extra(spec.extra)
    fields: dict[str, object] = {provider.model_field: spec.name, **spec.params}
    if spec.max_tokens is not None:
        fields[provider.max_tokens_field] = spec.max_tokens
    if spec.schema is not None and provider.structured != "none":
        fields["response_format"] = _response_format(provider.structured, spec.schema)
    fields |= spec.extra
    if provider.key_in_body and api_key:
        fields["key"] = api_key
    return fields


def _response_format(structured: Structured, schema: Mapping[str, Any]) -> dict[str, object]:
    if structured == "json_object":
        return {"type": "json_object"}
    strict = obeys_strict_rules(schema)
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": strict, "schema": schema}}


def _plain(value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


PROVIDER = OpenAI(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_env="OPENAI_API_KEY",
    max_tokens_field="max_completion_tokens",
)
