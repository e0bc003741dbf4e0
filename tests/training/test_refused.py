"""What the trainer raises of a method's options names one, until a step has begun."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from peftkit.errors import DataError, UsageError
from peftkit.recipe.load import load_recipe
from peftkit.training.refused import refusal_explained


def test_an_error_names_the_option_that_it_speaks_of(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    with pytest.raises(UsageError, match=r"^method\.sft\.max_steps: .*nothing") as caught:  # noqa: SIM117
        with refusal_explained(recipe):
            raise ValueError("max_steps is odd")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"^method\.sft: .*ImportError: no module"):  # noqa: SIM117
        with refusal_explained(recipe):
            raise ImportError("no module")


@pytest.mark.parametrize("error", [DataError("rows"), OSError(errno.ENOSPC, "No space left")])
def test_what_is_explained_elsewhere_passes(tiny_recipe: Path, error: Exception) -> None:
    with pytest.raises(type(error)), refusal_explained(load_recipe(tiny_recipe)):
        raise error


def test_an_error_of_a_step_is_no_option(tiny_recipe: Path) -> None:
    with pytest.raises(KeyError), refusal_explained(load_recipe(tiny_recipe), lambda: True):
        raise KeyError("row")
