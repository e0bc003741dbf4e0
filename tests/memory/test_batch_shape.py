"""Batches of a recipe: how they lie, and how much of them is padding."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import preferences
import pytest
import real_step
from hypothesis import given
from hypothesis import strategies as st

from peftkit.memory.batch_shape import batch_shape, padded_length
from peftkit.memory.planned_config import planned_config
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@given(lengths=LENGTHS, rows=st.integers(1, 3))
def test_batches_drawn_by_lot_are_padded_to_the_mean_of_all_draws(
    lengths: list[int], rows: int
) -> None:
    draws = [max(draw) for draw in itertools.product(lengths, repeat=rows)]
    assert padded_length(lengths, rows, is_sorted=False) == pytest.approx(sum(draws) / len(draws))


@given(lengths=LENGTHS, rows=st.integers(1, 7))
def test_sorted_batches_are_padded_least(lengths: list[int], rows: int) -> None:
    ordered = sorted(lengths, reverse=True)
    batches = [ordered[at : at + rows] for at in range(0, len(ordered), rows)]
    expected = sum(max(batch) for batch in batches) / len(batches)
    assert padded_length(lengths, rows, is_sorted=True) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (2, 40, 40, 52, False, True)),  # two draws of 10, 10, 20, 40: padded to 26.25
        ({"train_sampling_strategy": "group_by_length"}, (2, 40, 40, 50, False, True)),
        ({"pad_to_multiple_of": 16}, (2, 48, 40, 70, False, True)),
    ],
)
def test_a_shape_is_read_off_the_arguments(
    tiny_recipe: Path, options: dict, expected: tuple
) -> None:
    overrides = [f"method.sft.{key}={value}" for key, value in options.items()]
    rows = ["method.sft.per_device_train_batch_size=2", "speed.unpad=off"]
    recipe = load_recipe(tiny_recipe, [*rows, *overrides])
    built = build(recipe, real_step.CPU)
    shape = batch_shape(built, planned_config(recipe.model), [10, 40, 10, 20])
    found = (
        shape.micro_batch, shape.length, shape.num_tokens, shape.padded_tokens,
        shape.is_flat, shape.varies,
    )  # fmt: skip
    assert found == expected


def test_two_answers_of_one_prompt_are_padded_to_the_longer(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.sft.per_device_train_batch_size=1"])
    built = build(recipe, real_step.CPU)
    pairs = dataclasses.replace(
        built, method=preferences.Pairs(preferences.arguments(per_device_train_batch_size=1))
    )
    config = planned_config(recipe.model)
    one, two = (batch_shape(found, config, [40, 40]) for found in (built, pairs))
    assert (one.num_tokens, one.layout(1)) == (40, "rows")
    assert (two.num_tokens, two.padded_tokens, two.layout(1)) == (80, 40, "padded")


def test_without_lengths_every_row_is_as_long_as_it_may_be(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.sft.max_length=96"])
    shape = batch_shape(build(recipe, real_step.CPU), planned_config(recipe.model), None)
    assert (shape.length, shape.varies) == (96, False)
    assert shape.padded_tokens == shape.num_tokens == 96 * shape.micro_batch


def test_rows_in_one_are_not_padded(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.sft.packing=true", "method.sft.max_length=64"])
    shape = batch_shape(build(recipe, real_step.CPU), planned_config(recipe.model), [60, 64, 30])
    assert shape.is_flat
    assert shape.padded_tokens == shape.num_tokens
