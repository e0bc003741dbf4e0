"""Every shipped recipe is found, has a true header, passes the gate and can be copied."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from peftkit.errors import UsageError
from peftkit.recipes import copy_recipe, render_recipes, shipped_recipes, to_json

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))


def test_no_recipe_escapes_the_tests() -> None:
    assert len(FILES) >= 8
    assert {recipe.file.resolve() for recipe in shipped_recipes()} == set(FILES)


@pytest.mark.recipe
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(RECIPES).as_posix())
def test_recipe_passes_the_gate_of_the_installed_stack(file: Path) -> None:
    from peftkit.recipe.load import load_recipe

    recipe = load_recipe(file)
    assert recipe.name == file.stem


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda r: r.name)
def test_header_says_what_it_needs_takes_and_reaches(recipe) -> None:
    assert recipe.purpose
    assert recipe.needs
    assert recipe.takes
    assert recipe.reaches


def test_a_recipe_is_copied_verbatim_and_never_over_a_file(tmp_path: Path) -> None:
    copied = copy_recipe("summarize-lora", tmp_path)
    assert copied.read_bytes() == (RECIPES / "summarize-lora.yaml").read_bytes()
    assert copy_recipe("summarize-lora", tmp_path) == copied, "the same file is there"
    copied.write_text("name: mine\n")
    with pytest.raises(UsageError, match="is another recipe"):
        copy_recipe("summarize-lora", tmp_path)
    assert copied.read_text() == "name: mine\n"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean summarize-lora"):
        copy_recipe("sumarize-lora", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_listing_shows_every_recipe() -> None:
    recipes = shipped_recipes()
    assert render_recipes(recipes).row_count == len(recipes) == len(to_json(recipes))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_recipes(recipes))
    lines = console.export_text().splitlines()
    names = [line.split()[0] for line in lines if line[:1].strip()]
    assert sorted(names) == [recipe.name for recipe in recipes]
    assert "/" not in names[0]
    assert max(map(len, lines)) <= 80
