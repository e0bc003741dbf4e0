"""Every key of a recipe with a value of every kind: refused or taken, never an error of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftkit.errors import PeftkitError
from peftkit.explain import explain
from peftkit.recipe.load import load_recipe

RECIPE: dict[str, Any] = {
    "model": {"path": "embedded:docstring-lm", "dtype": "float32"},
    "data": {"source": {"json": {"files": "rows.jsonl"}}, "task": {"prompt_completion": {}}},
    "adapter": {"lora": {"r": 4, "target_modules": "all-linear"}},
    "method": {"sft": {"max_steps": 1}},
    "evaluate": {"split": "test"},
}
VALUES = (None, False, True, 0, -1, 1.5, "", "x", "1", [], [1], ["a"], {}, {"a": 1}, [[1]], [{}])
SECTIONS = (
    *("", "model", "data", "data.rows", "data.dialogue", "data.audit", "data.splits"),
    *("data.source.json", "data.task.prompt_completion", "memory", "evaluate"),
    *("evaluate.generation", "early_stopping", "stop_above", "per_epoch", "speed"),
    *("method.sft", "adapter.lora"),
)


def keys(section: str) -> Iterator[str]:
    try:
        members = explain(section or "recipe").members
    except PeftkitError:
        return
    for member in members:
        yield f"{section}.{member.name}" if section else member.name


def load(folder: Path, key: str, value: Any) -> None:
    """Load the recipe with one key of this value; a refusal is fine."""
    recipe = copy.deepcopy(RECIPE)
    *parents, last = key.split(".")
    holder: Any = recipe
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[last] = value
    (folder / "r.yaml").write_text(json.dumps(recipe))
    try:
        load_recipe(folder / "r.yaml")
    except PeftkitError as error:
        assert str(error)


@pytest.mark.parametrize(
    "section",
    [pytest.param(name, marks=pytest.mark.slow if "." in name else ()) for name in SECTIONS],
)
def test_no_value_ends_in_an_error_of_ours(section: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    for key in keys(section):
        for value in VALUES:
            load(tmp_path, key, value)
