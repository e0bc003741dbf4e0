"""The JSON Schema takes every shipped recipe and refuses the corpus's wrong keys and types."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from wrong.cases import GOOD, TYPES, UNKNOWN

from peftkit.recipe.json_schema import DIALECT, json_schema
from peftkit.recipe.yaml_file import parse
from peftkit.recipes import shipped_recipes

SCHEMA = json_schema()
TYPE_NAMES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "integer": int, "number": (int, float),
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Validate by the keywords that our schema uses, as draft 2020-12 defines them."""
    if "$ref" in schema:
        schema = {**SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], **schema}
    checks = [
        "type" not in schema or any(
            isinstance(value, TYPE_NAMES[name]) and (name == "boolean") >= isinstance(value, bool)
            for name in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
        ),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
        "anyOf" not in schema or any(fits(value, option) for option in schema["anyOf"]),
        "pattern" not in schema or not isinstance(value, str)
        or re.search(schema["pattern"], value) is not None,
    ]  # fmt: skip
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        checks += [
            value >= schema.get("minimum", value), value <= schema.get("maximum", value),
            "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"],
            "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"],
        ]  # fmt: skip
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        checks += [fits(item, part) for item, part in zip(value, prefix, strict=False)]
        rest = schema.get("items", {})
        checks += [rest is not False and fits(item, rest) for item in value[len(prefix) :]]
        checks.append(len(value) >= schema.get("minItems", 0))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties", {})
        checks += [fits(item, known[key]) for key, item in value.items() if key in known]
        checks += [extra is not False and fits(item, extra)
                   for key, item in value.items() if key not in known]  # fmt: skip
        checks += [key in value for key in schema.get("required", [])]
        checks.append(schema.get("minProperties", 0) <= len(value))
        checks.append(len(value) <= schema.get("maxProperties", len(value)))
    return all(checks)


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_every_shipped_recipe_conforms(recipe: Any) -> None:
    text = Path(recipe.file).read_text(encoding="utf-8")
    assert fits(parse(text, recipe.name).data, SCHEMA)


def test_the_good_recipe_conforms() -> None:
    assert fits(parse(GOOD, "good").data, SCHEMA)


LOOSE = {"budget in words", "name with a slash", "infinity"}
"""What the gate alone refuses: JSON has no infinity, so no schema speaks of it."""


@pytest.mark.parametrize(
    "case", [case for case in [*UNKNOWN, *TYPES] if case.name not in LOOSE], ids=lambda c: c.name
)
def test_wrong_keys_and_types_do_not_conform(case: Any) -> None:
    if case.key.startswith("model.config"):
        pytest.skip("an editor does not know which model type's keys to offer")
    assert not fits(parse(case.text, case.name).data, SCHEMA)


def test_it_is_plain_json_and_every_reference_resolves() -> None:
    text = json.dumps(SCHEMA, allow_nan=False)
    assert SCHEMA["$schema"] == DIALECT
    references = set(re.findall(r'"#/\$defs/([^"]+)"', text))
    assert references <= set(SCHEMA["$defs"])
    assert len(SCHEMA["$defs"]) >= 70


def test_options_carry_their_text_and_default() -> None:
    option = SCHEMA["$defs"]["peft.LoraConfig"]["properties"]["r"]
    assert option["default"] == 8
    assert option["minimum"] == 1
    assert option["description"]
    assert "task_type" not in SCHEMA["$defs"]["peft.LoraConfig"]["properties"]
