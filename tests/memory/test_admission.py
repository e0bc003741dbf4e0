"""A plan that does not fit is refused with its numbers and with changes that do fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import real_step

from peftkit.errors import ResourceError
from peftkit.memory.admission import check_plan_fits, plan_run


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("admission")
    real_step.save_model(folder, real_step.LLAMA, "AutoModelForCausalLM")
    recipe = real_step.recipe_for(folder, **{"method.sft.per_device_train_batch_size": 64})
    made, reason = plan_run(recipe, real_step.CPU, [400])
    assert reason is None
    return made, recipe


def _budgeted(recipe, num_bytes: int):
    return dataclasses.replace(
        recipe, memory=dataclasses.replace(recipe.memory, budget_bytes=num_bytes)
    )


def test_what_fits_passes(planned) -> None:
    made, recipe = planned
    check_plan_fits(made, recipe, real_step.CPU)
    check_plan_fits(made, _budgeted(recipe, made.peak_bytes), real_step.CPU)


def test_the_changes_that_are_named_do_fit(planned) -> None:
    made, recipe = planned
    limit = made.bytes_at(micro_batch=40, length=400)
    with pytest.raises(ResourceError, match=r"more than memory\.budget") as caught:
        check_plan_fits(made, _budgeted(recipe, limit), real_step.CPU, [400])
    assert caught.value.exit_code == 5
    ways = caught.value.hint.split("; or ")
    assert ways[0] == (
        "method.sft.per_device_train_batch_size=40 method.sft.gradient_accumulation_steps=2"
    )
    tokens = int(ways[-1].rpartition("=")[2])
    assert made.bytes_at(micro_batch=64, length=tokens) <= limit


def test_weights_that_do_not_fit_are_said_to(planned) -> None:
    made, recipe = planned
    with pytest.raises(ResourceError, match="the weights alone take") as caught:
        check_plan_fits(made, _budgeted(recipe, 1 << 20), real_step.CPU)
    assert "one row of 64 tokens takes" in caught.value.hint


def test_what_is_free_counts_what_is_held_already(planned) -> None:
    made, recipe = planned
    runtime = made.term_bytes("runtime")
    enough = dataclasses.replace(real_step.CPU, free_bytes=made.peak_bytes - runtime)
    check_plan_fits(made, recipe, enough)
    with pytest.raises(ResourceError, match="what is free on test CPU"):
        check_plan_fits(made, recipe, dataclasses.replace(enough, free_bytes=1 << 20))


def test_what_cannot_be_planned_says_why(planned) -> None:
    _, recipe = planned
    adapter = dataclasses.replace(
        recipe.adapter,
        choice=dataclasses.replace(
            recipe.adapter.choice, name="shira", options={"target_modules": ["q_proj"]}
        ),
    )
    made, reason = plan_run(dataclasses.replace(recipe, adapter=adapter), real_step.CPU, [48])
    assert made is None
    assert "reads the weights' values" in reason
