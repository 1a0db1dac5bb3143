"""Translators as tables of bytes: promises of every provider in the folder, and what a request becomes."""

import json
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType

import orjson
import pytest
from completions import STANDARD
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import providers
from pipeline.errors import JobFileError
from pipeline.providers._redact import _hidden_in, hide_in
from pipeline.providers._schema import obeys_strict_rules
from pipeline.records import Failure, ModelSpec, Reply, Request, Usage, WireReply

NOW = 1795392000.0
BASE = "https://vendor.example/v1"
KEY = "Zt9-my-own-key"
MESSAGES = ({"role": "system", "content": "You extract data."}, {"role": "user", "content": "Grüße \U0001f600"})
REQUEST = Request(key="v1" + "0" * 32, messages=MESSAGES)
STRICT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["number"],
    "properties": {"number": {"type": "string"}},
}


def spec(**fields):
    return ModelSpec(**{"provider": "openai", "name": "m", **fields})


def find(name="openai", *, base_url=None, dialect=None, **options):
    return providers.find(name, base_url=base_url, dialect=dialect, options=options)


def body_of(provider, model=None, *, key=KEY):
    sent = provider.encode(model or spec(), REQUEST, base_url=BASE, api_key=key)
    return json.loads(sent.body)


# What every provider in the folder promises


@pytest.fixture(params=providers.names())
def provider(request):
    return find(request.param)


def test_the_folder_is_the_registry():
    assert providers.names() == ("local", "modelslab", "openai")


def test_looking_the_names_up_loads_no_provider():
    code = (
        "import sys; from pipeline import providers; providers.names(); "
        "loaded = [name for name in sys.modules if name.startswith(('pipeline.providers.', 'orjson'))]; "
        "sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_provider_says_who_it_is(provider):
    assert find(provider.name) == provider
    assert provider.dialect in providers.DIALECTS
    assert provider.concurrency >= 1
    assert provider.base_url is None or provider.base_url.startswith("https://")
    assert (provider.key_env is not None) is provider.needs_key
    assert {"max_tokens_field", "structured_output"} <= provider.options


def test_a_request_becomes_json_with_its_messages_at_the_address(provider):
    sent = provider.encode(spec(), REQUEST, base_url=f"{BASE}/", api_key=KEY)
    assert sent.url == f"{BASE}/chat/completions"
    assert sent.headers["content-type"] == "application/json"
    body = json.loads(sent.body)
    assert body["messages"] == list(MESSAGES)
    assert body["model"] == "m"


def test_the_key_is_in_one_place_and_never_in_the_address(provider):
    sent = provider.encode(spec(), REQUEST, base_url=BASE, api_key=KEY)
    assert KEY not in sent.url
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in sent.body


def test_without_a_key_no_header_is_made_up(provider):
    assert "authorization" not in provider.encode(spec(), REQUEST, base_url=BASE, api_key=None).headers


def test_nothing_is_sent_that_the_user_did_not_set(provider):
    assert body_of(provider).keys() == {"model", "messages"}


def test_the_limit_of_tokens_has_one_of_its_two_names(provider):
    body = body_of(provider, spec(max_tokens=200))
    assert [body.get(name) for name in ("max_tokens", "max_completion_tokens")].count(200) == 1


def test_the_standard_answer_is_understood(provider):
    reply = provider.decode(WireReply(200, {"x-request-id": "req_1"}, orjson.dumps(STANDARD)), now=NOW)
    assert reply == Reply(
        text='{"number":"17"}',
        finish="stop",
        finish_reason="stop",
        usage=Usage(1000, 200, 600, 100, 150, STANDARD["usage"]),
        model="m-2026-01-01",
        request_id="req_1",
        reasoned=True,
    )


def test_a_secret_handed_to_the_decoder_is_hidden_from_the_failure(provider):
    wire_reply = WireReply(401, {}, orjson.dumps({"error": {"message": f"bad {KEY}", "code": KEY}}))
    failure = provider.decode(wire_reply, now=NOW, secrets=(KEY,))
    assert failure.action == "pause"
    assert KEY not in repr(failure)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


def shaped(fields, inner=anything):
    """Objects with the names a decoder looks at, and anything as their values."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(fields.split(), inner))


messages = shaped("content refusal tool_calls function_call reasoning_content reasoning reasoning_details")
tools = st.lists(shaped("function", shaped("arguments")) | anything, max_size=2)
messages |= st.fixed_dictionaries({"tool_calls": tools})
parts = st.lists(shaped("type text") | st.sampled_from([{"type": "text", "text": "x"}, {"type": "text", "text": 1}]))
messages |= st.fixed_dictionaries({"content": parts})
reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "error"])
choices = st.lists(
    shaped("message finish_reason error") | st.fixed_dictionaries({"message": messages, "finish_reason": reasons})
)
counts = st.integers(-2, 10**13) | st.integers() | anything
details = shaped("cached_tokens cache_write_tokens reasoning_tokens", counts) | anything
usages = shaped("prompt_tokens completion_tokens total_tokens prompt_cache_hit_tokens", counts)
usages |= st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts},
    optional={"prompt_tokens_details": details, "completion_tokens_details": details},
)
errors = anything | shaped("code type message details metadata param retry_after status")
completions = st.fixed_dictionaries(
    {}, optional={"choices": choices | anything, "usage": usages | anything, "error": errors, "model": anything}
)
bodies = anything | errors | completions | st.lists(errors, max_size=2)
statuses = st.sampled_from([200, 202, 301, 400, 401, 403, 404, 429, 500]) | st.integers(100, 999)


@settings(deadline=None, max_examples=100)
@given(bodies, statuses, st.dictionaries(st.sampled_from(["retry-after", "x-should-retry", "location"]), st.text()))
def test_no_json_can_break_the_decoder_and_what_it_gives_can_be_journaled(body, status, headers):
    raw = json.dumps(body).encode()
    for name in providers.names():
        result = find(name).decode(WireReply(status, headers, raw), now=NOW)
        assert isinstance(result, Reply | Failure)
        assert isinstance(result, Failure) or 200 <= status < 300
        assert orjson.dumps(result, default=lambda part: dict(part) if isinstance(part, Mapping) else part._asdict())
        if isinstance(result, Reply) and result.finish == "stop":
            assert result.text is not None


@given(st.binary() | st.text().map(str.encode), statuses)
def test_no_bytes_can_break_the_decoder(raw, status):
    for name in providers.names():
        assert isinstance(find(name).decode(WireReply(status, {}, raw), now=NOW), Reply | Failure)


# Choosing a provider


def test_a_name_nobody_knows_gets_the_nearest_one_and_the_list():
    with pytest.raises(JobFileError) as caught:
        find("opnai")
    text = str(caught.value)
    assert "'opnai'" in text
    assert "did you mean 'openai'?" in text
    assert "local, modelslab, openai" in text
    assert "base_url" in text


@pytest.mark.parametrize("name", ["_errors", "openai.PROVIDER", "", "os"])
def test_only_the_files_without_an_underscore_are_providers(name):
    with pytest.raises(JobFileError):
        find(name)


def test_any_other_name_with_an_address_speaks_openais_dialect_without_needing_a_key():
    own = find("my-vllm", base_url="http://127.0.0.1:8000/v1")
    assert (own.name, own.base_url, own.key_env, own.needs_key) == ("my-vllm", "http://127.0.0.1:8000/v1", None, False)
    assert body_of(own, spec(max_tokens=5))["max_tokens"] == 5


def test_openai_itself_gets_the_newer_name_of_the_limit_and_another_address_the_older():
    assert body_of(find(), spec(max_tokens=5))["max_completion_tokens"] == 5
    assert body_of(find(base_url="https://api.openai.com/v1/"), spec(max_tokens=5))["max_completion_tokens"] == 5
    assert body_of(find(base_url=BASE), spec(max_tokens=5))["max_tokens"] == 5
    chosen = find(base_url=BASE, max_tokens_field="max_completion_tokens")
    assert body_of(chosen, spec(max_tokens=5))["max_completion_tokens"] == 5


@pytest.mark.parametrize(
    ("dialect", "says"),
    [("anthropic", "not in this version"), ("opanai", "did you mean 'openai'"), ("x", "known: openai")],
)
def test_a_dialect_this_version_does_not_speak_is_said(dialect, says):
    with pytest.raises(JobFileError, match=says):
        find(dialect=dialect)
    assert find(dialect="openai") == find()


@pytest.mark.parametrize(
    "base_url",
    [
        "vendor.example/v1",
        "ftp://vendor.example",
        "https://",
        "https://a:b@c/v1",
        "https://h/v1?v=1",
        "http://[::1",
        "http://h:x/",
    ],
)
def test_an_address_that_cannot_work_is_a_mistake_in_the_job(base_url):
    with pytest.raises(JobFileError, match=r"\[model\] base_url") as caught:
        find(base_url=base_url)
    assert "a:b" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_token_field": "max_tokens"}, "did you mean 'max_tokens_field'"),
        ({"key_in_body": True}, "'openai' has no such option"),
        ({"max_tokens_field": "limit"}, "max_tokens_field must be one of"),
        ({"max_tokens_field": 5}, "max_tokens_field must be one of"),
        ({"structured_output": ["none"]}, "structured_output must be one of"),
    ],
)
def test_an_option_the_provider_does_not_have_is_a_mistake_in_the_job(options, says):
    with pytest.raises(JobFileError, match=says):
        find(**options)


def test_one_is_not_true():
    with pytest.raises(JobFileError, match="key_in_body must be one of true, false"):
        find("modelslab", key_in_body=1)


@pytest.mark.parametrize(
    ("base_url", "key_env", "needs_key"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY", True),
        ("https://api.openai.com/v2/", "OPENAI_API_KEY", True),
        ("HTTPS://API.OpenAI.com:443/v2", "OPENAI_API_KEY", True),
        ("http://api.openai.com/v1", None, False),
        ("https://api.openai.com:8443/v1", None, False),
        ("https://api.openai.com.evil.example/v1", None, False),
        ("http://127.0.0.1:8000/v1", None, False),
    ],
)
def test_a_presets_key_is_not_sent_to_another_server_unless_the_job_names_it(base_url, key_env, needs_key):
    own = find(base_url=base_url)
    assert (own.key_env, own.needs_key, own.base_url) == (key_env, needs_key, base_url)


# ModelsLab's quirks


def test_modelslab_can_take_its_key_and_model_in_the_body():
    vendor = find("modelslab", key_in_body=True, model_field="model_id")
    sent = vendor.encode(spec(name="gpt-oss-20b"), REQUEST, base_url=vendor.base_url, api_key=KEY)
    assert sent.url == "https://modelslab.com/api/v7/llm/chat/completions"
    assert sent.headers == {"content-type": "application/json"}
    body = json.loads(sent.body)
    assert (body["key"], body["model_id"]) == (KEY, "gpt-oss-20b")
    assert "model" not in body


def test_modelslab_gets_json_mode_four_slots_and_the_older_limit():
    vendor = find("modelslab")
    body = body_of(vendor, spec(schema=STRICT, max_tokens=7))
    assert (vendor.concurrency, body["response_format"], body["max_tokens"]) == (4, {"type": "json_object"}, 7)


def test_a_change_of_the_key_is_not_served_from_memory():
    vendor, model = find("modelslab", key_in_body=True), spec()
    assert body_of(vendor, model, key="first-key")["key"] == "first-key"
    assert body_of(vendor, model, key="other-key")["key"] == "other-key"
    assert "key" not in body_of(vendor, model, key=None)


# OpenAI's dialect: requests


def test_parameters_and_extras_go_into_the_body_as_they_are_and_extras_win():
    model = spec(
        params={"temperature": 0.0, "stop": ["END"], "reasoning_effort": "low"},
        extra=MappingProxyType({"top_k": 5, "reasoning_effort": "high", "provider": {"order": ["a"]}}),
    )
    body = body_of(find(), model)
    del body["messages"], body["model"]
    assert body == {
        "temperature": 0.0,
        "stop": ["END"],
        "reasoning_effort": "high",
        "top_k": 5,
        "provider": {"order": ["a"]},
    }


@pytest.mark.parametrize(
    "name",
    [
        "model", "model_id", "messages", "key", "max_tokens", "max_completion_tokens", "n", "stream", "service_tier",
        "best_of", "stream_options", "extra_body", "models", "route", "preset", "fallbacks", "user_config", "plugins",
        "web_search_options", "search_parameters", "enable_search", "data_sources", "modalities", "audio", "prediction",
        "logprobs", "top_logprobs",
    ],
)  # fmt: skip
def test_extras_may_not_replace_what_the_budget_the_costs_or_the_answer_rest_on(name):
    with pytest.raises(JobFileError, match=f"extra may not hold '{name}'"):
        providers.check_extra({"top_k": 1, name: 1})
    with pytest.raises(JobFileError):
        body_of(find(), spec(extra={name: 1}))


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "web_search_preview", "search_context_size": "low"},
        {"type": "openrouter:web_search"},
        {"type": "builtin_function", "function": {"name": "$web_search"}},
        {"type": "code_interpreter"},
        {"type": "mcp", "server_url": "https://example.com"},
        {"google_search": {}},
        "web_search",
    ],
)
def test_tools_that_a_server_runs_and_charges_are_refused(tool):
    weather = {"type": "function", "function": {"name": "weather"}}
    with pytest.raises(JobFileError, match="tools of the type"):
        providers.check_extra({"tools": [weather, tool]})


def test_what_only_shapes_the_answer_may_stand_in_extra():
    extra = {
        "tools": [{"type": "function", "function": {"name": "weather"}}, {"type": "custom", "custom": {"name": "x"}}],
        "tool_choice": "auto", "parallel_tool_calls": False, "functions": [], "response_format": {"type": "text"},
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {"50256": -100},
        "reasoning": {"effort": "low"}, "chat_template_kwargs": {"enable_thinking": False}, "thinking": {"type": "off"},
        "provider": {"order": ["a"], "allow_fallbacks": False}, "transforms": [], "usage": {"include": True},
        "prompt_cache_key": "k", "prompt_cache_retention": "24h", "safety_identifier": "u", "user": "u", "store": False,
        "metadata": {"a": "b"}, "guided_json": {"type": "object"}, "stop_token_ids": [1], "seed": 1,
    }  # fmt: skip
    providers.check_extra(extra)
    assert body_of(find(), spec(extra=extra)).items() >= extra.items()


def test_each_model_and_each_provider_gets_its_own_body():
    first, second = spec(name="a", max_tokens=1), spec(name="b", max_tokens=1)
    strict, plain = find(), find("modelslab")
    seen = [body_of(which, model)["model"] for model in (first, second, first) for which in (strict, plain, strict)]
    assert seen == ["a"] * 3 + ["b"] * 3 + ["a"] * 3
    assert body_of(strict, first).keys() - body_of(plain, first).keys() == {"max_completion_tokens"}


def test_a_schema_is_asked_for_in_the_providers_most_exact_way_unless_the_job_chooses():
    exact = body_of(find(), spec(schema=STRICT))["response_format"]
    assert exact == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": STRICT}}
    assert body_of(find(structured_output="json_object"), spec(schema=STRICT))["response_format"] == {
        "type": "json_object"
    }
    assert "response_format" not in body_of(find(structured_output="none"), spec(schema=STRICT))
    loose = body_of(find(), spec(schema={"type": "object"}))["response_format"]["json_schema"]
    assert loose["strict"] is False


def nested(inner):
    return STRICT | {"properties": {"number": inner}}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (STRICT, True),
        (nested(STRICT), True),
        (nested({"type": "array", "items": STRICT}), True),
        (nested({"anyOf": [STRICT, {"type": "null"}]}), True),
        (nested({"type": ["string", "null"], "enum": ["a", None]}), True),
        (nested({"$ref": "#/$defs/one"}) | {"$defs": {"one": STRICT}}, True),
        (STRICT | {"additionalProperties": True}, False),
        ({key: STRICT[key] for key in STRICT if key != "additionalProperties"}, False),
        (STRICT | {"required": []}, False),
        (STRICT | {"required": ["number", "other"]}, False),
        (STRICT | {"required": "number"}, False),
        (STRICT | {"properties": []}, False),
        (nested({"type": "object"}), False),
        (nested({"type": ["object", "null"]}), False),
        (nested({"type": "string", "maxLength": 20}), False),
        (nested({"type": "array", "items": {"type": "object"}}), False),
        (nested({"anyOf": [{"type": "object"}]}), False),
        (nested({"anyOf": {}}), False),
        (nested({"allOf": [STRICT]}), False),
        (nested(True), False),
        (STRICT | {"$defs": {"one": {"type": "object"}}}, False),
        (STRICT | {"$defs": []}, False),
        ({"type": "array", "items": STRICT}, False),
        (STRICT | {"anyOf": [STRICT]}, False),
        ({}, False),
        (nested({"$ref": "#/$defs/one", "description": "d"}) | {"$defs": {"one": STRICT}}, False),
        (nested({}), False),
        (nested({"enum": ["a"]}), False),
        (nested({"type": "array"}), False),
        (nested({"type": "string", "format": "date"}), True),
        (nested({"type": "string", "format": "uri"}), False),
        (nested({"type": "string", "pattern": "^(?:a|b)$"}), True),
        (nested({"type": "string", "pattern": "(?=a)"}), False),
    ],
)
def test_strict_is_asked_only_where_no_server_would_refuse_the_schema_for_it(schema, strict):
    assert obeys_strict_rules(schema) is strict


spellings = [
    KEY,
    KEY[:6],
    KEY[:9],
    "sk-proj-0123456789",
    "\\",
    "%5At9-my-own-key",
    "&#90;t9-my-own-key",
    "é",
    '"',
    " ",
    "k",
]
texts = st.sampled_from(spellings) | st.lists(st.sampled_from(spellings)).map("".join)
facts = st.recursive(
    texts | st.just(7),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(texts, some, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=400)
@given(facts)
def test_what_is_passed_over_as_clear_holds_nothing_that_would_be_hidden(value):
    assert hide_in(value, (KEY,)) == _hidden_in(value, (KEY,))


ANSWER = {
    "id": "id",
    "model": "m",
    "choices": [{"finish_reason": "stop", "message": {"content": "hi", "refusal": None, "reasoning": "so"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": "0.5", "by": {"list": ["x", 1]}},
}
CALLED = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
ERROR = {"type": "t", "code": "c", "message": "m", "param": "p", "metadata": {"raw": "r", "provider_name": "n"}}
ANSWERS = [
    ANSWER,
    ANSWER | {"usage": {"prompt_tokens": None, "note": "x"}},
    ANSWER | {"choices": [{"finish_reason": "tool_calls", "message": CALLED}]},
    ANSWER | {"choices": [{"finish_reason": {"type": "stop"}, "message": {"content": [{"text": "hi"}]}}]},
    ANSWER | {"choices": [{"finish_reason": "error", "error": ERROR, "message": {"content": "hi"}}]},
    ANSWER | {"choices": [], "error": ERROR},
    ANSWER | {"choices": [], "error": "text"},
    {"detail": [{"loc": ["body", "x"], "msg": "m", "type": "t"}]},
]
HEADERS = (
    "x-request-id",
    "retry-after",
    "location",
    "x-ratelimit-limit-requests",
    "x-ratelimit-reset-requests",
    "cf-ray",
)


def marked_somewhere(value, mark):
    """Yield the value with the mark in one place after the other: a text, instead of anything else, a name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (value | {name: one} for one in marked_somewhere(inner, mark))
            yield {(f"{name} {mark}" if each == name else each): one for each, one in value.items()}
        yield value | {f"by {mark}": 1}
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], one, *value[at + 1 :]] for one in marked_somewhere(inner, mark))
    elif isinstance(value, str):
        yield f"{value} {mark} {value}"
    yield mark


@pytest.mark.parametrize("status", [200, 302, 400, 401, 429, 500])
def test_wherever_an_answer_repeats_the_key_no_field_of_what_is_made_of_it_holds_it(provider, status):
    if provider.billed_cost_path is None:
        provider = provider.configured(None, {"billed_cost_path": "usage.cost"})
    mark = "mark-0123456789abcdef"
    bodies = [orjson.dumps(one) for answer in ANSWERS for one in marked_somewhere(answer, mark)]
    replies = [WireReply(status, {}, body) for body in (*bodies, mark.encode(), b"<p>%b" % mark.encode())]
    replies += [WireReply(status, {name: mark}, orjson.dumps(body)) for name in HEADERS for body in ANSWERS]
    assert any(mark in str(provider.decode(reply, now=NOW)) for reply in replies), "it stands where it would be kept"
    for reply in replies:
        found = provider.decode(reply, now=NOW, secrets=(mark,))
        assert type(found) in (Reply, Failure)
        # Named tuples and records show all their fields, also those that are added later.
        assert mark not in repr(found), (reply.headers, reply.body)
