"""How a section's JSON schema is arranged for the people who fill in the run form of the Prefect UI.

The form has an input for every key under `properties`, in the order of their `position` (0 where there is none), and a
button per form that a value may have, named by its `title`. Measured with Prefect 3.8: the server and editors check
also what stands under `patternProperties`. The form has no input for it and submits such values unchanged.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import WithJsonSchema

OptionalFile = Annotated[
    str | None, WithJsonSchema({"anyOf": [{"type": "string", "title": "file"}, {"type": "null", "title": "left out"}]})
]
"""A flow's own parameter, which stands in no section whose schema `arrange_form` could arrange."""

PINNED: dict[str, Any] = {"writtenByLockFiles": True}
"""`json_schema_extra` of a key that lock files write: checked wherever it stands, but nobody is asked for it."""
RARE: dict[str, Any] = {"position": 1}
"""`json_schema_extra` of a key that few people need: it stands after the others."""

_TITLES: Mapping[str, str] = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "yes or no",
    "array": "list",
    "object": "by name",
    "null": "left out",
}


def arrange_form(schema: dict[str, Any]) -> None:
    """Take pins out of the form and name the forms that values may have; changes `schema`, of one section."""
    schema["title"] = schema["title"].removesuffix("Settings")
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    pinned = {name: each for name, each in properties.items() if each.pop("writtenByLockFiles", False)}
    for each in properties.values():
        for alternative in each.get("anyOf", ()):
            _name_alternative(alternative)
    if pinned:
        schema["properties"] = {name: each for name, each in properties.items() if name not in pinned}
        schema["patternProperties"] = {f"^{name}$": each for name, each in pinned.items()}


def _name_alternative(alternative: dict[str, Any]) -> None:
    """The form would show Python's words for JSON's types: str, dict, None."""
    if "$ref" in alternative:
        return
    fallback = "choice" if "enum" in alternative else _TITLES[alternative["type"]]
    alternative.setdefault("title", str(alternative.get("const", fallback)))
