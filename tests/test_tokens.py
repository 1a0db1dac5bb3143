"""Token counts: the published vectors, the traps of the tokenizer library, and the honesty of the method label."""

import hashlib
import json
import lzma
import re
import subprocess
import sys
from functools import cache
from importlib import resources
from types import SimpleNamespace

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from pipeline.errors import PromptmillError
from pipeline.tokens import FILE_BOUND, IMAGE_BOUND, _fast, attached_to, counter_for
from pipeline.tokens._check import HARD_CASES, TIKTOKEN_COUNTS
from pipeline.tokens._encodings import ORDINARY_CHARACTERS, count_many, count_tokens, encoding, measure
from pipeline.tokens._families import HARMONY_SYSTEM_BLOCK, family_of
from pipeline.tokens._ranks import OFFICIAL_SHA256, load_ranks, pack, unpack, verified_ranks
from pipeline.tokens._tokenizer import Tokenizer, libraries, tokenizer

# The example conversation of OpenAI's cookbook ("How to count tokens with tiktoken"), with the API's own counts.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into"
        " plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased"
        " leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                    "unit": {
                        "type": "string",
                        "description": "The unit of temperature to return",
                        "enum": ["celsius", "fahrenheit"],
                    },
                },
                "required": ["location"],
            },
        },
    }
]
HELLO = [{"role": "user", "content": "Hello"}]
EXACT = counter_for("openai", "gpt-4o-mini")
GPT_OSS = counter_for("modelslab", "gpt-oss-20b")
BLANKS = " " * 1_200_000 + "x"


def packed(name):
    return resources.files("pipeline.tokens").joinpath("data", f"{name}.xz").read_bytes()


# --- the rank files


@pytest.mark.parametrize("name", OFFICIAL_SHA256)
def test_the_shipped_ranks_rebuild_the_official_file_and_pack_back_into_the_same_content(name):
    shipped = packed(name)
    official = unpack(shipped)
    assert hashlib.sha256(official).hexdigest() == OFFICIAL_SHA256[name]
    assert verified_ranks(name, shipped) == load_ranks(name)
    assert official.startswith(b"IQ== 0\nIg== 1\n")
    again = pack(official)
    assert unpack(again) == official
    # Compared unpacked: liblzma's versions may compress the same content to different bytes.
    assert lzma.decompress(again) == lzma.decompress(shipped)


def test_the_shipped_ranks_stay_small():
    assert sum(len(packed(name)) for name in OFFICIAL_SHA256) < 1_300_000


def _flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _changed_inside(data):
    payload = lzma.decompress(data)
    return lzma.compress(_flipped(payload, len(payload) // 2))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: _flipped(data, len(data) // 2), id="a flipped bit"),
        pytest.param(lambda data: data[:-1000], id="a cut end"),
        pytest.param(lambda _: b"", id="an empty file"),
        pytest.param(lambda _: lzma.compress(b""), id="empty content"),
        pytest.param(_changed_inside, id="sound xz around wrong content"),
    ],
)
def test_a_damaged_rank_file_is_a_clear_error(damage):
    with pytest.raises(PromptmillError, match=r"cl100k_base\.xz .* damaged .* Install promptmill again"):
        verified_ranks("cl100k_base", damage(packed("cl100k_base")))


def test_ranks_with_a_hole_are_not_packed():
    with pytest.raises(ValueError, match="rank 2 stands where 1"):
        pack(b"IQ== 0\nIg== 2\n")


@cache
def published(name):
    """Return the arguments with which tiktoken itself builds an encoding."""
    ranks = "cl100k_base" if name == "cl100k_base" else "o200k_base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: load_ranks(ranks))
        return openai_public.ENCODING_CONSTRUCTORS[name]()


@cache
def published_encoding(name):
    return tiktoken.Encoding(**published(name))


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base", "o200k_harmony"])
def test_our_encodings_are_those_of_tiktoken(name):
    theirs = published(name)
    ours = encoding(name)
    assert ours._special_tokens == theirs["special_tokens"]
    text = "I'LL pay 12345,67 €\r\n\r\n  naïve Ünïcode\t\tनमस्ते 漢字かな 🙂👩‍👩‍👧 don't//\n/x<|endoftext|> \u00a0  "
    assert ours.encode(text, allowed_special="all") == tiktoken.Encoding(**theirs).encode(text, allowed_special="all")


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_our_patterns_split_every_character_as_the_published_ones_do(name):
    ours, theirs = encoding(name), published_encoding(name)
    # Behind a letter, an apostrophe, blanks and a line break, twice, and before a letter, a digit and a slash.
    texts = [
        f"a{each}b '{each} {each}{each}1  {each}\n{each}/ \t{each}"
        for each in map(chr, range(0x30000))
        if not "\ud800" <= each <= "\udfff"
    ]
    for start in range(0, len(texts), 64):  # in a text of many a difference shows just as well
        text = "".join(texts[start : start + 64])
        assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)


BLANKS_AND_SEAMS = " \t\n\r\x0b\x1c\x1f\x85\u00a0\u2028\u3000 '\u2019/-<.,1\u0663\u00bd"
LETTERS = "aAzZsStTlLdDé\u0130\u017fǅʰª漢\u094d\u0301🙂"


@settings(max_examples=500)
@given(st.text(st.sampled_from(BLANKS_AND_SEAMS + LETTERS)) | st.text(st.sampled_from("  \t\n\r aA1.'\u00a0")))
def test_our_patterns_split_any_text_as_the_published_ones_do(text):
    for name in ("cl100k_base", "o200k_base"):
        assert encoding(name).encode_ordinary(text) == published_encoding(name).encode_ordinary(text)


def test_counting_needs_no_network(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    encoding.cache_clear()
    tokenizer.cache_clear()
    assert EXACT.count(HELLO).tokens == 8


def test_asking_for_a_counter_does_not_load_the_tokenizer():
    code = "import sys, pipeline.tokens as t; t.counter_for('openai', 'gpt-4o'); print('tiktoken' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- published counts


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-4", 129), ("gpt-4-0613", 129), ("gpt-3.5-turbo", 129), ("gpt-4o", 124), ("gpt-4o-mini-2024-07-18", 124)],
)
def test_the_cookbook_conversation_is_counted_exactly_and_the_count_is_its_own_bound(model, tokens):
    count = counter_for("openai", model).count(JARGON)
    assert (count.tokens, count.method, count.bound) == (tokens, "exact", tokens)


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4", 105), ("gpt-3.5-turbo", 105), ("gpt-4o", 101)])
def test_the_cookbook_tools_are_counted_by_formula(model, tokens):
    count = counter_for("openai", model).count(WEATHER, extra={"tools": WEATHER_TOOLS})
    assert (count.tokens, count.method) == (tokens, "formula")
    assert count.bound > tokens


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        (HELLO, 7),
        ([{"role": "system", "content": "Always respond in riddles"}, *HELLO], 7 + 7 + 5),
        ([*HELLO, {"role": "assistant", "content": "Hello"}, *HELLO], 7 + 6 + 1 + 5),
    ],
)
def test_gpt_oss_is_counted_in_the_harmony_format(messages, tokens):
    count = GPT_OSS.count(messages)
    assert (count.tokens, count.method) == (HARMONY_SYSTEM_BLOCK + tokens, "formula")


@pytest.mark.parametrize(("date", "tokens"), [("Current date: 2026-11-23\n", HARMONY_SYSTEM_BLOCK), ("", 50)])
@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_the_harmony_system_block_has_the_size_that_is_counted_for_it(date, tokens, effort):
    block = (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        f"Knowledge cutoff: 2024-06\n{date}\nReasoning: {effort}\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    )
    assert len(encoding("o200k_harmony").encode(block, allowed_special="all")) == tokens


@pytest.mark.parametrize(("messages", "tokens"), [(HELLO, 31), ([{"role": "system", "content": "S"}, *HELLO], 16)])
def test_the_bundled_models_template_is_counted_as_llama_cpp_reported_it(messages, tokens):
    count = counter_for("local", "smollm2-135m-instruct").count(messages)
    assert (count.tokens, count.method) == (tokens, "approximate")


def test_a_factor_is_rounded_to_the_nearest_token():
    counter = counter_for("local", "smollm2-135m-instruct")  # 4 tokens x 1.15 are 4.6
    assert measure("o200k_base", "one two three four").tokens == 4
    assert counter.count([{"role": "system", "content": "one two three four"}]).tokens == 4 + 5 + 5


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_every_role_is_one_token_as_the_chat_overhead_assumes(name, role):
    assert measure(name, role).tokens == 1


# --- which method, for which model


@pytest.mark.parametrize(
    ("provider", "model", "overridden", "expected"),
    [
        ("openai", "gpt-4o", False, ("o200k_base", "exact")),
        ("openai", "gpt-4-0613", False, ("cl100k_base", "exact")),
        ("openai", "gpt-4o", True, ("o200k_base", "formula")),
        ("azure", "gpt-4o", False, ("o200k_base", "formula")),
        ("openrouter", "openai/gpt-4o-mini", False, ("o200k_base", "formula")),
        ("openai", "gpt-3.5-turbo-0301", False, ("cl100k_base", "formula")),
        ("openai", "gpt-4-turbo", False, ("cl100k_base", "formula")),
        ("openai", "gpt-4o-search-preview", False, ("o200k_base", "formula")),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::x1", False, ("o200k_base", "formula")),
        ("openai", "gpt-4.1-nano", False, ("o200k_base", "formula")),
        ("openai", "gpt-5-nano", False, ("o200k_base", "formula")),
        ("openai", "o4-mini", False, ("o200k_base", "formula")),
        ("modelslab", "gpt-oss-20b", False, ("o200k_harmony", "formula")),
        ("modelslab", "openai-gpt-oss-20b", False, ("o200k_harmony", "formula")),
        ("openrouter", "openai/gpt-oss-20b:free", False, ("o200k_harmony", "formula")),
        ("bedrock", "openai.gpt-oss-120b-1:0", False, ("o200k_harmony", "formula")),
        ("fireworks", "accounts/fireworks/models/gpt-oss-20b", False, ("o200k_harmony", "formula")),
        ("openai", "gpt-6", False, ("o200k_base", "approximate")),
        ("openai", "", False, ("o200k_base", "approximate")),
        ("anthropic", "claude-haiku-5-5", False, ("o200k_base", "approximate")),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", False, ("o200k_base", "approximate")),
    ],
)
def test_the_label_says_how_far_the_count_can_be_trusted(provider, model, overridden, expected):
    counter = counter_for(provider, model, overridden=overridden)
    assert (counter.encoding, counter.method) == expected
    assert counter.count(HELLO).method == expected[1]
    assert counter.encoding in counter.note


@pytest.mark.parametrize(
    ("model", "percent"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 100),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", 100),
        ("qwen/qwen3-8b", 104),
        ("smollm2-135m-instruct", 115),
        ("mistral-small-latest", 110),
        ("qwen3.5-plus", 110),
    ],
)
def test_an_approximation_states_its_factor(model, percent):
    assert family_of(model).percent == percent
    assert f"x {percent / 100:.2f}" in counter_for("any", model).note
    text = "word " * 1000
    one, many = (counter_for("any", model).count([{"role": "user", "content": text * n}]).tokens for n in (1, 2))
    assert many - one == pytest.approx(1000 * percent / 100, abs=2)


@pytest.mark.parametrize(
    ("messages", "schema", "extra", "method"),
    [
        (HELLO, None, {}, "exact"),
        (HELLO, None, {"service_tier": "flex", "metadata": {"run": "7"}}, "exact"),
        (HELLO, {"type": "object"}, None, "formula"),
        (HELLO, None, {"response_format": {"type": "json_object"}}, "formula"),
        (HELLO, None, {"something_new": 1}, "formula"),
        ([{"role": "tool", "content": "4", "tool_call_id": "a"}], None, None, "formula"),
        ([{"role": "narrator", "content": "x"}], None, None, "formula"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], None, None, "formula"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], None, None, "approximate"),
    ],
)
def test_whatever_is_not_plain_text_lowers_the_label(messages, schema, extra, method):
    count = EXACT.count(messages, schema=schema, extra=extra)
    assert count.method == method
    assert (count.bound == count.tokens) == (method == "exact")


# --- bounds

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)  # lone surrogates too
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
PARTS = st.lists(
    ANY_JSON
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "file", "refusal"])}, optional={"text": ANY_JSON}
    ),
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": ANY_TEXT | PARTS | ANY_JSON,
            "name": ANY_TEXT,
            "tool_calls": ANY_JSON,
        },
    ),
    max_size=4,
)


@settings(max_examples=150)
@given(messages=MESSAGES, schema=st.none() | st.dictionaries(ANY_TEXT, ANY_JSON, max_size=3), tools=ANY_JSON)
@example(messages=[], schema=None, tools=None)
def test_any_message_is_counted_and_never_above_its_bound(messages, schema, tools):
    for counter in (EXACT, GPT_OSS, counter_for("local", "smollm2-135m-instruct")):
        count = counter.count(messages, schema=schema, extra={"tools": tools} if tools else None)
        assert 0 < count.tokens <= count.bound
        assert count.method != "exact" or count.bound == count.tokens


@settings(max_examples=100)
@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_utf8_bytes(text):
    for name in ("o200k_base", "cl100k_base"):
        size = measure(name, text)
        assert size.tokens <= size.utf8_bytes == len(text.encode())


@pytest.mark.parametrize("text", ["Grüße aus Köln", "नमस्ते दुनिया", "漢字かな交じり文", "🙂" * 20, "plain"])
def test_a_bound_counts_every_byte_of_text_schema_and_extra(text):
    schema = {"type": "object", "properties": {text: {"type": "string"}}}
    extra = {"instructions": text}
    bound = GPT_OSS.count([{"role": "user", "content": text}], schema=schema, extra=extra).bound
    sent = [text, json.dumps(schema, ensure_ascii=False), json.dumps(extra, ensure_ascii=False)]
    assert bound >= sum(len(part.encode()) for part in sent)


def test_a_bound_holds_for_a_server_that_shows_the_schema_indented_and_escaped():
    schema = {"type": "object", "properties": {f"größe{n}": {"enum": ["ä"] * 50} for n in range(20)}}
    printed = len(json.dumps(schema, indent=4))
    assert printed > 2 * len(json.dumps(schema, separators=(",", ":"), ensure_ascii=False))
    assert GPT_OSS.count(HELLO, schema=schema).bound - GPT_OSS.count(HELLO).bound >= printed


IMAGE = {"url": "https://example.com/a.png"}
PNG = "data:image/png;base64,iVBORw0KGgo"
PDF = "data:application/pdf;base64,JVBERi0xLjc"


@pytest.mark.parametrize(
    ("part", "images", "files"),
    [
        ({"type": "image_url", "image_url": IMAGE}, 1, 0),
        ({"type": "image_url", "image_url": IMAGE["url"] + "?sign=1.pdf"}, 1, 0),
        ({"type": "input_image", "file_id": "file-1"}, 1, 0),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo"}}, 1, 0),
        ({"image_url": IMAGE}, 1, 0),
        ({"image_url": "https://example.com/picture?id=7"}, 1, 0),
        ({"image_url": {"url": PNG}}, 1, 0),
        ({"type": "media", "image_url": PNG}, 1, 0),
        ({"type": "text", "text": "", "image_url": IMAGE}, 1, 0),
        ({"images": [PNG, PNG, PNG]}, 3, 0),
        ({"type": "image_url", "image_url": "https://example.com/report.PDF?x=1#p"}, 0, 1),
        ({"type": "image_url", "image_url": {"url": PDF}}, 0, 1),
        ({"type": "image_url", "image_url": {"url": "data:;base64,JVBERi0xLjc"}}, 0, 1),
        ({"type": "image", "source": {"media_type": "application/pdf", "data": "JVBERi0xLjc"}}, 0, 1),
        ({"image_url": IMAGE, "video_url": "https://example.com/b"}, 0, 1),
        ({"type": "file", "file": {"file_id": "file-1"}}, 0, 1),
        ({"type": "document_url", "document_url": "https://example.com/a"}, 0, 1),
        ({"document_url": "https://example.com/a.pdf"}, 0, 1),
        ({"type": "file_url", "file_url": IMAGE}, 0, 1),
        ({"type": "input_video", "input_video": {"url": "https://example.com/a"}}, 0, 1),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, 0, 1),
        ({"type": "text", "text": {"url": "https://example.com/a"}}, 0, 1),
        ({"type": "something_new", "id": "x"}, 0, 1),
        ({"id": "x"}, 0, 1),
        ([{"image_url": IMAGE}], 0, 1),
        ("text", 0, 0),
        (5, 0, 0),
        ({"text": "text"}, 0, 0),
        ({"type": "text", "text": "text", "image_url": None, "cache_control": {"type": "ephemeral"}}, 0, 0),
        ({"type": "refusal", "refusal": "no", "text": ""}, 0, 0),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, 0, 0),
        ({"type": "text", "content": "text"}, 0, 0),
        ({"type": "tool_result", "tool_use_id": "t1", "content": "text"}, 0, 0),
        ({"type": "tool_result", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": PNG}]}, 1, 0),
        ({"type": "tool_result", "content": [{"type": "document", "source": PDF}, {"image_url": IMAGE}]}, 1, 1),
    ],
)
def test_a_part_is_bounded_by_what_it_may_become_not_by_its_link(part, images, files):
    message = {"role": "user", "content": [part]}
    count = EXACT.count([message])
    least = IMAGE_BOUND * images + FILE_BOUND * files
    assert least <= count.bound < least + 1_000
    assert count.tokens < 50 + 1_000 * (images + files)
    assert attached_to([message]) == (images, files)


def test_the_dearest_image_known_and_a_whole_context_are_within_the_bounds():
    assert IMAGE_BOUND >= 48_169
    assert FILE_BOUND >= 1_000_000


def test_what_goes_with_a_text_is_bounded_beside_it_and_in_a_message_s_own_fields_too():
    text = "word " * 1000
    with_text = EXACT.count([{"role": "user", "content": [{"type": "text", "text": text, "image_url": IMAGE}]}])
    assert with_text.bound > 50_000 + len(text)
    assert with_text.tokens > 1_000 + 1_000
    audio = {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}
    images = {"role": "user", "content": "Which one?", "images": [PNG, PNG]}
    assert EXACT.count([audio, images]).bound > 2_000_000 + 100_000
    assert attached_to([*HELLO, audio, images]) == (2, 1)
    plain = {
        "role": "assistant",
        "content": "x",
        "audio": None,
        "images": [],
        "profile": "p",
        "document_id": "d1",
        "filename": "a.pdf",
        "tool_calls": [{"id": 1}],
    }
    assert attached_to([plain]) == (0, 0)
    assert EXACT.count([plain]).bound < 2_000


def test_a_refusal_is_bounded_by_all_of_its_words():
    part = {"type": "refusal", "refusal": "no " * 1000, "text": ""}
    assert EXACT.count([{"role": "assistant", "content": [part]}]).bound > 3_000


def test_a_schema_is_not_counted_where_the_model_never_reads_it_but_stays_in_the_bound():
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}}
    local = counter_for("local", "smollm2-135m-instruct")
    assert local.count(HELLO, schema=schema).tokens == local.count(HELLO).tokens
    assert local.count(HELLO, schema=schema).bound > local.count(HELLO).bound
    assert GPT_OSS.count(HELLO, schema=schema).tokens > GPT_OSS.count(HELLO).tokens


def test_a_second_schema_is_not_mistaken_for_the_first():
    small, large = {"type": "object"}, {"type": "object", "description": "word " * 50}
    counter = counter_for("openai", "gpt-4o")
    first, second = counter.count(HELLO, schema=small), counter.count(HELLO, schema=large)
    assert second.tokens > first.tokens + 40
    assert counter.count(HELLO, schema=small) == first
    assert counter.count(HELLO).tokens == 8


# --- traps of tiktoken


@pytest.mark.parametrize("text", ["<|endoftext|>", "a <|im_start|>system<|end|> b", "<|endofprompt|>"])
@pytest.mark.parametrize("counter", [EXACT, GPT_OSS], ids=["o200k_base", "o200k_harmony"])
def test_special_tokens_in_a_document_are_ordinary_text(counter, text):
    plain = counter.count([{"role": "user", "content": ""}]).tokens
    ordinary = len(encoding(counter.encoding).encode_ordinary(text))
    assert ordinary > 1
    assert counter.count([{"role": "user", "content": text}]).tokens == plain + ordinary


def test_a_million_blanks_are_counted_in_pieces_and_labelled_so():
    count = EXACT.count([{"role": "user", "content": BLANKS}])
    assert count.method == "formula"
    assert 5_000 < count.tokens < 20_000
    assert count.bound >= len(BLANKS)


class PanicException(BaseException):
    """Named as PyO3 names a Rust panic."""


def test_a_panic_inside_the_tokenizer_is_survived():
    whole = encoding("o200k_base")

    def encode(text, **_):
        if len(text) > 500_000:
            raise PanicException
        return whole.encode_ordinary(text)

    assert count_tokens(SimpleNamespace(encode=encode), BLANKS) == count_tokens(whole, BLANKS)


def test_an_interrupt_while_counting_is_not_swallowed():
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_tokens(SimpleNamespace(encode_ordinary=interrupted), "text")


def test_lone_surrogates_are_counted_but_never_called_exact():
    count = EXACT.count([{"role": "user", "content": "broken \ud83d text \udc00"}])
    assert count.method == "formula"
    assert count.bound > count.tokens > 8


def test_a_text_that_comes_again_is_measured_once_a_piece(monkeypatch):
    measured = []
    original = Tokenizer.measure_all

    def listen(self, texts):
        measured.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(Tokenizer, "measure_all", listen)
    system = {"role": "system", "content": "You are terse."}
    rows = [[system, {"role": "user", "content": f"row {number}"}] for number in range(3)]
    counts = EXACT.count_all(rows)
    assert measured == ["You are terse.", "row 0", "row 1", "row 2"]
    assert counts == [EXACT.count(row) for row in rows]
    measured.clear()
    chats = [[dict(system), {"role": "user", "content": f"row {number % 3}"}] for number in range(9)]
    assert EXACT.count_all(chats) == counts * 3
    assert measured == ["You are terse.", "row 0", "row 1", "row 2"]


@settings(max_examples=100)
@given(
    before=MESSAGES,
    role=st.sampled_from(["system", "user", "assistant"]),
    texts=st.lists(ANY_TEXT, min_size=1, max_size=4),
    tools=st.none() | ANY_JSON,
)
def test_requests_that_differ_in_their_last_text_only_count_as_all_others_do(before, role, texts, tools):
    requests = [[*before, {"role": role, "content": text}] for text in texts]
    other = [*requests[0], {"role": "user", "content": "one message more: now they are counted one by one"}]
    for counter in (EXACT, GPT_OSS, counter_for("local", "smollm2")):
        alike, apart = (counter.count_all(them, extra={"tools": tools}) for them in (requests, [*requests, other]))
        assert alike == apart[:-1]


@settings(max_examples=50)
@given(st.lists(MESSAGES, max_size=5))
def test_requests_counted_together_count_as_each_does_alone(conversations):
    for counter in (EXACT, GPT_OSS):
        assert counter.count_all(conversations) == [counter.count(messages) for messages in conversations]


# --- the fast library (the extra `fast`, which the tests have)

SIZES = [ORDINARY_CHARACTERS, ORDINARY_CHARACTERS + 1]


def alone(name, monkeypatch):
    """A tokenizer of an installation without the extra."""
    monkeypatch.setattr(_fast, "installed", lambda: False)
    plain = Tokenizer(name)
    plain.measure_all([""])
    monkeypatch.undo()
    return plain


def both(name, monkeypatch):
    fast, plain = Tokenizer(name), alone(name, monkeypatch)
    fast.measure_all([""])
    assert (fast.library, plain.library) == ("toktok", "tiktoken")
    assert fast.problem is plain.problem is None
    return fast, plain


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_harmony"])
def test_the_fast_library_measures_whatever_is_odd_exactly_as_tiktoken_does(name, monkeypatch):
    fast, plain = both(name, monkeypatch)
    odd = [
        "a<|endoftext|>b <|im_start|>", "<|start|>x<|end|><|return|>", BLANKS, "\t" * 1_100_000, "\n" * 300_000,
        "Wachs'\u017f'STube " * 50,
        "broken \ud83d text \udc00", "\ud83d\ude42", "", " ", "\x00", "a" * 70_000, "漢字" * 20_000, "\u0301" * 5_000,
        *(" " * size for size in SIZES), *("=-" * (size // 2) for size in SIZES), *HARD_CASES,
    ]  # fmt: skip
    counts = plain.measure_all(odd)
    assert fast.measure_all(odd) == counts
    assert [fast.measure_all([text])[0] for text in odd] == counts
    assert fast.problem is None


@settings(max_examples=300)
@given(st.lists(ANY_TEXT | st.text(st.sampled_from("aAB1 \n\t'é漢्ा🙂-/<|>="), max_size=80), max_size=6))
def test_the_fast_library_measures_any_text_as_tiktoken_does(texts):
    for name in ("cl100k_base", "o200k_base"):
        assert tokenizer(name).measure_all(texts) == [measure(name, text) for text in texts]
        assert tokenizer(name).library == "toktok"


def _off_by_one(texts, **_):
    return [1 for _ in texts]


def _raises(*_, **__):
    raise RuntimeError("no such vocabulary")


def _panics(*_, **__):
    raise PanicException("index out of bounds")


@pytest.mark.parametrize(
    ("library", "why"),
    [
        (_off_by_one, r"it counts \d+ of \d+ test texts differently"),
        (_raises, "it failed with RuntimeError: no such vocabulary"),
        (_panics, "it failed with PanicException: index out of bounds"),
    ],
    ids=["differs", "raises", "panics"],
)
def test_a_fast_library_that_fails_its_check_is_not_used_and_that_is_said(library, why, monkeypatch):
    monkeypatch.setattr("toktok.batch_count", library)
    wary = Tokenizer("o200k_base")
    assert wary.measure_all(["Hello world"]) == [measure("o200k_base", "Hello world")]
    assert wary.library == "tiktoken"
    assert re.search(f"toktok-rs .* is not used for o200k_base: {why}.*tiktoken counts instead", wary.problem)


def test_a_fast_library_that_breaks_later_is_left_and_nothing_is_counted_wrong(monkeypatch):
    wary = Tokenizer("o200k_base")
    wary.measure_all(["sound"])
    for broken in (_panics, lambda _: [1]):
        wary._count_many, wary.library, wary.problem = broken, _fast.MODULE, None
        texts = ["Hello world", "and again"]
        assert wary.measure_all(texts) == [measure("o200k_base", text) for text in texts]
        assert wary.library == "tiktoken"
        assert wary.problem is not None


def test_an_interrupt_while_the_fast_library_counts_is_not_swallowed():
    wary = Tokenizer("o200k_base")
    wary.measure_all(["sound"])

    def interrupted(_):
        raise KeyboardInterrupt

    wary._count_many = interrupted
    with pytest.raises(KeyboardInterrupt):
        wary.measure_all(["text"])


def test_a_fast_library_that_cannot_be_loaded_is_no_silent_fallback(monkeypatch):
    def broken(_):
        raise ImportError("wrong ELF class")

    monkeypatch.setattr(_fast, "load", broken)
    wary = Tokenizer("o200k_base")
    assert wary.measure_all([""])
    assert "wrong ELF class" in wary.problem


@pytest.mark.parametrize("name", TIKTOKEN_COUNTS)
def test_the_counts_of_the_check_are_tiktokens(name):
    counts = [len(encoding(name).encode(text, disallowed_special=())) for text in HARD_CASES]
    assert list(TIKTOKEN_COUNTS[name]) == counts


@pytest.fixture
def without_fast(monkeypatch):
    monkeypatch.setattr(_fast, "installed", lambda: False)


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base", "o200k_harmony"])
def test_tiktokens_inner_way_counts_what_the_public_one_counts(name, without_fast):
    ours = Tokenizer(name)
    texts = [*HARD_CASES, "half \ud800 a pair", *(" " * size for size in SIZES)]
    assert ours.measure_all(texts) == [measure(name, text) for text in texts]
    assert ours.library == "tiktoken"
    assert ours._count_many is not None


@pytest.mark.parametrize("inner", [None, lambda texts: [1] * len(texts), _raises, _panics])
def test_without_tiktokens_inner_way_the_public_one_counts_and_nothing_is_said(inner, without_fast, monkeypatch):
    monkeypatch.setattr("pipeline.tokens._tokenizer.count_many", lambda _: inner)
    plain = Tokenizer("o200k_base")
    assert plain.measure_all(["Hello world"]) == [measure("o200k_base", "Hello world")]
    assert (plain.library, plain.problem, plain._count_many) == ("tiktoken", None, None)


def test_a_text_that_breaks_tiktokens_inner_way_is_counted_by_the_public_one(without_fast):
    ours = Tokenizer("o200k_base")
    ours.measure_all(["sound"])
    ours._count_many = _panics
    assert ours.measure_all(["Hello world"]) == [measure("o200k_base", "Hello world")]
    assert ours.problem is None


def test_another_tiktoken_may_lack_its_inner_way(monkeypatch):
    monkeypatch.setattr("pipeline.tokens._encodings.encoding", lambda _: SimpleNamespace(_core_bpe=object()))
    assert count_many("o200k_base") is None


def test_what_a_kept_count_depends_on_is_known_without_loading_anything(monkeypatch):
    with_fast = libraries()
    assert [name.split()[0] for name in with_fast] == ["tiktoken", "toktok"]
    monkeypatch.setattr(_fast, "installed", lambda: False)
    assert libraries() == with_fast[:1]
    facts = EXACT.identity(None, None)
    assert facts != GPT_OSS.identity(None, None)
    assert facts != EXACT.identity({"type": "object"}, None)
    assert facts != EXACT.identity(None, {"tools": []})


def test_the_check_has_thousands_of_characters_of_many_scripts():
    text = "".join(HARD_CASES)
    assert len(text) > 3_000
    assert all(
        text.count(sample) for sample in ("ש", "न", "த", "ไ", "漢", "한", "ъ", "İ", "🙂", "<|endoftext|>", " " * 80)
    )
