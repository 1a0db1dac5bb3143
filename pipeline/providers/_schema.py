"""Whether a JSON Schema may be sent with `strict: true`: a server answers 400 to every row if it may not."""

import re
from collections.abc import Mapping
from typing import Any

_ALLOWED = frozenset(
    (
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "$ref",
        "$defs",
        "definitions",
        "title",
        "description",
        "pattern",
        "format",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    )
)
"""Keywords of the strict subset. `minLength` and `maxLength`, for example, are not among them."""
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_LOOKS_AROUND = re.compile(r"\(\?<?[=!]")
"""What no grammar of regular expressions has; servers refuse it in a `pattern`."""


def obeys_strict_rules(schema: Mapping[str, Any]) -> bool:
    """Every object closed, all its properties required, only keywords of the subset; the root is an object.

    A `$ref` stands alone, everything else has a type, an array has items, and formats are those of the subset.
    """
    return schema.get("type") == "object" and "anyOf" not in schema and _strict(schema)


def _strict(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= _ALLOWED:
        return False
    if "$ref" in schema:
        return len(schema) == 1
    if not ("type" in schema or "anyOf" in schema) or schema.get("format", "date") not in _FORMATS:
        return False
    if (_is_a("array", schema) and "items" not in schema) or _LOOKS_AROUND.search(str(schema.get("pattern", ""))):
        return False
    if _describes_objects(schema) and not _closed(schema):
        return False
    return all(_strict(part) for part in _parts(schema))


def _describes_objects(schema: Mapping[str, Any]) -> bool:
    return "properties" in schema or _is_a("object", schema)


def _is_a(name: str, schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == name or (isinstance(kind, list) and name in kind)


def _closed(schema: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return False
    return schema.get("additionalProperties") is False and set(properties) == {str(name) for name in required}


def _parts(schema: Mapping[str, Any]) -> list[Any]:
    parts: list[Any] = []
    for keyword in ("properties", "$defs", "definitions"):
        group = schema.get(keyword, {})
        parts += group.values() if isinstance(group, Mapping) else [None]
    if "items" in schema:
        parts.append(schema["items"])
    choices = schema.get("anyOf", [])
    return parts + (choices if isinstance(choices, list) else [None])
