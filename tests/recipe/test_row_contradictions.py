"""`data.rows` against the tasks and the method: found by `check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import RecipeError
from peftkit.recipe.load import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "summarize-lora.yaml"


def problems(*overrides: str) -> list[tuple[str, str, str | None]]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE, overrides)
    return [(one.key, one.problem, one.suggestion) for one in caught.value.problems]


@pytest.mark.parametrize(
    ("rows", "key", "says", "suggests"),
    [
        ("{document: document}", "document", "is for too_long: cut", "write too_long: cut"),
        ("{too_long: drop, keep: end}", "keep", "is for too_long: cut", "write too_long: cut"),
        ("{too_long: cut, document: documnt}", "document", "no task reads a column 'documnt'",
         "did you mean document?"),
        ("{too_long: shorten}", "too_long", "shorten", "truncate"),
    ],
)  # fmt: skip
def test_what_is_said_of_rows_fits_together(rows, key, says, suggests):
    ((found, problem, suggestion),) = problems(f"data.rows={rows}")
    assert found == f"data.rows.{key}"
    assert says in problem
    assert suggests in f"{problem} {suggestion}"


def test_a_task_without_a_document_needs_a_column_named():
    task = "data.task={prompt_completion: {prompt: document, completion: summary}}"
    ((key, problem, suggestion),) = problems(task, "data.rows={too_long: cut}")
    assert key == "data.rows.too_long"
    assert "prompt_completion has no document" in problem
    assert "data.rows.document=document" in (suggestion or "")
    load_recipe(RECIPE, (task, "data.rows={too_long: cut, document: document}"))


def test_methods_that_take_any_length_have_nothing_to_cut():
    from peftkit.plugins import Machine
    from peftkit.recipe.build import build

    packed = "method.sft.packing=true", "method.sft.packing_strategy=wrapped"
    recipe = load_recipe(RECIPE, (*packed, "data.rows={too_long: drop}"))
    with pytest.raises(RecipeError, match=r"data.rows.too_long .*rows of any length"):
        build(recipe, Machine("cpu", False, 1 << 33, 1 << 32, "test"))
