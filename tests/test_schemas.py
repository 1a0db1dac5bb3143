"""Answers against a schema."""

import json

import pytest

from pipeline.errors import JobFileError
from pipeline.schemas import MOST_SAID, AnswerCheck, doubts, unfenced

CHECK = AnswerCheck({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1}',
        ' {"n": 1}\n',
        '```json\n{"n": 1}\n```',
        '```\n{"n": 1}```',
        '```json{"n": 1}```',
        '```JSON {"n": 1} ```',
        '```{"n": 1}```',
        '\ufeff{"n": 1}',
        '``` json\n{"n": 1}\n```',
        '```application/json\n{"n": 1}\n```',
        '```json title="x"\n{"n": 1}\n```',
        '```json:out.json\n{"n": 1}\n```',
        '```{.json}\n{"n": 1}\n```',
        '```json, {"n": 2}\n{"n": 1}\n```',
        '```json {"n":\n1}\n```',
    ],
)
def test_a_fitting_answer_is_parsed_with_or_without_a_fence(text):
    assert CHECK.check(text) == ({"n": 1}, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "not JSON"), ("sure! {}", "not JSON"), ("{}", "required"), ('{"n": "x"}', "n: "), ("[1]", "type")],
)
def test_a_misfit_is_described_in_one_line(text, says):
    _, problem = CHECK.check(text)
    assert says in problem
    assert "\n" not in problem
    assert len(problem) <= 300


def test_a_schema_never_reaches_out_of_itself():
    with pytest.raises(JobFileError, match="not a valid JSON Schema"):
        AnswerCheck({"$ref": "http://127.0.0.1:9/other.json"})
    with pytest.raises(JobFileError, match="not a valid JSON Schema"):
        AnswerCheck({"$ref": "file:///etc/hostname"})


def test_text_around_a_fence_is_left_alone():
    assert unfenced("see ```x```") == "see ```x```"


def test_an_answer_nested_too_deeply_for_a_journal_line_is_a_misfit():
    assert AnswerCheck({}).check("[" * 400 + "]" * 400) == (None, "the answer is nested too deeply")


def test_the_end_of_what_is_said_of_a_long_value_is_kept():
    _, problem = AnswerCheck({"properties": {"s": {"maxLength": 20}}}).check('{"s": "%s"}' % ("x" * 1000))
    assert problem.startswith('s: "xxx')
    assert problem.endswith("is longer than 20 characters")
    assert len(problem) < 320


def test_what_is_said_of_an_answer_has_an_end():
    check = AnswerCheck({"additionalProperties": {"type": "integer"}})
    _, problem = check.check(json.dumps({"k" * 500 + str(n): "x" * 1000 for n in range(10)}))
    assert len(problem) == MOST_SAID


def test_all_mistakes_are_told_up_to_four():
    check = AnswerCheck({"additionalProperties": {"type": "string"}})
    assert check.check('{"a": 1, "b": "x", "c": 2}')[1] == 'a: 1 is not of type "string"; c: 2 is not of type "string"'
    assert check.check(json.dumps({f"k{n}": n for n in range(10)}))[1].count("is not of type") == 4


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        ({"multipleOf": 10}, "12345678901234567890123", False),
        ({"multipleOf": 10}, "12345678901234567890120", True),
        ({"minimum": 1e20}, "99999999999999999999", False),
        ({"uniqueItems": True}, "[12345678901234567890123, 12345678901234567890124]", True),
        ({"type": "number"}, "9" * 300, True),
    ],
)
def test_numbers_of_any_size_are_checked_as_they_are_written(schema, text, fits):
    assert (AnswerCheck(schema).check(text)[1] is None) is fits


@pytest.mark.parametrize(
    "wrapped",
    [
        {"name": "order", "strict": True, "schema": {"type": "object"}},
        {"type": "json_schema", "json_schema": {"name": "order", "schema": {"type": "object"}}},
        {"title": "x", "schema": {"type": "object"}},
        {"name": "order", "parameters": {"type": "object"}},
        {"name": "order", "input_schema": {"type": "object"}},
    ],
)
def test_what_stands_around_a_schema_elsewhere_is_no_schema(wrapped):
    with pytest.raises(JobFileError, match="give that one alone"):
        AnswerCheck(wrapped)


def test_a_property_may_be_called_schema():
    AnswerCheck({"properties": {"schema": {"type": "object"}}, "type": "object"})
    AnswerCheck({"schema": "of ours", "type": "object"})


def test_misspelt_keywords_are_doubted_wherever_a_schema_stands():
    inner = {"typ": "string", "x-order": 1, "maxlength": 3}
    schema = {"requird": ["a"], "properties": {"requird": inner}, "anyOf": [{"items": {"patern": "a"}}]}
    said = " ".join(doubts(schema))
    assert [said.count(f"did you mean '{name}'?") for name in ("required", "type", "maxLength", "pattern")] == [1] * 4
    assert doubts({"type": "object", "properties": {"titel": True}, "enum": ["requird"], "x-patern": 1}) == []


@pytest.mark.parametrize("inside", ["No result." + " " * 100_000, "\n" * 100_000, "x" * 100_000, "json " * 50_000])
def test_a_fence_around_anything_is_read_in_one_go(inside):
    """Blanks that a model goes on with must not hold a run up: a pattern that backtracks took minutes."""
    assert unfenced(f"```\n{inside}\n```") == inside.strip()
    unfenced(f"```{inside}```")
