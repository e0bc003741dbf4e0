"""Fit: the fastest settings that fit, the global batch kept, pinned keys left alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_fixture import GIB, linear_plan

from peftkit.errors import ResourceError
from peftkit.fit import fit as find_fit
from peftkit.memory.evaluation import EvaluationPeak
from peftkit.memory.fake import PlanningError
from peftkit.memory.planner import Plan
from peftkit.memory.settings import checkpoints_activations, method_settings
from peftkit.planning import devices, search
from peftkit.planning.proposals import Fit
from peftkit.planning.roofline import predict
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]
LORA = ROOT / "recipes" / "summarize-lora.yaml"
ROWS = "method.sft.per_device_train_batch_size"
TIMES = "method.sft.gradient_accumulation_steps"
CHECKPOINTING = "method.sft.activation_checkpointing"


def plan_by_formula(
    recipe: Recipe, *, lengths: Any = None, machine: Any = None, num_processes: int = 1
) -> Plan:
    """Stand for the planner: a base of 8 GiB, 2 in 4 bits; 1 MiB a token, 0.1 checkpointed.

    Checkpointing costs a third more, 4 bits a tenth, as orders of magnitude.
    """
    options = method_settings(recipe, machine)
    is_quantized = recipe.model.quantize is not None
    is_checkpointed = checkpoints_activations(options)
    rows = options["per_device_train_batch_size"]
    flops = rows * 10**13 * (4 / 3 if is_checkpointed else 1) * (1.1 if is_quantized else 1)
    share = 1.0 if options["packing"] or lengths is None else sum(lengths) / 1024 / len(lengths)
    return linear_plan(
        num_tokens=round(rows * options["max_length"] * share),
        fixed=(2 if is_quantized else 8) * GIB,
        per_token=(1 << 20) // (10 if is_checkpointed else 1),
        rows=rows,
        length=options["max_length"],
        accumulation=options["gradient_accumulation_steps"],
        flops=int(flops),
    )


@pytest.fixture(autouse=True)
def _planner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "plan", plan_by_formula)


def fit(
    gib: float, *overrides: str, free: tuple[str, ...] = (), lengths: list[int] | None = None
) -> Fit:
    recipe = load_recipe(LORA, ("method.sft.max_length=1024", *overrides))
    return find_fit(recipe, devices.of_size(gib), free=free, lengths=lengths)


def test_a_large_device_gets_the_fastest_setting_not_the_smallest() -> None:
    found = fit(48)
    assert found.fits_now
    best = found.proposals[0]
    assert best.setup.settings == {CHECKPOINTING: False}, "nothing need be recomputed"
    assert best.changes[0].saved_bytes < 0 < 1 - best.changes[0].time_factor


def test_a_small_device_gets_what_costs_least() -> None:
    """16 rows of 1024 tokens: 8 + 16 GiB bare, 8 + 1.6 checkpointed, 2 + 1.6 in 4 bits too."""
    assert fit(24.5).proposals[0].setup.settings == {CHECKPOINTING: False}
    assert fit(20).proposals[0].setup.settings["model.quantize"], "4 bits cost less here"
    assert fit(11).proposals[0].setup.settings == {}
    assert set(fit(5).proposals[0].setup.settings) == {"model.quantize"}


def test_what_is_unknown_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Plan:
        raise PlanningError("it generates inside its step")

    monkeypatch.setattr(search, "plan", unknown)
    with pytest.raises(PlanningError, match="it generates inside its step"):
        fit(48)


def test_the_micro_batch_moves_only_when_released_and_keeps_the_global_batch() -> None:
    pinned = ("model.quantize=null", f"{CHECKPOINTING}=true")
    with pytest.raises(ResourceError, match="nothing that is open fits"):
        fit(9, *pinned)
    best = fit(9, *pinned, free=(ROWS,)).proposals[0]
    assert best.setup.settings == {ROWS: 8, TIMES: 2}
    assert best.setup.peak_bytes <= 9 * GIB


def test_pinned_keys_are_named_with_their_line() -> None:
    found = fit(48)
    line = LORA.read_text(encoding="utf-8").splitlines()[found.pinned[ROWS] - 1]
    assert "per_device_train_batch_size" in line
    assert fit(48, "method.sft.optim=adamw_torch").pinned["method.sft.optim"] is None


def test_nothing_fits_says_by_how_much_and_what_would() -> None:
    with pytest.raises(ResourceError) as caught:
        fit(1)
    text = str(caught.value)
    assert caught.value.exit_code == 5
    assert "3.60 GiB" in text and "2.60 GiB too many" in text, text
    assert "bnb_4bit_quant_type: nf4" in text, "the smallest setting is named"
    assert f"--free {ROWS}" in text and "a device of 4 GiB" in text
    assert "max_length" not in text.partition("try:")[2], "not even one token fits 1 GiB"
    with pytest.raises(ResourceError, match=r"max_length=640;"):
        fit(3)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12
)
@given(gib=st.floats(3.0, 60.0))
def test_whatever_is_proposed_fits_and_is_ordered_by_speed(gib: float) -> None:
    found = fit(gib, free=(ROWS,))
    paces = [proposal.setup.speed.tokens_per_second for proposal in found.proposals]
    for proposal in found.proposals:
        setup = proposal.setup
        assert setup.peak_bytes <= found.device.total_bytes
        assert setup.micro_batch * setup.accumulation == 16
        saved = sum(change.saved_bytes for change in proposal.changes)
        assert found.now.peak_bytes - saved == setup.peak_bytes, "the parts add up"
        factor = 1.0
        for change in proposal.changes:
            factor *= change.time_factor
        now = found.now.speed.tokens_per_second
        assert now / setup.speed.tokens_per_second == pytest.approx(factor)
    for faster, slower in itertools.pairwise(paces):
        assert faster >= slower * 0.98


def test_the_fastest_of_all_settings_is_proposed_first() -> None:
    """By brute force over what the formula allows."""
    for gib in (4, 6, 9, 12, 20, 30, 60):
        found = fit(gib, free=(ROWS,))
        best = found.proposals[0].setup.speed.seconds_per_step
        for checkpointed in (False, True):
            for quantized in (False, True):
                for rows in (1, 2, 4, 8, 16):
                    per_token = (1 << 20) // (10 if checkpointed else 1)
                    peak = (2 if quantized else 8) * GIB + rows * 1024 * per_token
                    if peak > gib * GIB:
                        continue
                    overrides = [f"{CHECKPOINTING}={str(checkpointed).lower()}", f"{ROWS}={rows}"]
                    overrides += [f"{TIMES}={16 // rows}", "method.sft.max_length=1024"]
                    if quantized:
                        overrides.append("model.quantize={bitsandbytes: {load_in_4bit: true}}")
                    machine = found.device.as_machine()
                    recipe = load_recipe(LORA, overrides)
                    speed = predict(
                        plan_by_formula(recipe, machine=machine),
                        devices.with_rates(found.device),
                        dtype="float32",
                    )
                    assert speed is not None
                    assert best <= speed.seconds_per_step * 1.02


def test_packing_keeps_the_tokens_of_a_step_and_needs_the_batch_released() -> None:
    """Rows that are a quarter full: packed, a step of 16 rows is one of 4."""
    flash = "model.attn_implementation=flash_attention_2"
    pinned = fit(48, flash, lengths=[256])
    assert all("method.sft.packing" not in p.setup.settings for p in pinned.proposals)
    packed = fit(48, flash, free=(ROWS,), lengths=[256]).proposals[0].setup
    assert packed.settings["method.sft.packing"] is True
    assert packed.micro_batch * packed.accumulation == 4
    assert packed.settings[ROWS] * packed.settings[TIMES] == 4
    full = fit(48, flash, free=(ROWS,), lengths=[1024])
    assert "method.sft.packing" not in full.proposals[0].setup.settings, "nothing to gain"


def test_a_proposal_lets_the_scoring_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(recipe: Recipe, **options: Any) -> Plan:
        made = plan_by_formula(recipe, **options)
        base = made.term_bytes("base")

        def scoring(batch_size: int | None) -> EvaluationPeak:
            rows = recipe.evaluate.batch_size if batch_size is None else batch_size
            return EvaluationPeak(base + rows * GIB, "prompts", rows, 1024, 0)

        object.__setattr__(made, "scoring", scoring)
        return made

    monkeypatch.setattr(search, "plan", scored)
    rows = "evaluate.batch_size=40"
    found = fit(24, rows, free=("evaluate.batch_size",))
    assert not found.fits_now
    assert found.scoring_bytes == 48 * GIB
    for proposal in found.proposals:
        fitting = proposal.setup.settings["evaluate.batch_size"]
        base = 2 if "model.quantize" in proposal.setup.settings else 8
        assert proposal.scoring_bytes == (base + fitting) * GIB <= 24 * GIB
        assert fitting == 24 - base
        assert proposal.changes[-1].lever == "scoring"
        assert proposal.changes[-1].saved_bytes == (40 - fitting) * GIB
    held = fit(24, rows)  # a key that stands in the recipe is left alone, and that is said
    assert "evaluate.batch_size" not in held.proposals[0].setup.settings
    assert held.proposals[0].scoring_bytes == 48 * GIB
    assert "evaluate.batch_size" in held.pinned


def test_json() -> None:
    content = fit(16, free=(ROWS,)).to_json()
    assert content["schema_version"] == 1
    assert content["device"] == {"name": "16 GiB", "total_bytes": 16 * GIB}
    first = content["proposals"][0]
    assert first["speed"]["basis"] == "predicted"
    assert {"settings", "peak_bytes", "headroom_bytes", "changes"} <= set(first)
