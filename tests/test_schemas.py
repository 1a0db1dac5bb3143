"""Answers against a schema."""

import pytest

from pipeline.errors import JobFileError
from pipeline.schemas import AnswerCheck, unfenced

CHECK = AnswerCheck({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})


@pytest.mark.parametrize("text", ['{"n": 1}', ' {"n": 1}\n', '```json\n{"n": 1}\n```', '```\n{"n": 1}```'])
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
