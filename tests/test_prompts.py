"""Prompts: what a template sees, what it refuses, and the keys of requests."""

import hashlib
import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, JobFileError, MissingColumn
from pipeline.prompts import KeyMaker, PromptSpec, Template, _environment, broken_key
from pipeline.records import ModelSpec, Row


def row(**values: Any) -> Row:
    return Row(0, "1", values, "data.jsonl:7")


def user_text(template: str, **values: Any) -> str:
    (message,) = Template(PromptSpec(user=template)).render(row(**values))
    assert message["role"] == "user"
    return message["content"]


# What a template prints


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1.0, "1.0"),
        (1, "1"),
        ("007", "007"),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ({"a": None, "é": [1.0, True]}, '{"a": null, "é": [1.0, true]}'),
        ([1, "x"], '[1, "x"]'),
        (12345678901234567890123, "12345678901234567890123"),
        ("<b>&", "<b>&"),
        ("", ""),
        ("{{ other }} {% if %}", "{{ other }} {% if %}"),
    ],
)
def test_a_value_prints_as_it_stands_in_the_file(value, printed):
    assert user_text("{{ v }}", v=value, other="secret") == printed


def test_tojson_writes_plain_json_and_not_html_escapes():
    assert user_text("{{ v | tojson }}", v={"a": "<é>'"}) == '{"a": "<é>\'"}'
    assert user_text("{{ v | tojson(indent=1) }}", v=[1]) == "[\n 1\n]"


def test_null_can_be_replaced_by_nothing():
    assert user_text('[{{ v or "" }}]', v=None) == "[]"


def test_the_trailing_newline_of_a_template_is_kept():
    assert user_text("{{ v }}\n", v="a") == "a\n"


def test_a_column_whose_name_is_not_a_word_is_read_through_row():
    (message,) = Template(PromptSpec(user='{{ row["first name"] }}')).render(row(**{"first name": "Ada"}))
    assert message["content"] == "Ada"


def test_a_column_called_row_is_that_column():
    assert user_text("{{ row }}", row="mine") == "mine"


def test_a_key_that_is_also_the_name_of_a_python_method_is_the_key():
    assert user_text("{{ order.items }}", order={"items": ["a"]}) == '["a"]'


def test_a_python_method_never_prints():
    with pytest.raises(InputError, match="function"):
        user_text("{{ order.items }}", order={})


def test_system_and_user_become_two_messages_in_that_order():
    template = Template(PromptSpec(system="Be brief in {{ lang }}.", user="{{ text }}"))
    assert template.render(row(lang="en", text="hi")) == (
        {"role": "system", "content": "Be brief in en."},
        {"role": "user", "content": "hi"},
    )


def test_a_system_prompt_that_renders_blank_is_left_out():
    template = Template(PromptSpec(system="{% if strict %}Be strict.{% endif %} ", user="x"))
    assert [m["role"] for m in template.render(row(strict=False))] == ["user"]
    assert [m["role"] for m in template.render(row(strict=True))] == ["system", "user"]


def test_a_prompt_without_any_column_is_the_same_for_every_row():
    assert user_text("Say {% raw %}{{ hi }}{% endraw %}") == "Say {{ hi }}"


# What it refuses


def test_a_missing_column_is_named_with_the_row_and_the_nearest_column():
    with pytest.raises(InputError, match=r"data\.jsonl:7: .*'txet'.*did you mean 'text'\?"):
        user_text("{{ txet }}", text="a", lang="en")


def test_a_missing_key_inside_an_object_is_named_with_the_row():
    with pytest.raises(InputError, match=r"data\.jsonl:7: .*'titel'"):
        user_text("{{ meta.titel }}", meta={"title": 1})


@pytest.mark.parametrize(
    "template", ["{{ x | tojson }}", "{% for a in x %}{% endfor %}", "{{ x ~ 'a' }}", "{{ x + 1 }}"]
)
def test_a_missing_column_is_an_error_wherever_it_is_used(template):
    with pytest.raises(InputError, match="'x'"):
        user_text(template, y=1)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ text.__class__.__mro__ }}",
        "{{ text + 1 }}",
        "{{ 1 / 0 }}",
        "{{ items.append(1) }}",
        "{% include 'other' %}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_an_error_that_names_the_row(template):
    with pytest.raises(InputError, match=r"^data\.jsonl:7: the prompt can't be rendered: \w+: "):
        user_text(template, text="a", items=[])


@pytest.mark.parametrize("name", ["lipsum()", "[1, 2] | random"])
def test_nothing_random_can_be_used_because_equal_rows_must_make_equal_requests(name):
    with pytest.raises((InputError, JobFileError)):
        user_text("{{ " + name + " }}")


def test_half_a_surrogate_pair_is_an_error_that_names_the_row():
    with pytest.raises(InputError, match=r"data\.jsonl:7: .*surrogate"):
        user_text("{{ v ~ '\\ud800' }}", v="a")  # values have none: no format can bring one


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PromptSpec(user="a\n{{ b"), r"^\[prompt\] user, line 2: "),
        (PromptSpec(system="{% if %}", user="a"), r"^\[prompt\] system, line 1: "),
        (PromptSpec(user="{{ a | nosuchfilter }}"), r"^\[prompt\] user, line 1: .*nosuchfilter"),
        (PromptSpec(system="\ud800", user="a"), r"^\[prompt\] system holds half of a surrogate pair"),
    ],
)
def test_a_mistake_in_a_template_is_named_with_its_line(spec, message):
    with pytest.raises(JobFileError, match=message):
        Template(spec)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (PromptSpec(), "needs one of user, file and messages_column"),
        (PromptSpec(system="a"), "needs one of"),
        (PromptSpec(user="a", file="b"), "not user and file"),
        (PromptSpec(user="a", messages_column="m"), "not user and messages_column"),
        (PromptSpec(system="a", messages_column="m"), "system can't go with messages_column"),
    ],
)
def test_a_prompt_has_exactly_one_origin(spec, problem):
    assert len(spec.problems()) == 1
    assert problem in spec.problems()[0]
    with pytest.raises(JobFileError):
        Template(spec)


@pytest.mark.parametrize(
    "spec", [PromptSpec(user=""), PromptSpec(system="a", user="b"), PromptSpec(system="a", file="f")]
)
def test_a_sound_prompt_has_no_problems(spec):
    assert spec.problems() == []


# Columns


def test_columns_are_the_names_the_template_uses():
    template = Template(PromptSpec(system="{{ lang }}", user="{% set y = text %}{{ y }}{{ meta.a }}{{ row['q'] }}"))
    assert template.columns == {"lang", "text", "meta"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ x | default('none') }}",
        "{% if x is defined %}{{ x }}{% endif %}",
        "{{ x if x is defined else 'none' }}",
        "{% if text %}{% else %}{{ x }}{% endif %}",
        "{{ text or x }}",
        "{% set x = 1 %}{{ x }}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1) }}",
    ],
)
def test_a_name_that_is_not_asked_for_is_no_missing_column(template):
    Template(PromptSpec(user=template)).render(row(text="some"))


@pytest.mark.parametrize(
    "template",
    ["{{ x }}", "{% if x %}{% endif %}", "{{ x or text }}", "{% for a in x %}{% endfor %}"],
)
def test_a_name_that_is_asked_for_is_a_missing_column(template):
    with pytest.raises(InputError, match="'x'"):
        Template(PromptSpec(user=template)).render(row(text="some"))


# Prompt files


@pytest.mark.parametrize(
    ("text", "system", "user"),
    [
        ("Just {{ text }}\n", None, "Just {{ text }}"),
        ("Two\n\n", None, "Two\n"),
        ("--- system ---\nS\n--- user ---\nU\n", "S", "U"),
        ("\n \n--- system ---\nS\n--- user ---\nU\n", "S", "U"),
        ('{{ "--- system ---" }}\n', None, "--- system ---"),
        ("S1\nS2\n--- user ---\nU1\nU2", "S1\nS2", "U1\nU2"),
        ("--- user ---\nU\n--- user ---\n", None, "U\n--- user ---"),
        ("\n--- user ---\nU", None, "U"),
        ("text --- user ---", None, "text --- user ---"),
        ("", None, ""),
    ],
)
def test_a_prompt_file_splits_at_its_first_user_line(tmp_path, text, system, user):
    (tmp_path / "p.md").write_text(text)
    messages = Template(PromptSpec(file=str(tmp_path / "p.md"))).render(row(text="{{ text }}"))
    assert [message["content"] for message in messages] == ([user] if system is None else [system, user])


def test_a_prompt_file_is_read_with_windows_line_ends_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "p.md"
    file.write_bytes(b"\xef\xbb\xbf--- system ---\r\nS \xc3\xa9\r\n--- user ---\r\n{{ text }}\r\n")
    messages = Template(PromptSpec(file=str(file))).render(row(text="hi"))
    assert [m["content"] for m in messages] == ["S é", "hi"]


def test_a_system_prompt_can_be_added_to_a_file_without_one(tmp_path):
    (tmp_path / "p.md").write_text("{{ text }}")
    messages = Template(PromptSpec(system="S", file=str(tmp_path / "p.md"))).render(row(text="hi"))
    assert [m["content"] for m in messages] == ["S", "hi"]


@pytest.mark.parametrize(
    ("content", "system", "message"),
    [
        (b"--- system ---\na\n--- user ---\nb\n{{ c", None, r"p\.md, line 5: "),
        (b"--- system ---\nonly", None, "has no line --- user ---"),
        (b"S\n--- user ---\nU", "another", "has a system part too"),
        (b"\xff", None, "can't be read"),
        (b"{# v2 #}\n--- system ---\na\n--- user ---\nb", None, r"p\.md, line 2: '--- system ---' begins no part here"),
        (b"--- System ---\na\n--- User ---\nb", None, r"p\.md, line 1: '--- System ---' begins no part here"),
        (b"---system---\na", None, r"p\.md, line 1: "),
        (b"--- user ---\na\n--- system ---\nb", None, r"p\.md, line 3: "),
        (b"--- user ---\na\n--- assistant ---\nb", None, r"p\.md, line 3: .* messages_column"),
    ],
)
def test_a_mistake_in_a_prompt_file_is_named_with_the_file_and_its_line(tmp_path, content, system, message):
    (tmp_path / "p.md").write_bytes(content)
    with pytest.raises(JobFileError, match=message) as caught:
        Template(PromptSpec(system=system, file=str(tmp_path / "p.md")))
    assert "p.md" in str(caught.value)


def test_a_missing_prompt_file_is_named():
    with pytest.raises(JobFileError, match=r"no file nowhere\.md"):
        Template(PromptSpec(file="nowhere.md"))


# A column of chats

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "{{ hi }}", "name": "ann"}]


@pytest.mark.parametrize("value", [CHAT, json.dumps(CHAT), [m | {"name": m.get("name")} for m in CHAT]])
def test_a_chat_is_taken_as_it_is_from_a_list_or_from_json_text(value):
    template = Template(PromptSpec(messages_column="chat"))
    assert template.render(row(chat=value)) == tuple(CHAT)
    assert template.columns == {"chat"}


def test_parts_and_tool_calls_are_content_too():
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    first, second = Template(PromptSpec(messages_column="chat")).render(row(chat=chat))
    assert first["content"] == [{"type": "text", "text": "a"}]
    assert second == chat[1]


def test_numbers_of_a_chat_in_json_text_are_what_they_are_in_a_list():
    numbers = [2**64 - 1, -(2**63), 1e30, -1e30, 0.1, 5]
    chat = [{"role": "user", "content": [{"type": "text", "text": "9" * 40, "x": numbers}]}]
    template = Template(PromptSpec(messages_column="chat"))
    assert template.render(row(chat=json.dumps(chat))) == template.render(row(chat=chat)) == tuple(chat)


@pytest.mark.parametrize(
    "instead",
    [
        {"tool_calls": [{"id": "1"}]},
        {"function_call": {"name": "f", "arguments": "{}"}},
        {"refusal": "no"},
        {"audio": {"id": "audio_1"}},
        {"reasoning_content": "2 + 2"},
    ],
    ids=str,
)
def test_an_assistant_s_turn_may_hold_something_else_than_content(instead):
    template = Template(PromptSpec(messages_column="chat"))
    turn = {"role": "assistant", "content": None} | instead
    assert template.render(row(chat=[*CHAT, turn])) == (*CHAT, turn)
    without = {"role": "assistant"} | instead
    assert template.render(row(chat=[*CHAT, without])) == (*CHAT, without)


NESTED = {}
for _ in range(450):
    NESTED = {"x": NESTED}


def test_what_parquet_has_as_null_deep_in_a_chat_is_not_there():
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}}
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, picture, None]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    parquets = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "image_url": None},
                {"type": "image_url", "text": None, "image_url": picture["image_url"] | {"detail": None}},
                None,
            ],
            "tool_calls": None,
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call | {"index": None, "function": call["function"] | {"strict": None}}],
        },
    ]
    template = Template(PromptSpec(messages_column="chat"))
    once, again = template.render(row(chat=chat)), template.render(row(chat=parquets))
    assert list(once) == list(again) == chat
    assert KeyMaker(PLAIN).key(once) == KeyMaker(PLAIN).key(again)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "must hold a list of messages"),
        ([], "at least one"),
        ("", "is not JSON"),
        ("[", "is not JSON"),
        ("{}", "must hold a list"),
        (["hi"], "message 1 must be an object"),
        ([*CHAT, {"content": "a"}], "message 3 has no role"),
        ([{"role": "", "content": "a"}], "message 1 has no role"),
        ([{"role": "user"}], "message 1 has no content"),
        ([{"role": "user", "content": 5}], "message 1 has no content"),
        ([{"role": "user", "content": None, "refusal": "no"}], "message 1 has no content"),
        (
            [{"role": "assistant", "content": None, "refusal": None}],
            "only an assistant's may be null, beside tool_calls,",
        ),
        ([{"role": "assistant", "content": 5, "refusal": "no"}], "message 1 has no content"),
        ([{"role": "user", "content": "\ud800"}], "can't be sent"),
        *[
            (given, "can't be sent: Integer exceeds 64-bit range")
            for number in (2**64, -(2**63) - 1, 10**29)
            for chat in [[{"role": "user", "content": [{"type": "text", "text": "a", "x": number}]}]]
            for given in (chat, json.dumps(chat))
        ],
        ([{"role": "user", "content": [NESTED]}], "can't be sent: Recursion limit"),
        (json.dumps([{"role": "user", "content": [{"x": 2**64, "y": NESTED}]}]), "can't be sent"),
        (json.dumps([{"role": "user", "content": [NESTED]}]), "can't be sent: Recursion limit"),
    ],
)
def test_what_is_not_a_chat_is_an_error_that_names_row_and_column(value, problem):
    with pytest.raises(InputError, match=problem) as caught:
        Template(PromptSpec(messages_column="chat")).render(row(chat=value))
    assert str(caught.value).startswith("data.jsonl:7: column 'chat'")


def test_a_missing_column_of_chats_is_named_with_the_nearest():
    template = Template(PromptSpec(messages_column="messages"))
    with pytest.raises(InputError, match="did you mean 'message'"):
        template.render(row(message=CHAT))


# Keys

USER = ({"role": "user", "content": "Hello"},)
PLAIN = ModelSpec("local", "m")
FULL = ModelSpec(
    "openai",
    "gpt-oss-20b",
    base_url="https://user:pw@API.Example.com:443/v1/?q=1",
    max_tokens=200,
    params={"temperature": 0.0, "top_p": 0.5},
    extra={"big": 2**70},
    schema={"type": "object"},
)


@pytest.mark.parametrize(
    ("model", "messages", "occurrence", "key"),
    [
        (PLAIN, USER, 0, "v19f173bb020c3c06fe3c42592ae3dcd04"),
        (PLAIN, USER, 3, "v10f3181d245617f9a526d7a7ec03688e8"),
        (PLAIN, (), 0, "v1a62b144b6d4d09ab790aa25a4e8536eb"),
        (FULL, USER, 0, "v1c2fc92ab8597d354da151dfb489a18a4"),
        (
            FULL,
            ({"role": "user", "content": [{"type": "text", "text": "é", "w": 1.5}]},),
            1,
            "v10489166f9fd621c9e0904f88e16c12f0",
        ),
    ],
)
def test_keys_never_change_because_they_find_what_was_paid_for(model, messages, occurrence, key):
    assert KeyMaker(model).key(messages, occurrence) == key


def test_the_key_of_a_broken_line_never_changes():
    assert broken_key("ab" * 16) == "v14618ebe92a363e8c3c47036f56d1ae8d"


def test_a_key_is_the_hash_of_the_documented_json():
    document = (
        b'{"base_url":"https://api.example.com/v1","extra":{"big":1180591620717411303424},'
        b'"messages":[{"content":"Hello","role":"user"}],"model":"gpt-oss-20b","occurrence":2,'
        b'"params":{"temperature":0,"top_p":0.5},"provider":"openai","schema":{"type":"object"}}'
    )
    expected = "v1" + hashlib.blake2b(document, digest_size=16).hexdigest()
    assert KeyMaker(FULL).key(USER, 2) == expected


def whole_numbers_as_integers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole_numbers_as_integers(each) for name, each in value.items()}
    return [whole_numbers_as_integers(each) for each in value] if isinstance(value, list | tuple) else value


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(-1e15, 1e15)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(WORDS, VALUES, max_size=3)
SOME_TABLES = st.dictionaries(WORDS, VALUES.filter(lambda value: value is not None), max_size=3)


@given(
    provider=WORDS,
    name=WORDS,
    params=SOME_TABLES,
    extra=TABLES,
    schema=st.none() | TABLES,
    messages=st.lists(
        st.fixed_dictionaries({"role": WORDS, "content": WORDS | st.lists(TABLES, max_size=2)}), max_size=3
    ),
    occurrence=st.integers(0, 3),
)
def test_a_key_put_together_from_pieces_equals_the_hash_of_the_whole(
    *, provider, name, params, extra, schema, messages, occurrence
):
    document = {"provider": provider, "model": name, "messages": messages}
    document |= {"params": params} if params else {}
    document |= {"extra": extra} if extra else {}
    document |= {"schema": schema} if schema is not None else {}
    document |= {"occurrence": occurrence} if occurrence else {}
    canonical = orjson.dumps(whole_numbers_as_integers(document), option=orjson.OPT_SORT_KEYS)
    maker = KeyMaker(ModelSpec(provider, name, params=params, extra=extra, schema=schema))
    assert maker.key(tuple(messages), occurrence) == "v1" + hashlib.blake2b(canonical, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ModelSpec("p", "m", max_tokens=5), ModelSpec("p", "m", max_tokens=9)),
        (ModelSpec("p", "m", params={"temperature": 0}), ModelSpec("p", "m", params={"temperature": -0.0})),
        (ModelSpec("p", "m", params={"seed": None}), ModelSpec("p", "m", extra={})),
        (ModelSpec("p", "m", params={"a": 1, "b": 2}), ModelSpec("p", "m", params={"b": 2, "a": 1})),
        (ModelSpec("p", "m", extra={"a": 1e20}), ModelSpec("p", "m", extra={"a": 10**20})),
        (ModelSpec("p", "m", base_url="HTTP://Host:80/v1/"), ModelSpec("p", "m", base_url="http://k:s@host/v1?x=1")),
        (ModelSpec("p", "m", base_url="http://[::1]:8000"), ModelSpec("p", "m", base_url="http://[::1]:8000/")),
        (ModelSpec("p", "m", base_url="http://h/v1"), ModelSpec("p", "m", base_url="http://h/v1/chat/completions")),
        (ModelSpec("p", "m", base_url="http://h/v1"), ModelSpec("p", "m", base_url="http://h/v1//chat/completions/")),
    ],
)
def test_models_that_ask_the_same_make_the_same_key(one, other):
    assert KeyMaker(one).key(USER) == KeyMaker(other).key(USER)


@pytest.mark.parametrize(
    "other",
    [
        ModelSpec("q", "m"),
        ModelSpec("p", "n"),
        ModelSpec("p", "m", params={"temperature": 0}),
        ModelSpec("p", "m", params={"logprobs": True}),
        ModelSpec("p", "m", params={"logprobs": 1}),
        ModelSpec("p", "m", extra={"temperature": 0}),
        ModelSpec("p", "m", schema={}),
        ModelSpec("p", "m", base_url="http://host/v1"),
        ModelSpec("p", "m", base_url="http://host:81/v1"),
        ModelSpec("p", "m", base_url="https://host/v1"),
    ],
)
def test_models_that_ask_something_else_make_another_key(other):
    keys = {KeyMaker(ModelSpec("p", "m")).key(USER), KeyMaker(ModelSpec("p", "m", params={"x": 1})).key(USER)}
    assert KeyMaker(other).key(USER) not in keys


def test_whole_numbers_inside_messages_are_one_number_whatever_their_type():
    def chat(number: float) -> tuple[dict[str, Any], ...]:
        return ({"role": "user", "content": [{"type": "x", "n": number}]},)

    maker = KeyMaker(PLAIN)
    assert maker.key(chat(1) + USER) == maker.key(chat(1.0) + USER) != maker.key(chat(True) + USER)
    assert maker.key(chat(1)) == maker.key(chat(1.0))
    assert maker.key(chat(0)) == maker.key(chat(-0.0))
    assert maker.key(chat(1)) != maker.key(chat(True))
    assert maker.key(chat(2**64)) != maker.key(chat(2**64 + 1))


def test_half_surrogate_pairs_have_keys_of_their_own():
    maker = KeyMaker(PLAIN)
    keys = {maker.key(({"role": "user", "content": text},)) for text in ("\ud800", "\ud801", "\\ud800", "a")}
    assert len(keys) == 4


def test_messages_of_any_mapping_type_make_the_same_key():
    from types import MappingProxyType  # noqa: PLC0415 - used here only

    assert KeyMaker(PLAIN).key((MappingProxyType(USER[0]),)) == KeyMaker(PLAIN).key(USER)


def test_an_address_that_is_none_is_a_mistake_in_the_job_file():
    with pytest.raises(JobFileError, match="base_url"):
        KeyMaker(ModelSpec("p", "m", base_url="http://host:port/v1"))


@pytest.mark.parametrize("value", ["text", "", "{{ text }} <b>", "ünï🙂", 7, 1.0, None, True, ["a", 1], {"k": "v"}])
@pytest.mark.parametrize("name", ["text", "loop", "range", "row", "dict", "super", "_"])
def test_a_template_of_text_and_columns_is_what_jinja_makes_of_it(name, value):
    source = "a {{ " + name + " }}\n{#- gone #}  {{ text }}\n"
    values = {"text": "T", name: value}
    (message,) = Template(PromptSpec(user=source)).render(Row(0, "1", values, "rows.jsonl:1"))
    assert message["content"] == _environment().from_string(source).render(values)


TAGS = ["x", None, True, 1.5]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ tags | unique }}", '["x", null, true, 1.5]'),
        ("{{ tags | map('string') }}", '["x", "null", "true", "1.5"]'),
        ("{{ tags | reverse | tojson }}", '[1.5, true, null, "x"]'),
        ("{{ {'k': tags | unique} | tojson }}", '{"k": ["x", null, true, 1.5]}'),
        ("{{ o.items() }}", '[["k", null]]'),
        ("{{ range(3) }}", "[0, 1, 2]"),
        ("{{ tags | join(', ') }}", "x, null, true, 1.5"),
        ("{{ [o] | join(', ', attribute='k') }}", "null"),
        ("{{ none | trim }}-{{ tags[1] | upper }}", "null-NULL"),
        ("{{ 'v: ' ~ tags[2] ~ o ~ 3 }}", 'v: true{"k": null}3'),
        ("{{ tags | string }}", '["x", null, true, 1.5]'),
        ("{{ '%s of %d' | format(tags[1], 3) }} {{ '%(a)s' | format(a=tags[2]) }}", "null of 3 true"),
        ("{{ 'abcdefghijklmnop' | truncate(5, True, '') }}", "abcde"),
        ("{{ missing | default('none') | upper }}", "NONE"),
        ("{{ '%.2f %s %i %d' | format(price, price, price, true) }}", "1234.50 1234.50 1234 1"),
        ("{{ '%(a)s' | format(a=0.1) }} {{ tags[1] | safe }}", "0.1 null"),
        ("{{ '<b>%s</b>' | safe | format('<i>') }}", "<b>&lt;i&gt;</b>"),
        ("{% autoescape true %}{{ ['<', '>'] | join('<br>' | safe) }}{% endautoescape %}", "&lt;<br>&gt;"),
    ],
)
def test_filters_make_the_text_that_is_printed(template, text):
    (message,) = Template(PromptSpec(user=template)).render(row(tags=TAGS, o={"k": None}, price=Decimal("1234.50")))
    assert message["content"] == text


@pytest.mark.parametrize("value", ["self", "cycler('a', 'b')", "namespace(a=1)", "[cycler('a')] | tojson"])
def test_what_has_another_text_each_time_is_an_error(value):
    with pytest.raises(InputError, match=r"stands where a value should|has no JSON"):
        Template(PromptSpec(user="{{ " + value + " }}")).render(row(text="T"))


@pytest.mark.parametrize(
    "template",
    ["{{ missing | trim }}", "{{ 'a' ~ missing }}", "{{ [missing] | join }}", "{{ [missing] }}",
     "{{ {'a': missing} | tojson }}"],
)  # fmt: skip
def test_what_a_row_lacks_is_an_error_behind_a_filter_too(template):
    with pytest.raises(MissingColumn):
        Template(PromptSpec(user=template)).render(row(text="T"))


def test_null_that_is_printed_through_a_filter_is_known():
    template = Template(PromptSpec(user="{{ a | trim }} {{ 'x' ~ b.c }} {{ d | default(1) }} {{ e | length }}"))
    assert template.printed == {("a",), ("b", "c")}
