"""A trial: the method's own trainer really trains, and its phases are told apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from peftkit.benching.grid import Cell
from peftkit.benching.trial import Trial, run_trial
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe
from peftkit.system.machine import describe_machine

CONFIG = {
    "model_type": "llama",
    "vocab_size": 8192,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "dtype": "float32",
    "tie_word_embeddings": False,
}
LORA = {"lora": {"r": 4, "target_modules": "all-linear"}}
NF4 = {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}


def run(folder: Path, *, adapter: Any = LORA, model: Any = None, sft: Any = None) -> Trial:
    sections = {
        "model": {"dtype": "float32", **(model or {})},
        "adapter": adapter,
        "method": {"sft": sft or {}},
    }
    cell = Cell("g", "tiny", "m", CONFIG, sections, 64, 2, None, None, 2, 0)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "recipe.yaml").write_text(cell.recipe_text(folder), encoding="utf-8")
    recipe, machine = load_recipe(folder / "recipe.yaml"), describe_machine()
    return run_trial(cell, build(recipe, machine), machine, folder)


def test_lora_trains_and_every_phase_is_read(tmp_path: Path) -> None:
    trial = run(tmp_path)
    assert set(trial.phase_bytes) == {"forward", "backward", "step"}
    # Not above it where this process's heap still holds what an earlier test freed.
    assert trial.peak_bytes == max(trial.phase_bytes.values()) >= trial.baseline_bytes > 0
    assert len(trial.step_seconds) == 2, "the first of three steps warms up"
    assert trial.num_tokens == 2 * 64
    assert trial.final_loss == pytest.approx(math.log(8192), rel=0.05), (
        "random weights know nothing"
    )
    assert 0 < trial.num_trainable < trial.num_parameters
    assert trial.kind == "resident" and trial.reserved_bytes is None
    assert json.loads(json.dumps(trial.to_json()))["tokens_per_second"] > 0


def test_accumulation_counts_every_micro_batch(tmp_path: Path) -> None:
    trial = run(tmp_path, sft={"gradient_accumulation_steps": 3})
    assert trial.num_tokens == 3 * 2 * 64
    assert len(trial.step_seconds) == 2


def test_a_4_bit_base_and_full_training(tmp_path: Path) -> None:
    assert run(tmp_path, model={"quantize": NF4}).final_loss < 10
    whole = run(tmp_path, adapter="full")
    assert whole.num_trainable == whole.num_parameters
