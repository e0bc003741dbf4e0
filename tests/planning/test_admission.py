"""A plan that does not fit is refused with its numbers; what was planned is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_step
from plan_fixture import each_plan_made_once

from peftkit.errors import ResourceError
from peftkit.memory.planner import plan_run
from peftkit.planning.admission import check_plan_fits, plan_json
from peftkit.planning.devices import find
from peftkit.recipe.schema import EvaluateSection
from peftkit.system.units import gibibytes

ROWS = 256
"""So many that half of them fit with room to spare, beside all that this process may hold."""


@pytest.fixture(scope="module", autouse=True)
def _each_plan_once() -> Iterator[None]:
    with each_plan_made_once({}):
        yield


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("admission")
    small = {**real_step.LLAMA, "num_hidden_layers": 1}
    real_step.save_model(folder, small)
    recipe = real_step.recipe_for(folder, **{"method.sft.per_device_train_batch_size": ROWS})
    made, reason = plan_run(recipe, real_step.CPU, [400])
    assert reason is None
    return made, recipe


def _budgeted(recipe, num_bytes: int):
    return dataclasses.replace(
        recipe, memory=dataclasses.replace(recipe.memory, budget_bytes=num_bytes)
    )


def test_what_fits_passes(planned) -> None:
    made, recipe = planned
    check_plan_fits(made, recipe, real_step.CPU, [400])
    check_plan_fits(made, _budgeted(recipe, made.peak_bytes), real_step.CPU, [400])


def test_a_refusal_says_by_how_much_and_what_would_fit(planned) -> None:
    made, recipe = planned
    limit = made.bytes_at(micro_batch=250, length=400)
    with pytest.raises(ResourceError, match=r"more than memory\.budget") as caught:
        check_plan_fits(made, _budgeted(recipe, limit), real_step.CPU, [400])
    assert caught.value.exit_code == 5
    assert gibibytes(made.peak_bytes - limit) in caught.value.message
    ways = caught.value.hint.split("\n  or:  ")
    assert ways[0].startswith(
        "method.sft.per_device_train_batch_size=128 method.sft.gradient_accumulation_steps=2 ("
    )


def test_the_tightest_limit_is_the_one_that_is_told(planned) -> None:
    made, recipe = planned
    machine = dataclasses.replace(real_step.CPU, free_bytes=made.peak_bytes // 2)
    with pytest.raises(ResourceError, match=r"more than memory\.budget"):
        check_plan_fits(made, _budgeted(recipe, made.peak_bytes // 4), machine, [400])


def test_a_budget_below_the_weights_is_told_the_smallest_setting(planned) -> None:
    made, recipe = planned
    with pytest.raises(ResourceError, match="before any row it takes") as caught:
        check_plan_fits(made, _budgeted(recipe, 1 << 20), real_step.CPU, [400])
    assert "the smallest setting of this one takes" in caught.value.hint


def test_plan_json_holds_limits_and_the_predicted_time(planned) -> None:
    made, recipe = planned
    budgeted = _budgeted(recipe, 1 << 30)
    content = plan_json(made, budgeted, real_step.CPU, num_rows=10 * ROWS)
    assert content["peak_bytes"] == made.peak_bytes
    assert content["limits"] == [
        {
            "name": "what is free on test CPU",
            "num_bytes": real_step.CPU.free_bytes + made.term_bytes("runtime"),
        },
        {"name": "memory.budget", "num_bytes": 1 << 30},
    ]
    assert content["speeds"] == []  # no rates are published for that
    [speed] = plan_json(made, recipe, find("h100").as_machine(), num_rows=10 * ROWS)["speeds"]
    assert speed["basis"] == "predicted"
    assert speed["num_steps"] == 30  # three epochs of ten batches


def test_what_is_free_counts_what_is_held_already(planned) -> None:
    made, recipe = planned
    runtime = made.term_bytes("runtime")
    enough = dataclasses.replace(real_step.CPU, free_bytes=made.peak_bytes - runtime)
    check_plan_fits(made, recipe, enough, [400])
    with pytest.raises(ResourceError, match="what is free on test CPU"):
        check_plan_fits(made, recipe, dataclasses.replace(enough, free_bytes=1 << 20), [400])


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


def test_a_run_that_could_not_be_scored_is_refused_with_the_rows_that_fit(planned) -> None:
    made, recipe = planned
    scored = dataclasses.replace(recipe, evaluate=EvaluateSection(split="train", batch_size=8000))
    made, _ = plan_run(scored, real_step.CPU, [400])
    assert made is not None and made.evaluation is not None
    assert made.evaluation.num_bytes > made.peak_bytes, "this many prompts take more than training"
    assert plan_json(made, scored, real_step.CPU, num_rows=1)["evaluation"]["rows"] == 8000
    limit = (made.evaluation.num_bytes + made.peak_bytes) // 2
    with pytest.raises(ResourceError, match="scoring after training is planned") as caught:
        check_plan_fits(made, _budgeted(scored, limit), real_step.CPU, [400])
    key, _, rows = caught.value.hint.partition("=")
    assert key == "evaluate.batch_size"
    smaller = dataclasses.replace(scored.evaluate, batch_size=int(rows))
    again, _ = plan_run(dataclasses.replace(scored, evaluate=smaller), real_step.CPU, [400])
    assert 0.9 * limit < again.evaluation.num_bytes <= limit
