"""What a run trains is the base with its adapter, as plain peft attaches it under the same seed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console
from training_fixture import write_recipe

from peftkit.job import Job, prepare
from peftkit.loading import load_base, load_model, load_trained
from peftkit.progress import Screen
from peftkit.recipe.load import load_recipe
from peftkit.run_dir import RunDir

IDS = [[20, 30, 40, 50, 60, 70]]
SFT = {"max_length": 128, "seed": 3}


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: Path, screen: Screen):
    def make(**sections: Any) -> Job:
        rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
        recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, **sections)
        return prepare(load_recipe(recipe), RunDir(tmp_path / "run"), screen)

    return make


def _logits(model: Any) -> Any:
    import torch

    model.eval()
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_the_adapter_s_first_weights_are_plain_peft_s(
    make_job, screen: Screen, tiny_model: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    model = load_model(make_job(lora=options), screen)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    set_seed(3)
    plain = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))

    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    expected = {n: p for n, p in plain.named_parameters() if p.requires_grad}
    assert trained.keys() == expected.keys()
    assert all(torch.equal(trained[name], expected[name]) for name in expected)
    num = sum(weight.numel() for weight in expected.values())
    total = sum(weight.numel() for weight in plain.parameters())
    said = screen.console.file.getvalue()
    assert f"{num:,} of {total:,} parameters trained ({num / total:.2%})" in said


def test_an_existing_adapter_goes_on(make_job, screen: Screen, tiny_run: Path) -> None:
    import torch
    from peft import PeftModel

    job = make_job(adapter={"from": str(tiny_run / "adapter")})
    model = load_model(job, screen)
    plain = PeftModel.from_pretrained(load_base(job), tiny_run / "adapter")
    assert torch.equal(_logits(model), _logits(plain))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_trained_weights_are_loaded_from_either_folder(
    make_job, screen: Screen, tiny_run: Path, tiny_model: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    job = make_job()
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = _logits(base)
    assert torch.equal(_logits(load_trained(job, tiny_model)), before)
    plain = PeftModel.from_pretrained(base, tiny_run / "adapter")
    assert torch.equal(_logits(load_trained(job, tiny_run / "adapter")), _logits(plain))


def test_a_new_model_is_the_same_for_the_same_seed(tmp_path: Path, screen: Screen) -> None:
    import torch

    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"text": " ".join(tiny.WORDS[:9])}] * 4)
    new = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    sections = {
        "model": {"config": new, "tokenizer": {"bpe": {"vocab_size": 300}}, "dtype": "float32"},
        "adapter": "full",
        "data": {
            "source": {"json": {"files": str(rows)}},
            "splits": {"train": "train"},
            "task": {"text": {}},
        },
        "evaluate": False,
    }

    def load(seed: int) -> Any:
        recipe = write_recipe(
            tmp_path / "r.json", tmp_path, rows, sft={"max_length": 64, "seed": seed}, **sections
        )
        job = prepare(load_recipe(recipe), RunDir(tmp_path / "run"), screen)
        return load_model(job, screen)

    first = load(1)
    assert torch.equal(_logits(first), _logits(load(1)))
    assert not torch.equal(_logits(first), _logits(load(2)))
    assert all(weight.requires_grad for weight in first.parameters())
