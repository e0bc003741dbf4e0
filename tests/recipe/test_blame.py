"""An error that only the model, the rows or the training can raise names the recipe's line."""

from __future__ import annotations

from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.errors import DataError, Problem, RecipeError, UsageError
from peftkit.recipe.blame import blamed
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = write_files(tmp_path)
    file.write_text(GOOD)
    return load_recipe(file, ["method.sft.max_steps=20"])


def refusal(recipe: Recipe, error: Exception, *keys: str) -> str:
    with pytest.raises(type(error)) as caught, blamed(recipe, *keys):
        raise error
    return caught.value.message.replace(str(recipe.file), "r.yaml")


@pytest.mark.parametrize(
    ("message", "keys", "placed"),
    [
        ("no template", ("model.chat_template", "model.path"),
         "r.yaml:3 model.path: no template"),
        ("no template", ("model.chat_template",), "r.yaml model.chat_template: no template"),
        ("adapter.lora.r: too large", ("adapter",), "r.yaml:13 adapter.lora.r: too large"),
        ("adapter.lora.bias: what", ("adapter",), "r.yaml:12 adapter.lora.bias: what"),
        ("method.sft.max_steps: many", (), "r.yaml method.sft.max_steps (override): many"),
        ("rows.jsonl:3: broken", ("data",), "r.yaml:5 data: rows.jsonl:3: broken"),
        ("the disk is full", (), "the disk is full"),
    ],
)  # fmt: skip
def test_the_first_key_that_stands_there_is_named(
    recipe: Recipe, message: str, keys: tuple[str, ...], placed: str
) -> None:
    assert refusal(recipe, UsageError(message), *keys) == placed


def test_the_way_out_and_the_kind_stay(recipe: Recipe) -> None:
    with pytest.raises(DataError) as caught, blamed(recipe, "data"):
        raise DataError("empty", hint="fill it")
    assert caught.value.hint == "fill it"
    assert caught.value.exit_code == 3


def test_what_has_its_place_already_is_left_alone(recipe: Recipe) -> None:
    placed = f"{recipe.file}:5 data: empty"
    assert refusal(recipe, DataError(placed), "model") == "r.yaml:5 data: empty"
    whole = RecipeError("r.yaml", [Problem("r.yaml", 1, "name", "bad")])
    with pytest.raises(RecipeError) as caught, blamed(recipe, "data"):
        raise whole
    assert caught.value is whole


def test_only_refusals_are_touched(recipe: Recipe) -> None:
    with pytest.raises(ZeroDivisionError, match=r"^division by zero$"), blamed(recipe, "data"):
        1 / 0  # noqa: B018
