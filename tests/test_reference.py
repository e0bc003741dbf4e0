"""peftkit's training is trl's and peft's, number by number, and two ways to one batch agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference_sft
import tiny
import torch
from safetensors.torch import load_file
from training_fixture import LORA, losses, train, write_recipe

# PEFT 0.21.2 reads an attribute that transformers 5.23 renamed; plain scripts cannot help it.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SFT = {
    "learning_rate": 1e-3,
    "max_steps": 8,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_length": 128,
    "seed": 7,
}
DROPOUT = {**LORA, "lora_dropout": 0.1}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(11))


def test_training_equals_a_plain_trl_and_peft_script_bit_by_bit(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft={**SFT, "logging_steps": 1}, lora=DROPOUT
    )
    ours = train(recipe, tmp_path / "ours", "speed={loss: native, unpad: off, fused_adapter: off}")
    theirs = reference_sft.train(
        str(tiny_model), rows, lora=DROPOUT, sft=SFT, out=tmp_path / "theirs"
    )

    assert losses(ours) == theirs["losses"]
    measured = json.loads(ours.measured.read_text())
    assert measured["final_loss"] == theirs["losses"][-1]
    weights = load_file(ours.adapter / "adapter_model.safetensors")
    named = {name.replace(".default", ""): value for name, value in theirs["weights"].items()}
    assert weights.keys() == named.keys()
    assert all(torch.equal(weights[name], named[name]) for name in weights)


@pytest.mark.invariant
def test_a_batch_of_eight_trains_like_eight_accumulated_batches_of_one(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    common = {"learning_rate": 1e-3, "max_steps": 4, "max_length": 128, "logging_steps": 1}
    whole = {**common, "per_device_train_batch_size": 8}
    parts = {**common, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    found = [
        losses(
            train(
                write_recipe(tmp_path / f"{name}.json", tiny_model, rows, sft=sft),
                tmp_path / name,
            )
        )
        for name, sft in (("whole", whole), ("parts", parts))
    ]
    # 11 rows: the second step of each epoch has 3 of them, with uneven lengths. float32 sums in
    # another order differ in the last digits; a wrong normalisation differs in the first.
    assert found[0] == pytest.approx(found[1], rel=2e-5)


def test_the_adapter_alone_is_trained_and_the_base_keeps_its_bits(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    before = load_file(tiny_model / "model.safetensors")
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft={**SFT, "max_steps": 2})
    run_dir = train(recipe, tmp_path / "run")
    saved = load_file(run_dir.adapter / "adapter_model.safetensors")

    assert all("lora_" in name for name in saved)
    assert any(value.abs().sum() > 0 for name, value in saved.items() if "lora_B" in name)
    after = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_plain_peft_loads_the_adapter(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft={**SFT, "max_steps": 2})
    run_dir = train(recipe, tmp_path / "run")
    model = AutoPeftModelForCausalLM.from_pretrained(run_dir.adapter)
    tokenizer = AutoTokenizer.from_pretrained(run_dir.adapter)
    out = model(**tokenizer("return the sum", return_tensors="pt"))

    assert out.logits.isfinite().all()
    assert not list(run_dir.path.rglob("training_args.bin"))
