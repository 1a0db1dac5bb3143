"""What becomes of an answer in OpenAI's dialect: tables of bodies, from the documented one to the hostile."""

import orjson
import pytest
from completions import STANDARD, answered
from hypothesis import given
from hypothesis import strategies as st

from pipeline.providers._json import UNREADABLE, load
from pipeline.providers.openai import PROVIDER
from pipeline.records import Failure, ModelSpec, Reply, Usage, WireReply


def decode(body, status=200, **headers):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PROVIDER.decode(WireReply(status, named, raw), now=0.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"choices":' * 100_000,
        b'{"usage":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"choices": [], "usage": null}',
        b'{"choices": null}',
        b'{"choices": {"0": 1}}',
        b'{"choices": [null]}',
        b'{"choices": [[]]}',
        b"null",
        b'"text"',
        b"17",
        b"{}",
        b"[]",
        b"[[]]",
    ],
)
def test_a_200_without_an_answer_is_retried_and_its_cost_unknown(raw):
    failure = decode(raw)
    assert (failure.action, failure.error_type, failure.cost_unknown) == ("retry", "undecodable_answer", True)


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (answered(), '{"number":"17"}', "stop"),
        (answered(finish_reason="length"), '{"number":"17"}', "length"),
        (answered(finish_reason="content_filter"), '{"number":"17"}', "refused"),
        (answered(finish_reason=None), '{"number":"17"}', "other"),
        (answered(finish_reason="eos"), '{"number":"17"}', "other"),
        (answered(finish_reason=7), '{"number":"17"}', "other"),
        (answered({"content": None, "refusal": "I can't."}), "I can't.", "refused"),
        (answered({"content": "x", "refusal": ""}), "x", "stop"),
        (answered({"content": [{"type": "refusal", "refusal": "I can't."}]}), "I can't.", "refused"),
        (answered({"content": ["Well.", {"type": "refusal", "refusal": "I can't."}]}), "Well.", "refused"),
        (answered({"content": [{"type": "refusal"}, {"type": "refusal", "refusal": " "}, "x"]}), "x", "stop"),
        (answered({"content": [{"type": "refusal", "refusal": ["no"]}, "x"]}), "x", "stop"),
        (answered({"content": None, "tool_calls": [{"function": {"arguments": '{"a":1}'}}]}), '{"a":1}', "stop"),
        (answered({"content": "", "tool_calls": [{"function": {"arguments": {"a": 1}}}]}), '{"a":1}', "stop"),
        (
            answered(
                {"content": "Calling.", "tool_calls": [{"function": {"arguments": "{}"}}]}, finish_reason="tool_calls"
            ),
            "{}",
            "stop",
        ),
        (answered({"content": "Calling.", "tool_calls": [{"function": {"arguments": "{}"}}]}), "{}", "stop"),
        (
            answered(
                {"content": "Calling.", "tool_calls": [{"function": {"arguments": "{}"}}]}, finish_reason="tool_use"
            ),
            "{}",
            "stop",
        ),
        (answered({"content": "Done.", "tool_calls": [{"function": {"arguments": ""}}]}), "Done.", "stop"),
        (answered({"content": "Done.", "tool_calls": [None, 5]}), "Done.", "stop"),
        (answered({"content": "Done.", "tool_calls": []}), "Done.", "stop"),
        (answered({"content": None, "tool_calls": [{"function": {"name": "f"}}]}), None, "length"),
        (
            answered({"content": "Done.", "tool_calls": [{"function": {"name": "f"}}]}, finish_reason="tool_calls"),
            "Done.",
            "stop",
        ),
        (
            answered({"content": None, "tool_calls": [None, {"function": {"name": "f", "arguments": "{}"}}]}),
            '[{"name":null,"arguments":null},{"name":"f","arguments":{}}]',
            "stop",
        ),
        (
            answered(
                {"content": "Calling.", "tool_calls": [{"function": {"arguments": "{}"}}]}, finish_reason=["stop"]
            ),
            "{}",
            "other",
        ),
        (answered({"content": "\n\n", "tool_calls": [{"function": {"arguments": '{"a":1}'}}]}), '{"a":1}', "stop"),
        (answered({"content": {"a": [1]}}), '{"a":[1]}', "stop"),
        (
            answered({"content": [{"type": []}, {"type": "text", "text": 1}, {"type": "text", "text": "a"}]}),
            "a",
            "stop",
        ),
        (
            answered({"content": None, "function_call": {"arguments": "{}"}}, finish_reason="function_call"),
            "{}",
            "stop",
        ),
        (
            answered({"content": None, "tool_calls": [{"function": {"arguments": '{"a'}}]}, finish_reason="length"),
            '{"a',
            "length",
        ),
        (
            answered(
                {"content": [{"type": "text", "text": "a"}, {"type": "thinking", "text": "no"}, {"text": "b"}, "c"]}
            ),
            "abc",
            "stop",
        ),
    ],
)
def test_every_ending_is_told_apart(body, text, finish):
    reply = decode(body)
    assert (reply.text, reply.finish) == (text, finish)


def without_reasoning(message, **choice):
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    return answered(message, **choice) | {"usage": usage}


@pytest.mark.parametrize("content", [None, "", " \n"])
@pytest.mark.parametrize(
    "body",
    [
        answered({"content": "placeholder"}),
        without_reasoning({"reasoning_content": "Let me think"}),
        without_reasoning({"reasoning": "Let me think"}),
        without_reasoning({"reasoning_details": [{"text": "Let me think"}]}),
    ],
)
def test_an_answer_that_was_all_reasoning_was_cut_off_whatever_the_server_calls_it(body, content):
    message = body["choices"][0]["message"] | {"content": content}
    reply = decode(body | {"choices": [{"finish_reason": "stop", "message": message}]})
    assert (reply.finish, reply.finish_reason, reply.reasoned) == ("length", "stop", True)


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think"}]}


@pytest.mark.parametrize(
    ("content", "finish", "reasoned"),
    [
        ([THINKING], "length", True),  # Magistral
        ([THINKING, {"type": "text", "text": " \n"}], "length", True),
        ([THINKING, {"type": "text", "text": "17"}], "stop", True),
        ([{"type": "reasoning", "text": "Let me think"}], "length", True),
        ([{"type": "thinking", "thinking": []}], "stop", False),
        ([{"type": "thinking"}], "stop", False),
        ([{"type": ["thinking"]}, None, 5, "17"], "stop", False),
        ([], "stop", False),
    ],
)
def test_a_list_of_nothing_but_thoughts_was_cut_off_too(content, finish, reasoned):
    reply = decode(without_reasoning({"content": content}))
    assert (reply.finish, reply.reasoned) == (finish, reasoned)


THOUGHTS = {"reasoning_content": "x" * 471}


@pytest.mark.parametrize(
    ("message", "details", "beyond"),
    [
        ({"content": "x" * 30}, {}, False),
        ({"content": "x" * 29} | THOUGHTS, {}, False),
        ({"content": "x" * 30} | THOUGHTS, {}, True),
        ({"content": None} | THOUGHTS, {}, False),
        ({"content": "x" * 30} | THOUGHTS, {"completion_tokens_details": {"reasoning_tokens": 40}}, False),
        ({"content": "x" * 30} | THOUGHTS, {"reasoning_tokens": 40}, False),
        ({"content": "x" * 30} | THOUGHTS, {"total_tokens": 140}, False),  # it proves that they are in no other count
        ({"content": "x" * 29, "reasoning": "x" * 471} | THOUGHTS, {}, False),
        ({"content": "x", "reasoning_details": [{"text": "x" * 400}]}, {}, False),
        ({"content": "x", "reasoning_details": [{"text": "x" * 500}]}, {}, True),
        ({"content": [{"type": "thinking", "thinking": "x" * 500}, {"type": "text", "text": "x"}]}, {}, True),
        ({"content": [{"type": "thinking", "thinking": "x" * 100}, {"type": "text", "text": "x"}]}, {}, False),
    ],
)
def test_a_cut_off_answer_tells_whether_its_tokens_can_hold_what_was_thought(message, details, beyond):
    usage = {"prompt_tokens": 9, "completion_tokens": 100 if "total_tokens" not in details else 50} | details
    assert decode(answered(message, finish_reason="length") | {"usage": usage}).reasoned_beyond_usage is beyond
    assert decode(answered(message | {"content": "x"}) | {"usage": usage}).reasoned_beyond_usage is False


def test_nothing_at_all_is_no_answer_but_an_empty_text_is_one():
    assert decode(without_reasoning({"content": None})).finish == "other"
    empty = decode(without_reasoning({"content": ""}))
    assert (empty.text, empty.finish, empty.reasoned) == ("", "stop", False)


@pytest.mark.parametrize("empty", ["", []])
def test_reasoning_of_nothing_is_no_reasoning(empty):
    reply = decode(without_reasoning({"content": "", "reasoning_content": empty}))
    assert (reply.finish, reply.reasoned) == ("stop", False)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [({"x_request_id": "req_1"}, STANDARD, "req_1"), ({}, STANDARD, "chatcmpl-1"), ({}, STANDARD | {"id": 4}, None)],
)
def test_an_answer_carries_the_providers_name_for_the_exchange(headers, body, expected):
    assert decode(body, **headers).request_id == expected


@pytest.mark.parametrize(
    ("error", "action", "error_type"),
    [
        (None, "retry", "server_error"),
        ({"code": 502, "message": "upstream"}, "retry", "undecodable_answer"),
        ({"code": 402, "message": "no credit"}, "pause", "undecodable_answer"),
        ({"code": "content_filter"}, "reject", "content_filter"),
    ],
)
def test_a_model_that_failed_while_answering_is_a_failure_that_knows_its_usage(error, action, error_type):
    failure = decode(answered(finish_reason="error", error=error), x_request_id="req_1")
    assert (failure.action, failure.error_type, failure.request_id) == (action, error_type, "req_1")
    assert (failure.cost_unknown, failure.usage.output_tokens, failure.model) == (False, 200, "m-2026-01-01")
    body = answered(finish_reason="error") | {"usage": None}
    assert decode(body).cost_unknown is True


def test_an_error_in_a_choice_is_a_failure_whatever_ended_it():
    failure = decode(answered(error={"code": 502, "message": "the upstream broke"}))
    assert (failure.result, failure.usage.output_tokens) == ("unavailable", 200)


@pytest.mark.parametrize("status", [199, 300, 400, 500, 503])
def test_only_a_2xx_is_an_answer(status):
    assert isinstance(decode(STANDARD, status), Failure)


def test_an_answer_that_a_server_broke_off_as_it_was_shut_down_is_none():
    failure = decode(answered(finish_reason="abort"))
    assert (failure.action, failure.result, failure.usage.output_tokens) == ("retry", "unavailable", 200)


def test_an_answer_that_repeated_itself_is_cut_off():
    assert decode(answered(finish_reason="repetition")).finish == "length"


@pytest.mark.parametrize("error", [None, {}, "", False, []])
def test_an_empty_error_beside_an_answer_is_no_error(error):
    assert isinstance(decode(STANDARD | {"error": error}), Reply)


def test_an_error_beside_an_answer_wins():
    failure = decode(STANDARD | {"error": {"code": 429, "message": "slow"}})
    assert (failure.closes_door, failure.cost_unknown) == (True, False)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 5)),
        (STANDARD["usage"], Usage(1000, 200, 600, 100, 150)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": None}}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": []}, Usage(9, 5)),
        # DeepSeek
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            Usage(9, 5, 4),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_cache_hit_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 3},
            },
            Usage(9, 5, 3),
        ),
        # the total proves that reasoning was left out of the output
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 34,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(9, 25, 0, 0, 20),
        ),
        # what only the total has is reasoning that isn't told apart (Gemini), also beside some that is
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 34}, Usage(9, 25, 0, 0, 20)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 34,
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(9, 25, 0, 0, 22),
        ),
        # a total that is too small, or none at all, says nothing
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 3}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": "34"}, Usage(9, 5)),
        # whole numbers with a point
        (
            {
                "prompt_tokens": 9.0,
                "completion_tokens": 5.0,
                "total_tokens": 34.0,
                "prompt_tokens_details": {"cached_tokens": 4.0},
                "completion_tokens_details": {"reasoning_tokens": 20.0},
            },
            Usage(9, 25, 4, 0, 20),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4.5}}, None),
        ({"prompt_tokens": 1e300, "completion_tokens": 5}, None),
        # SGLang
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "reasoning_tokens": 4}, Usage(9, 5, 0, 0, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "reasoning_tokens": 0}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "reasoning_tokens": "4"}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "reasoning_tokens": 6}, None),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "reasoning_tokens": 4,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 5, 0, 0, 3),
        ),
        # Moonshot
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cached_tokens": 4}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 10}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": {"text": 4}}, Usage(9, 5)),
        # a cache beside the prompt, as the total proves, whatever it is called
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 18,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            Usage(13, 5, 4),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 18,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(9, 9, 4, 0, 4),
        ),
        # Anthropic's words alone, and a total that says nothing of them
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cache_read_input_tokens": 4},
            Usage(13, 5, 4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "cache_creation_input_tokens": 2},
            Usage(11, 5, 0, 2),
        ),
        # ... unless the prompt has details of its own
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "cache_creation_input_tokens": 2,
                "prompt_tokens_details": {"audio_tokens": 0},
            },
            Usage(9, 5, 0, 2),
        ),
        # sound has prices of its own
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 6}}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"audio_tokens": 6}}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"audio_tokens": 0}}, Usage(9, 5)),
        # all from a cache, all reasoning
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(9, 5, 9, 0, 5),
        ),
        # LiteLLM: Anthropic's words in the prompt, or beside it
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 2},
            },
            Usage(9, 5, 4, 2),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 5,
                "total_tokens": 14,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 2,
            },
            Usage(9, 5, 4, 2),
        ),
        (None, None),
        ([], None),
        ({}, None),
        ({"prompt_tokens": 9}, None),
        ({"prompt_tokens": 9, "completion_tokens": None}, None),
        ({"prompt_tokens": 9, "completion_tokens": "5"}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5.5}, None),
        ({"prompt_tokens": -9, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        ({"prompt_tokens": 10**13, "completion_tokens": 5}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}}, None),
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6}}, None),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5},
            },
            None,
        ),
    ],
)
def test_usage_has_one_form_and_numbers_that_contradict_each_other_are_none(raw, expected):
    usage = decode(STANDARD | {"usage": raw}).usage
    assert usage == (expected and expected._replace(raw=raw))
    assert usage is None or all(type(count) is int for count in usage if count is not usage.raw)


@pytest.mark.parametrize(
    ("message", "counts", "known"),
    [
        ({"content": "said"}, (0, 0), False),
        ({"content": "said"}, (9, 0), False),
        ({"content": "said"}, (0, 5), False),
        ({"content": "", "reasoning_content": "thought"}, (9, 0), False),
        ({"content": ""}, (9, 0), True),
        ({"content": ""}, (0, 0), False),
        ({"content": None}, (0, 0), False),
        ({"content": ""}, (0, 5), False),
        ({"content": None, "refusal": "I can't."}, (0, 0), True),
        ({"content": None, "refusal": "I can't."}, (9, 0), True),
    ],
)
def test_an_answer_of_no_tokens_has_an_unknown_usage_unless_no_model_said_it(message, counts, known):
    raw = dict(zip(("prompt_tokens", "completion_tokens"), counts, strict=True))
    usage = decode(answered(message) | {"usage": raw}).usage
    assert usage == (Usage(*counts, raw=raw) if known else None)


@pytest.mark.parametrize("content", ["", None])
def test_a_cut_off_answer_of_no_tokens_has_an_unknown_usage(content):
    """Reasoning ate the limit, and the server says nothing of it."""
    body = answered({"content": content}) | {"usage": {"prompt_tokens": 9, "completion_tokens": 0}}
    body["choices"][0]["finish_reason"] = "length"
    assert decode(body).usage is None


@pytest.mark.parametrize(("status", "unknown"), [(200, True), (504, True), (500, False), (400, False)])
def test_an_error_with_a_usage_of_nothing_is_as_one_without(status, unknown):
    body = {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    failure = decode(body, status)
    assert (failure.usage, failure.cost_unknown) == (None, unknown)


@pytest.mark.parametrize("place", ["model", "finish_reason", "id", "header"])
def test_a_key_in_a_name_that_is_cut_is_hidden_whole(place):
    key = "Zq7-mysecret-ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789-tail"
    echoed = f"{'r' * 150} Bearer {key}"
    body, headers = answered({"content": "said"}), {}
    if place == "finish_reason":
        body["choices"][0]["finish_reason"] = echoed
    elif place == "header":
        headers["x-request-id"] = echoed
    else:
        body[place] = echoed
    found = PROVIDER.decode(WireReply(200, headers, orjson.dumps(body)), now=0.0, secrets=[key])
    assert key[:8] not in repr(found)


def test_a_usage_object_too_large_to_keep_still_counts():
    usage = decode(STANDARD | {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "x": "y" * 20_000}}).usage
    assert (usage.input_tokens, usage.output_tokens, usage.raw) == (9, 5, {})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": NaN, "b": [Infinity, -Infinity], "c": 1}', {"a": None, "b": [None, None], "c": 1}),
        (rb'{"a": "half \ud83d"}', {"a": "half \ufffd"}),
        (
            rb'{"a": "\ude00 low, \ud83d\ude00 whole, \\ud83d text"}',
            {"a": "\ufffd low, \U0001f600 whole, \\ud83d text"},
        ),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (
            b'{"n": NaN, "a": ' + b"9" * 5000 + b', "b": 1e999, "c": 9223372036854775807}',
            {"n": None, "a": None, "b": None, "c": 2**63 - 1},
        ),
        (b"{", UNREADABLE),
        (b"", UNREADABLE),
        (b"<html>", UNREADABLE),
    ],
)
def test_json_that_a_strict_parser_refuses_is_mended_because_it_was_paid_for(raw, expected):
    assert load(raw) == expected


SPELLINGS = [r"\ud83d", r"\ude00", r"\uD83D\uDE00", r"\udbff", r"\u00e9", r"\\", r"\"", r"\n", "ud83d", "a", "\xe9"]


@given(st.lists(st.sampled_from(SPELLINGS)).map("".join), st.sampled_from(["", ', "x": NaN']))
def test_whatever_half_characters_an_answer_holds_its_texts_can_be_written(text, more):
    arguments = {"tool_calls": [{"function": {"name": "MARK", "arguments": "MARK"}}] * 2}
    for message in ({"content": "MARK"}, {"content": ["MARK", {"text": "MARK"}]}, {"refusal": "MARK"}, arguments):
        body = orjson.dumps(answered(message)).replace(b"MARK", f"x{text}".encode())
        assert decode(body[:-1] + more.encode() + b"}").text.encode()


def test_an_answer_cut_in_the_middle_of_an_emoji_is_not_lost():
    raw = orjson.dumps(answered({"content": "MARK"}, finish_reason="length")).replace(b"MARK", rb"so \ud83d")
    reply = decode(raw)
    assert (reply.text, reply.finish) == ("so \ufffd", "length")


@pytest.mark.parametrize("depth", [1, 100, 250])
def test_usage_that_is_nested_absurdly_can_still_be_written_into_a_journal_line(depth):
    nested = None
    for _ in range(depth):
        nested = {"a": nested}
    usage = decode(STANDARD | {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "x": nested}}).usage
    assert (usage.input_tokens, usage.output_tokens) == (9, 5)
    assert orjson.dumps({"t": "attempt", "v": {"attempt": {"usage": {"raw": usage.raw}}}})
    assert bool(usage.raw) is (depth < 250)


def ended(reason, message=None, **more):
    body = answered(message or {"content": "half an ans"})
    body["choices"][0]["finish_reason"] = reason
    return decode(body | more)


@pytest.mark.parametrize(
    "reason",
    [
        "model_length",
        "max_tokens",
        "MAX_TOKENS",
        "max_length",
        "model_context_window_exceeded",
        "max_output_tokens",
        "token_limit",
        "incomplete",
        "Length: max_tokens",
        {"type": "length"},
    ],
)
def test_every_word_for_a_cut_off_answer_is_one(reason):
    assert ended(reason).finish == "length"


@pytest.mark.parametrize(
    "reason",
    [
        "content_filter: RECITATION",  # Gemini
        "content_filter: PROHIBITED_CONTENT",
        "CONTENT_FILTER : x",
        "SAFETY",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "IMAGE_SAFETY",
        "sensitive",  # Z.AI
        "guardrail_intervened",  # Bedrock
        "content_filtered",
        "refusal",  # Anthropic
    ],
)
@pytest.mark.parametrize("choice", [{"message": {"content": ""}}, {"message": {"content": "The fir"}}, {}])
def test_every_word_for_a_filter_is_a_refusal_with_or_without_a_message(reason, choice):
    reply = decode(STANDARD | {"choices": [{"index": 0, "finish_reason": reason, **choice}]})
    assert (reply.finish, reply.finish_reason) == ("refused", reason)


@pytest.mark.parametrize("reason", ["function_call_filter: MALFORMED_FUNCTION_CALL", ":", ": length", "unstopped"])
def test_a_word_that_says_neither_leaves_the_answer_to_be_looked_at(reason):
    """A call that the model got wrong is no refusal: without a text the answer is invalid, and can be repaired."""
    assert ended(reason).finish == "other"


@pytest.mark.parametrize(
    "reason", ["insufficient_system_resource", "cancelled", "canceled", "timeout", "network_error"]
)
def test_an_answer_that_the_server_broke_off_is_tried_again(reason):
    failure = ended(reason)
    assert (failure.action, failure.result, failure.error_type) == ("retry", "unavailable", "server_error")
    assert failure.usage is not None


def test_of_several_tool_calls_all_are_kept_with_their_names():
    calls = [
        {"type": "function", "function": {"name": "add", "arguments": '{"sku":  "A"}'}},
        {"type": "function", "function": {"name": "drop", "arguments": {"sku": "B"}}},
        {"type": "function", "function": {"name": "odd", "arguments": "no JSON"}},
    ]
    text = ended("tool_calls", {"content": None, "tool_calls": calls}).text
    assert orjson.loads(text) == [
        {"name": "add", "arguments": {"sku": "A"}},
        {"name": "drop", "arguments": {"sku": "B"}},
        {"name": "odd", "arguments": "no JSON"},
    ]
    assert ended("tool_calls", {"content": None, "tool_calls": calls[:1]}).text == '{"sku":  "A"}'


ADD, DROP = ({"type": "function", "function": {"name": name}} for name in ("add", "drop"))


@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls", "tool_use"])
@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"tools": [ADD]}, False),
        ({"tools": [ADD, DROP]}, True),
        ({"tools": (ADD, DROP), "tool_choice": "required"}, True),
        ({"tools": [ADD, DROP], "tool_choice": ADD}, False),
        ({"tools": [ADD, DROP], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [ADD]}}}, True),
        ({"functions": [{"name": "add"}]}, False),
        ({"functions": [{"name": "add"}, {"name": "drop"}]}, True),
        ({"functions": [{"name": "add"}, {"name": "drop"}], "function_call": {"name": "add"}}, False),
        ({"tools": "add"}, False),
        ({}, False),
    ],
)
def test_a_call_tells_its_tool_where_the_model_had_a_choice_of_several(extra, named, finish_reason):
    called = {"name": "add", "arguments": '{"sku": "A"}'}
    for message in ({"tool_calls": [{"function": called}]}, {"function_call": called}):
        body = orjson.dumps(answered({"content": "Let me look."} | message, finish_reason=finish_reason))
        reply = PROVIDER.decode(WireReply(200, {}, body), now=0.0, spec=ModelSpec("openai", "m", extra=extra))
        assert reply.text == ('[{"name":"add","arguments":{"sku": "A"}}]' if named else '{"sku": "A"}')


@pytest.mark.parametrize(
    "call",
    [
        {"function_call": {"name": "", "arguments": ""}},
        {"function_call": {"name": None, "arguments": None}},
        {"tool_calls": [{"function": {"name": "", "arguments": ""}}]},
    ],
)
def test_an_empty_call_beside_a_text_hides_nothing(call):
    spec = ModelSpec("openai", "m", extra={"tools": [ADD, DROP]})
    body = orjson.dumps(answered({"content": "hi"} | call))
    assert PROVIDER.decode(WireReply(200, {}, body), now=0.0, spec=spec).text == "hi"


def test_of_several_tools_a_call_without_arguments_still_tells_its_tool():
    spec = ModelSpec("openai", "m", extra={"tools": [ADD, DROP]})
    for call, text in (({"function": {"name": "drop"}}, '[{"name":"drop","arguments":null}]'), (None, "Done.")):
        body = orjson.dumps(answered({"content": "Done.", "tool_calls": [call]}))
        assert PROVIDER.decode(WireReply(200, {}, body), now=0.0, spec=spec).text == text


CUSTOM = {"id": "c1", "type": "custom", "custom": {"name": "run", "input": 'print("hi")'}}


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        ([CUSTOM], 'print("hi")'),
        ([CUSTOM | {"custom": {"name": "run", "input": "17"}}], "17"),
        (
            [CUSTOM, {"type": "function", "function": {"name": "add", "arguments": "{}"}}],
            r'[{"name":"run","arguments":"print(\"hi\")"},{"name":"add","arguments":{}}]',
        ),
        ([CUSTOM | {"custom": {"name": "run"}}], None),
        ([CUSTOM | {"custom": "run"}], None),
    ],
)
def test_what_a_tool_of_the_type_custom_was_given_is_the_answer(calls, text):
    assert ended("tool_calls", {"content": None, "tool_calls": calls}).text == text


@pytest.mark.parametrize(
    ("usage", "kept"),
    [
        ({"prompt_tokens": 17, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10_000}}, True),
        ({"prompt_tokens": 17}, True),
        ({"prompt_tokens": 0, "completion_tokens": 0}, True),
        ({"prompt_tokens": 17, "completion_tokens": 5}, False),
        ({}, False),
        ("none", False),
    ],
)
def test_a_usage_that_says_no_cost_is_kept_for_whoever_settles_it(usage, kept):
    found = decode(answered() | {"usage": usage})
    assert found.odd_usage == (usage if kept else None)
    assert (found.usage is None) is (kept or not usage or usage == "none")
