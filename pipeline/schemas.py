"""Answers against a JSON Schema: compile it once, check each answer, say in one line what is wrong.

References to other documents are never fetched: a schema must stand on its own.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import orjson

from pipeline.errors import JobFileError

_MESSAGE_LENGTH = 300
_LONG = 19
"""Digits of a number that may need more than 64 bits."""
_LONG_NUMBER = re.compile(rf"\d{{{_LONG}}}")


class AnswerCheck:
    """A compiled schema. Raises JobFileError if the schema is not a JSON Schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            self._validator = jsonschema_rs.validator_for(dict(schema), offline=True)
        except ValueError as error:  # jsonschema_rs.ValidationError and ReferencingError are ValueErrors
            reason = str(error).split("\n", 1)[0]
            place = "/".join(str(step) for step in getattr(error, "instance_path", ()))
            reason = f"{place}: {reason}" if place else reason
            raise JobFileError(f"[output] schema is not a valid JSON Schema: {reason}") from error

    def check(self, text: str) -> tuple[Any, str | None]:
        """Return the answer as JSON (None if it is none) and what is wrong with it (None if it is valid).

        Whole numbers of any size keep their digits: as JSON, that is, and not as Python's values.
        """
        try:
            inside = unfenced(text)
            value = orjson.loads(inside)
            orjson.dumps([[[value]]])  # it must fit into a journal line, too
        except ValueError as error:
            return None, f"the answer is not JSON: {error}"[:_MESSAGE_LENGTH]
        except TypeError:  # orjson reads deeper than it writes
            return None, "the answer is nested too deeply"
        for problem in self._validator.iter_errors(value):
            where = "/".join(str(step) for step in problem.instance_path)
            return value, f"{where or 'the answer'}: {problem.message}"[:_MESSAGE_LENGTH]
        return (_exact(inside) if _LONG_NUMBER.search(inside) else value), None


def _exact(text: str) -> Any:
    """Read JSON so that it can be written as it was: what has more than 64 bits, orjson makes a float of."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _LONG else orjson.Fragment(digits))


def unfenced(text: str) -> str:
    """Return what stands inside a Markdown code fence, if the whole answer is one (many models add it)."""
    stripped = text.strip()
    if not (stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped):
        return stripped
    return stripped.split("\n", 1)[1].removesuffix("```").strip()
