"""Levers: what a recipe states is pinned, what it leaves open is not, and `free` releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import UsageError
from peftkit.planning import devices
from peftkit.planning.levers import Levers, read_levers
from peftkit.planning.proposals import overrides_of
from peftkit.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]
LORA = ROOT / "recipes" / "summarize-lora.yaml"
QLORA = ROOT / "recipes" / "summarize-qlora.yaml"
FULL = ROOT / "recipes" / "summarize-full.yaml"
ROWS = "method.sft.per_device_train_batch_size"
MACHINE = devices.of_size(16).as_machine()


def levers_of(file: Path, overrides: tuple[str, ...] = (), free: tuple[str, ...] = ()) -> Levers:
    return read_levers(load_recipe(file, overrides), MACHINE, free=free)


def named(levers: Levers, name: str):
    return next(lever for lever in (*levers.levers, levers.batching) if lever.name == name)


def test_what_stands_in_the_recipe_is_pinned() -> None:
    levers = levers_of(LORA)
    assert named(levers, "micro-batch").pinned_by == (ROWS,)
    assert named(levers, "quantization").pinned_by == ()
    assert ROWS in levers.pinned()
    assert (levers.micro_batch, levers.accumulation) == (16, 1)


def test_only_what_would_give_room_is_worth_releasing() -> None:
    quantized = levers_of(QLORA, (f"{ROWS}=1",))
    assert "model.quantize" in quantized.pinned()
    assert quantized.releasable() == ()  # nothing is smaller than nf4 and one row
    stated = levers_of(LORA, ("method.sft.optim=adamw_torch",))
    assert stated.releasable() == ("method.sft.optim", ROWS)
    assert named(stated, "optimizer").saver == {"method.sft.optim": "adamw_8bit"}
    assert named(quantized, "quantization").saver is None


def test_what_the_command_line_says_is_pinned_too() -> None:
    levers = levers_of(LORA, ("method.sft.optim=adamw_torch",))
    assert named(levers, "optimizer").pinned_by == ("method.sft.optim",)
    assert "optimizer" not in [lever.name for lever in levers.open()]


def test_a_section_is_pinned_by_any_key_in_it() -> None:
    levers = levers_of(QLORA)
    assert named(levers, "quantization").pinned_by == ("model.quantize",)
    released = named(levers_of(QLORA, free=("model.quantize",)), "quantization")
    assert released.pinned_by == ()
    assert released.choices == ({"model.quantize": None},)


def test_free_releases_and_the_global_batch_needs_both_of_its_keys() -> None:
    assert named(levers_of(LORA, free=(ROWS,)), "micro-batch").pinned_by == ()
    accumulation = "method.sft.gradient_accumulation_steps"
    both = levers_of(LORA, (f"{accumulation}=4",), (ROWS,))
    assert named(both, "micro-batch").pinned_by == (accumulation,)


def test_free_of_what_fit_never_changes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--free method.sft.learning_rate: fit never changes"):
        levers_of(LORA, free=("method.sft.learning_rate",))


def test_full_training_is_never_quantized() -> None:
    assert named(levers_of(FULL), "quantization").choices == ()


def test_packing_is_offered_where_a_kernel_knows_where_rows_end() -> None:
    assert named(levers_of(LORA), "packing").choices == ()
    flash = levers_of(LORA, ("model.attn_implementation=flash_attention_2",))
    assert named(flash, "packing").choices == ({"method.sft.packing": True},)


@pytest.mark.parametrize("file", [LORA, QLORA, FULL], ids=lambda f: f.stem)
def test_every_choice_passes_the_gate(file: Path) -> None:
    levers = levers_of(file)
    choices = [choice for lever in levers.levers for choice in lever.choices]
    assert choices
    for choice in choices:
        load_recipe(file, overrides_of(choice))
