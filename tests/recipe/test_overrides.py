"""`a.b.c=value` sets what the file could have said, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wrong.cases import GOOD, write_files

from peftkit.errors import RecipeError
from peftkit.recipe.load import load_recipe
from peftkit.recipe.overrides import apply_overrides, without_decisions
from peftkit.recipe.yaml_file import join


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = write_files(tmp_path)
    file.write_text(GOOD)
    return file


def refused(file: Path, *overrides: str) -> list[tuple[str, str, str, str | None]]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides)
    return [(p.place, p.key, p.problem, p.suggestion) for p in caught.value.problems]


def test_values_are_yaml_and_pass_the_gate(good: Path) -> None:
    recipe = load_recipe(
        good,
        ["method.sft.learning_rate=1e-5", "method.sft.packing=true", "adapter={ia3: {}}",
         "evaluate=false", "data.audit.max_dropped=0.5", "memory.budget=2 GB"],
    )  # fmt: skip
    assert recipe.method.options["learning_rate"] == 1e-5
    assert recipe.method.options["packing"] is True
    assert recipe.adapter.choice is not None
    assert recipe.adapter.choice.name == "ia3"
    assert recipe.evaluate is None
    assert recipe.data.audit.max_dropped == 0.5
    assert recipe.memory.budget_bytes == 2 * 10**9
    assert recipe.overrides[0] == "method.sft.learning_rate=1e-5"
    assert "method.sft.learning_rate" not in recipe.lines
    assert "adapter.lora.r" not in recipe.lines


def test_an_unknown_path_is_suggested(good: Path) -> None:
    assert refused(good, "method.sft.learning_rat=1") == [
        ("override", "method.sft.learning_rat", "SFTConfig (trl 1.16.0) has no such key",
         "did you mean learning_rate?")
    ]  # fmt: skip
    assert refused(good, "metod.sft.seed=1") == [
        ("override", "metod", "a recipe has no such key", "did you mean method?")
    ]


def test_another_plugin_replaces_the_whole_mapping(good: Path) -> None:
    assert refused(good, "adapter.ia3.target_modules=all-linear") == [
        ("override", "adapter.ia3", "adapter has lora, ia3, and takes one adapter",
         "replace it: adapter={ia3: {...}}")
    ]  # fmt: skip


def test_a_key_below_a_word_is_refused(good: Path) -> None:
    (place, key, problem, suggestion), *_ = refused(good, "name.x.y=3")
    assert (place, key) == ("override", "name.x.y")
    assert problem == "name is 'good' in this recipe, not a mapping"
    assert suggestion == "replace it: name={x: {y: ...}}"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("method.sft.seed", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("a..b=3", "not a dotted key"),
        ("method.sft.seed=[", "is not YAML"),
        ("method.sft.seed={a: 1, a: 2}", "already stands"),
    ],
)
def test_what_is_no_override_is_refused(good: Path, override: str, problem: str) -> None:
    found = refused(good, override)
    assert [place for place, *_ in found] == ["override"]
    assert problem in found[0][2]


def test_list_items_are_set_by_number() -> None:
    done = apply_overrides("x", {"a": {"b": [1, 2]}}, ["a.b.1=5"])
    assert done.data == {"a": {"b": [1, 5]}}
    wrong = apply_overrides("x", {"a": [1]}, ["a.1=5", "a.x=5"])
    assert [p.problem for p in wrong.problems] == ["the list has items 0 to 0"] * 2


PARTS = st.text(min_size=1, max_size=5)


@given(st.lists(PARTS, min_size=1, max_size=4), st.integers())
@example(["=\\"], 1)
def test_any_path_can_be_set_in_an_empty_recipe(parts: list[str], value: int) -> None:
    key = ""
    for part in parts:
        key = join(key, part)
    done = apply_overrides("x", {}, [f"{key}={value}"])
    holder: Any = done.data
    for part in parts:
        holder = holder[part]
    assert holder == value
    assert done.keys == {key}
    assert not done.problems


def test_a_resolved_recipe_loses_what_was_decided() -> None:
    data = {
        "method": {"sft": {"bf16": False, "seed": 1, "packing": True}},
        "decisions": [
            {"key": "method.sft.bf16", "value": False, "reason": "x"},
            {"key": "method.sft.packing", "value": False, "reason": "changed by hand since"},
            {"key": "method.dpo.beta", "value": 1, "reason": "not here"},
            "nonsense",
        ],
    }
    stated, is_resolved = without_decisions(data)
    assert is_resolved
    assert stated == {"method": {"sft": {"seed": 1, "packing": True}}}
    assert "decisions" in data
    assert without_decisions({"a": 1}) == ({"a": 1}, False)
