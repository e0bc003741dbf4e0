"""An error that knows no file is told where in the recipe its cause stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError, DataError, Problem, RecipeError
from peftkit.recipe.blame import blamed
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe)


def _line(recipe: Recipe, start: str) -> int:
    lines = recipe.text.splitlines()
    return next(at for at, line in enumerate(lines, 1) if line.strip().startswith(start))


@pytest.mark.parametrize(
    ("keys", "message", "start", "key"),
    [
        (("model.path", "model"), "weights are torn", "path:", "model.path"),
        # The first key that the recipe states
        (("adapter.from", "adapter"), "no such module", "adapter:", "adapter"),
        # A key of the message's own, or the nearest section above it
        (("model",), "adapter.lora.r: too large", "lora:", "adapter.lora.r"),
    ],
)
def test_the_line_and_key_come_first(
    recipe: Recipe, keys: tuple[str, ...], message: str, start: str, key: str
) -> None:
    with pytest.raises(ArtefactError) as caught, blamed(recipe, *keys):
        raise ArtefactError(message, hint="do this")
    rest = message.removeprefix(f"{key}: ")
    assert caught.value.message == f"{recipe.file}:{_line(recipe, start)} {key}: {rest}"
    assert caught.value.hint == "do this"
    assert caught.value.exit_code == 4


def test_what_knows_its_place_is_left_alone(recipe: Recipe) -> None:
    problem = Problem("other.yaml", 1, "a", "wrong")
    for error in (
        RecipeError("other.yaml", [problem]),
        DataError(f"{recipe.file}:3 data: too few rows"),
        ZeroDivisionError("a bug"),
    ):
        with pytest.raises(type(error)) as caught, blamed(recipe, "model"):
            raise error
        assert caught.value is error


def test_a_name_before_a_colon_is_no_key(recipe: Recipe) -> None:
    with pytest.raises(ArtefactError) as caught, blamed(recipe, "model"):
        raise ArtefactError("LoraConfig: refused")
    assert caught.value.message.endswith(" model: LoraConfig: refused")
