"""Answers against a JSON Schema: compile it once, check each answer, say in one line what is wrong.

References to other documents are never fetched: a schema must stand on its own.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from pipeline.errors import JobFileError

_MESSAGE_LENGTH = 300
_PROBLEMS_TOLD = 4
"""So many of an answer's mistakes are told: a repair that hears of one mends one."""
_ELLIPSIS, _BETWEEN = " \u2026 ", "; "
MOST_SAID = _PROBLEMS_TOLD * (_MESSAGE_LENGTH + len(_ELLIPSIS)) + (_PROBLEMS_TOLD - 1) * len(_BETWEEN)
"""Characters of what is said of one answer, at most."""
_BYTE_ORDER_MARK = "\ufeff"
_FENCE = "```"
_INFO = re.compile(r"(?:[A-Za-z0-9+-]*\s*(?=[\[{\"])|json\b)?", re.IGNORECASE)
"""What stands behind an opening fence, before an answer in the same line."""
_LONG = 19
"""Digits of a number that may need more than 64 bits."""
_LONG_NUMBER = re.compile(rf"\d{{{_LONG}}}")


_OF_SCHEMAS = (
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas",
)  # fmt: skip
"""Keywords whose value has a schema by each name."""
_SCHEMA_OR_LIST = (
    "items", "prefixItems", "additionalItems", "contains", "additionalProperties", "propertyNames", "if", "then",
    "else", "not", "allOf", "anyOf", "oneOf", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_KEYWORDS = frozenset((
    *_OF_SCHEMAS, *_SCHEMA_OR_LIST, "$schema", "$id", "id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor",
    "$recursiveRef", "$recursiveAnchor", "$vocabulary", "$comment", "type", "enum", "const", "multipleOf", "maximum",
    "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems",
    "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties", "required", "dependentRequired",
    "dependencies", "format", "contentEncoding", "contentMediaType", "contentSchema", "title", "description", "default",
    "deprecated", "readOnly", "writeOnly", "examples", "example", "nullable", "discriminator",
))  # fmt: skip
"""Of all drafts, and what OpenAPI adds."""
_NEAR = 0.8
_WRAPPERS = ("schema", "json_schema", "parameters", "input_schema")


def doubts(schema: Mapping[str, Any]) -> list[str]:
    """Say which names in a schema are probably misspelt keywords: they would be passed over without a word."""
    found = [
        f"[output] schema: {name!r} is no keyword of JSON Schema and checks nothing; did you mean {near[0]!r}?"
        for each in _schemas(schema)
        for name in each
        if name not in _KEYWORDS
        and not name.startswith("x-")
        and (near := difflib.get_close_matches(name, _KEYWORDS, n=1, cutoff=_NEAR))
    ]
    return list(dict.fromkeys(found))


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and those inside of it."""
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, Mapping):
            continue
        yield each
        for keyword in _OF_SCHEMAS:
            named = each.get(keyword)
            waiting += named.values() if isinstance(named, Mapping) else ()
        for keyword in _SCHEMA_OR_LIST:
            inner = each.get(keyword)
            waiting += inner if isinstance(inner, list) else [inner]


def _refuse_wrapper(schema: Mapping[str, Any]) -> None:
    """Raise JobFileError for what OpenAI's API takes around a schema: as a schema it would allow anything."""
    for name in _WRAPPERS:
        if isinstance(schema.get(name), Mapping) and not (_KEYWORDS - {"type", "description", "title"}) & schema.keys():
            raise JobFileError(
                f"[output] schema is not a JSON Schema: it holds one under {name!r}, as a request for it does;"
                " give that one alone"
            )


class AnswerCheck:
    """A compiled schema. Raises JobFileError if the schema is not a JSON Schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        _refuse_wrapper(schema)
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
        checked = value
        if _LONG_NUMBER.search(inside):
            checked, value = json.loads(inside), _exact(inside)
        problems = list(islice(self._validator.iter_errors(checked), _PROBLEMS_TOLD))
        return value, _BETWEEN.join(map(_said, problems)) or None


def _said(problem: jsonschema_rs.ValidationError) -> str:
    """Say what is wrong; of a long value only the beginning: what is to be said of it comes behind it."""
    where = "/".join(str(step) for step in problem.instance_path)
    text = f"{where or 'the answer'}: {problem.message}"
    half = _MESSAGE_LENGTH // 2
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[:half]}{_ELLIPSIS}{text[-half:]}"


def _exact(text: str) -> Any:
    """Read JSON so that it can be written as it was: what has more than 64 bits, orjson makes a float of."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < _LONG else orjson.Fragment(digits))


def unfenced(text: str) -> str:
    """Return what stands inside a Markdown code fence, if the whole answer is one (many models add it)."""
    stripped = text.strip().removeprefix(_BYTE_ORDER_MARK).strip()
    if not (stripped.startswith(_FENCE) and stripped.endswith(_FENCE)):
        return stripped
    inside = stripped[len(_FENCE) : -len(_FENCE)]
    _, newline, below = inside.partition("\n")
    behind = inside.lstrip()
    info = _INFO.match(behind)
    in_one_line = behind[info.end() if info else 0 :].strip()
    if newline and not (_is_json(in_one_line) and not _is_json(below)):
        return below.strip()
    return in_one_line


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
