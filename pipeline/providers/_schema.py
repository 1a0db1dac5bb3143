"""Whether a JSON Schema may be sent with `strict: true`: a server answers 400 to every row if it may not."""

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


def obeys_strict_rules(schema: Mapping[str, Any]) -> bool:
    """Every object closed, all its properties required, only keywords of the subset; the root is an object."""
    return schema.get("type") == "object" and "anyOf" not in schema and _strict(schema)


def _strict(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or not schema.keys() <= _ALLOWED:
        return False
    if _describes_objects(schema) and not _closed(schema):
        return False
    return all(_strict(part) for part in _parts(schema))


def _describes_objects(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return "properties" in schema or kind == "object" or (isinstance(kind, list) and "object" in kind)


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
