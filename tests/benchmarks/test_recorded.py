"""Runs that others recorded: read, halved by name, left out visibly; and a loop of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import real_step

from peftkit.memory.planner import plan
from peftkit.planning import devices
from peftkit.recipe.load import load_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recorded_runs

    yield recorded_runs
    for name in ("recorded_runs", "recorded_page", "plain_loop"):
        sys.modules.pop(name, None)


def test_every_recorded_run_states_what_it_must_and_half_are_held_out(runs: Any) -> None:
    found = runs.load_runs()
    assert len(found) == 69
    for run in found:
        run.check()
        assert run.memory_bytes > 1 << 30
        assert max(run.lengths) <= run.facts["max_length"]
    for source in {run.source for run in found}:
        halves = [run.is_held_out for run in found if run.source == source]
        assert halves == [place % 2 == 1 for place in range(len(halves))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": None}, "it does not state dtype"),
        ({"recorded": {}}, "it does not state recorded.memory_bytes"),
        ({"status": "canceled"}, "it ended as canceled"),
        ({"compiled": True}, "it was compiled"),
        ({"optimizer": "riemannian"}, "no optimizer riemannian"),
    ],
)
def test_what_is_left_out_says_why(
    runs: Any, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    facts = dict(runs.load_runs()[0].facts)
    for name, value in change.items():
        facts.pop(name)
        facts |= {} if value is None else {name: value}
    (tmp_path / "one.json").write_text(json.dumps({"shared": {}, "runs": {"run": facts}}))
    (run,) = runs.load_runs(tmp_path)
    with pytest.raises(runs.LeftOut, match=said):
        run.check()


def test_the_mean_of_the_rows_is_the_stated_one(runs: Any) -> None:
    run = next(run for run in runs.load_runs() if run.facts.get("mean_length"))
    assert sum(run.lengths) / len(run.lengths) == pytest.approx(run.facts["mean_length"], rel=0.01)
    assert (max(run.lengths), min(run.lengths)) == (704, 100)


def test_a_loop_of_ones_own_is_planned_as_it_runs(runs: Any, tmp_path: Path) -> None:
    saved = real_step.save_model(tmp_path, {**real_step.LLAMA, "num_hidden_layers": 2})
    loop = {"per_device_train_batch_size": 2, "max_length": 48, "use_cpu": True}
    recipe = real_step.recipe_for(
        saved, method={"plain_loop": loop}, **{"data.task": {"text": {"text": "document"}}}
    )
    batch, lengths = real_step.batch_of(recipe)
    made = plan(recipe, lengths=lengths, machine=real_step.CPU)
    real = real_step.real_peaks(recipe, batch)["all"]
    assert made.peak_bytes - made.term_bytes("runtime") == pytest.approx(real, rel=0.001)
    # A loop that holds its outputs holds the logits while it goes backward.
    dropping = load_recipe(recipe.file, ["method.plain_loop.holds_outputs=false"])
    less = plan(dropping, lengths=lengths, machine=real_step.CPU)
    held = made.peak_bytes - made.term_bytes("runtime")
    gained = held - less.peak_bytes + less.term_bytes("runtime")
    assert gained == pytest.approx(2 * 48 * 1000 * 4, rel=0.001)
    assert made.num_trained * 4 == made.term_bytes("adapter")


def test_a_loop_that_empties_its_cache_needs_no_more_than_its_longest_batch(
    runs: Any, tmp_path: Path
) -> None:
    saved = real_step.save_model(tmp_path, {**real_step.LLAMA, "num_hidden_layers": 1})
    loop = {"per_device_train_batch_size": 2, "max_length": 48, "torch_empty_cache_steps": 10}
    recipe = real_step.recipe_for(
        saved, method={"plain_loop": loop}, **{"data.task": {"text": {"text": "document"}}}
    )
    card = devices.find("l40s").as_machine()
    made = plan(recipe, lengths=[48, 48, 20, 10], machine=card)
    assert made.needed_bytes >= made.peak_bytes
