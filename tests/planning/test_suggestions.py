"""Changes that are named for a refused run do fit, keep its step and pass its audit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_step
from plan_fixture import each_plan_made_once

from peftkit.memory.planner import plan
from peftkit.planning.devices import of_size
from peftkit.planning.suggestions import WayOut, explain_smallest, ways_out
from peftkit.recipe.load import load_recipe

# Its runtime is a constant; a CPU's is what this process holds, which grows from test to test.
MACHINE = of_size(24).as_machine()
ROWS = 64
LENGTHS = [40] * 85 + [300] * 15 + [400]
SFT = {
    "method.sft.per_device_train_batch_size": ROWS,
    "method.sft.max_length": 400,
    "method.sft.activation_checkpointing": False,
}


@pytest.fixture(scope="module", autouse=True)
def _each_plan_once() -> Iterator[None]:
    with each_plan_made_once({}):
        yield


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("ways-out")
    small = {**real_step.LLAMA, "num_hidden_layers": 2}
    real_step.save_model(folder, small)
    recipe = real_step.recipe_for(folder, **SFT)
    return recipe, plan(recipe, lengths=LENGTHS, machine=MACHINE)


def _applied(recipe, way: WayOut):
    """Read what a shell would pass on, and plan it as a run does."""
    *words, _, _ = shlex.split(str(way))  # the bytes come last, in two words
    changed = load_recipe(recipe.file, words)
    longest = changed.method.options["max_length"]
    lengths = [min(length, longest) for length in LENGTHS]
    return changed, plan(changed, lengths=lengths, machine=MACHINE)


@pytest.mark.parametrize("rows", [pytest.param(20, marks=pytest.mark.slow), 40])
def test_what_is_named_fits_when_it_is_applied(planned, rows: int) -> None:
    recipe, made = planned
    limit = made.bytes_at(micro_batch=rows, length=made.length)
    found = ways_out(recipe, MACHINE, limit, LENGTHS, made)
    assert len(found) == 3
    for way in found:
        changed, then = _applied(recipe, way)
        options = changed.method.options
        assert then.needed_bytes == pytest.approx(way.peak_bytes, rel=0.02)
        assert then.peak_bytes <= limit
        step = options["per_device_train_batch_size"] * options.get(
            "gradient_accumulation_steps", 1
        )
        assert step == ROWS
        # Rows are cut no more than the audit lets them be.
        num_cut = sum(length > options["max_length"] for length in LENGTHS)
        assert num_cut <= recipe.data.audit.max_truncated * len(LENGTHS)
    assert set(found[0].settings) == {
        "method.sft.per_device_train_batch_size",
        "method.sft.gradient_accumulation_steps",
    }


@pytest.mark.slow
def test_what_is_named_can_be_scored_too(planned) -> None:
    recipe, _ = planned
    scored = load_recipe(recipe.file, ["evaluate={split: train, batch_size: 512}"])
    made = plan(scored, lengths=LENGTHS, machine=MACHINE)
    assert made.evaluation is not None
    limit = made.bytes_at(micro_batch=20, length=made.length)
    assert made.evaluation.num_bytes > limit
    way = ways_out(scored, MACHINE, limit, LENGTHS, made)[0]
    assert way.settings["evaluate.batch_size"] < 512
    *words, _, _ = shlex.split(str(way))
    changed = load_recipe(scored.file, (*scored.overrides, *words))
    then = plan(changed, lengths=LENGTHS, machine=MACHINE)
    assert then.peak_bytes <= limit
    assert 0.7 * limit < then.evaluation.num_bytes <= limit
    # Where not even one prompt fits, it is trained here and scored elsewhere.
    object.__setattr__(made, "scoring", lambda _: made.evaluation)
    assert ways_out(scored, MACHINE, limit, LENGTHS, made)[0].settings["evaluate"] is False


def test_rows_are_not_cut_beyond_the_audit(planned) -> None:
    recipe, made = planned
    limit = made.bytes_at(micro_batch=20, length=made.length)
    for way in ways_out(recipe, MACHINE, limit, [400] * 100, made):
        assert way.settings.get("method.sft.max_length", 400) == 400


def test_every_change_at_once_is_the_last_way_out(planned) -> None:
    recipe, made = planned
    limit = int(made.needs_at(micro_batch=1, length=30) / 0.97) + 1  # 3 % stay free
    [way] = ways_out(recipe, MACHINE, limit, [400] * 100, made)
    assert way.settings["method.sft.per_device_train_batch_size"] == 1
    assert way.settings["method.sft.activation_checkpointing"] is True
    assert way.settings["method.sft.max_length"] < 400
    _, then = _applied(recipe, way)
    assert then.peak_bytes <= limit


def test_below_the_smallest_setting_there_is_no_way(planned) -> None:
    recipe, made = planned
    assert ways_out(recipe, MACHINE, made.term_bytes("base"), LENGTHS, made) == []
    said = explain_smallest(recipe, MACHINE)
    assert "method.sft.max_length=64" in said and "load_in_4bit" in said
    assert "MiB" in said
