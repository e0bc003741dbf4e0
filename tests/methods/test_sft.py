"""SFT's decisions, its rows, and the trainer that sees exactly them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny
from training_fixture import LORA, losses, train, write_recipe

from peftkit.errors import UsageError
from peftkit.methods.sft import SFT
from peftkit.plugins import Conversation, Machine, Text
from peftkit.plugins.machine import decided

CPU = Machine("cpu", True, 8 << 30, 4 << 30, "a CPU")
CUDA = Machine("cuda", True, 80 << 30, 79 << 30, "a GPU")


def _decided(machine: Machine = CPU, dtype: str = "float32", **options) -> dict:
    chosen = SFT.decide(options, dtype=dtype, machine=machine)
    assert all(one.reason for one in chosen)
    found = decided("method.sft", chosen, options)
    return {decision.key.removeprefix("method.sft."): decision.value for decision in found}


def _sft(**options) -> SFT:
    from trl import SFTConfig

    return SFT(SFTConfig(use_cpu=True, bf16=False, activation_checkpointing=False, **options))


@pytest.mark.parametrize(
    ("machine", "dtype", "bf16", "fp16"),
    [
        (CPU, "float32", False, False),
        (CPU, "bfloat16", False, False),
        (CPU, "auto", False, False),
        (CUDA, "float32", False, False),
        (CUDA, "bfloat16", True, None),
        (CUDA, "auto", True, None),
        (CUDA, "float16", False, True),
        (dataclasses.replace(CUDA, supports_bfloat16=False), "auto", False, False),
    ],
)
def test_precision_follows_the_machine_and_the_dtype(machine, dtype, bf16, fp16) -> None:
    found = _decided(machine, dtype)
    assert (found["bf16"], found.get("fp16")) == (bf16, fp16)


def test_what_the_recipe_states_is_never_decided() -> None:
    stated = {"bf16": True, "logging_steps": 5, "gradient_checkpointing": True}
    found = _decided(**stated)
    assert not {"bf16", "fp16", "logging_steps", "activation_checkpointing"} & set(found)
    assert _decided(CUDA, use_cpu=True)["dataloader_pin_memory"] is False


def test_every_decision_is_a_native_key() -> None:
    from trl import SFTConfig

    known = {field.name for field in dataclasses.fields(SFTConfig)}
    assert set(_decided()) | set(_decided(CUDA, "float16")) <= known
    assert set(SFT.owned) <= known


def test_rows_are_encoded_with_the_end_of_the_turn_trained(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turn = ({"role": "user", "content": "sort"}, {"role": "assistant", "content": "rows"})
    examples = [Conversation(turn), Text("rows"), Conversation(turn)]
    (row,), (text,), again = _sft().encode(examples, tokenizer)
    assert again == [row]
    trained = [token for token, label in zip(*row.values(), strict=True) if label != -100]
    assert tokenizer.decode(trained) == "rows<|endoftext|>"
    assert text["labels"] == text["input_ids"]
    assert text["input_ids"][-1] == tokenizer.eos_token_id


def _rows(*lengths: int):
    from datasets import Dataset

    ids = [list(range(10, 10 + length)) for length in lengths]
    return Dataset.from_dict({"input_ids": ids, "labels": ids, "other": [0] * len(ids)})


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning")
def test_long_rows_lose_their_end_or_their_start() -> None:
    cut = _sft(max_length=3).arrange(_rows(2, 5), None)
    assert cut["input_ids"][:] == cut["labels"][:] == [[10, 11], [10, 11, 12]]
    cut = _sft(max_length=3, truncation_mode="keep_end").arrange(_rows(2, 5), None)
    assert cut["labels"][:] == [[10, 11], [12, 13, 14]]
    assert _sft(max_length=None).arrange(_rows(2, 5), None)["labels"][1] == [10, 11, 12, 13, 14]


def test_shuffling_and_packing_are_trls_own() -> None:
    from trl import pack_dataset

    rows = _rows(2, 5, 3, 4)
    shuffled = _sft(max_length=9, shuffle_dataset=True, seed=3).arrange(rows, None)
    assert shuffled["input_ids"][:] == rows.shuffle(seed=3)["input_ids"][:]
    packed = _sft(max_length=8, packing=True).arrange(rows, None)
    theirs = pack_dataset(rows.select_columns(["input_ids", "labels"]), 8, "bfd")
    assert packed.to_dict() == theirs.to_dict()
    assert sorted(sum(lengths) for lengths in packed["seq_lengths"]) == [6, 8]
    assert _sft(max_length=8, packing=True).max_length == 8
    assert _sft(max_length=8, packing=True, packing_strategy="bfd_split").max_length is None
    with pytest.raises(UsageError, match="needs the length of a block"):
        _sft(max_length=None, packing=True).arrange(rows, None)


@pytest.mark.invariant
def test_packed_rows_train_like_the_same_rows_padded(tmp_path: Path, tiny_model: Path) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))
    common = {"learning_rate": 1e-3, "num_train_epochs": 3, "logging_steps": 1}
    # One step sees all six rows, packed into blocks or padded, so that the batches are the same.
    packed = {**common, "per_device_train_batch_size": 6, "max_length": 200, "packing": True}
    padded = {**common, "per_device_train_batch_size": 6, "max_length": 200}
    found = [
        losses(train(write_recipe(tmp_path / f"{i}.json", tiny_model, rows, sft=sft), tmp_path / i))
        for i, sft in (("packed", packed), ("padded", padded))
    ]
    assert found[0] == pytest.approx(found[1], rel=2e-5)


def test_what_trl_refuses_is_a_usage_error(tmp_path: Path, tiny_model: Path) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft={"max_steps": 1, "router_aux_loss_coef": 0.1}
    )
    with pytest.raises(UsageError, match=r"trl's SFTTrainer refuses method\.sft with this model"):
        train(recipe, tmp_path / "run")


def test_an_adapter_on_a_quantized_base_keeps_its_dtype(tmp_path: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file

    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
    recipe = write_recipe(
        tmp_path / "r.json",
        tiny_model,
        rows,
        sft={"max_steps": 1, "save_strategy": "no"},
        lora=LORA,
        model={
            "path": str(tiny_model),
            "dtype": "float32",
            "quantize": {"bitsandbytes": {"load_in_4bit": True}},
        },
    )
    run_dir = train(recipe, tmp_path / "run")
    weights = load_file(run_dir.adapter / "adapter_model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.float32"}
