"""A whole model is saved, resumed and loaded like an adapter, in transformers' own format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tiny
from training_fixture import cut_back, train, write_recipe

from peftkit.rundir.paths import RunDir

SFT = {
    "learning_rate": 1e-3,
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "save_steps": 1,
    "save_total_limit": 4,
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))
    return write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, adapter="full")


def _sha256(run_dir: RunDir) -> str:
    return hashlib.sha256((run_dir.model / "model.safetensors").read_bytes()).hexdigest()


def test_a_whole_model_is_trained_resumed_and_loaded(recipe: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoModelForCausalLM

    whole = train(recipe, tmp_path / "whole")
    assert not whole.adapter.exists()
    model = AutoModelForCausalLM.from_pretrained(whole.model)
    measured = json.loads(whole.measured.read_text())
    assert measured["num_trainable"] == measured["num_parameters"] == model.num_parameters()

    for step in (2, 4):
        part = RunDir(tmp_path / f"part-{step}")
        shutil.copytree(whole.path, part.path)
        shutil.rmtree(part.model)
        cut_back(part, step=step)
        train(recipe, part.path)
        assert _sha256(part) == _sha256(whole)


def test_the_adapter_names_its_base_as_plain_peft_needs_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))
    sft = {"max_steps": 1, "save_strategy": "no"}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft)
    run_dir = train(recipe, tmp_path / "run", "method.sft.learning_rate=1e-3")
    card = (run_dir.adapter / "README.md").read_text()
    assert "# changed on the command line:\n#   method.sft.learning_rate=1e-3\n" in card
    config = json.loads((run_dir.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["revision"] is None
    assert {path.name for path in run_dir.adapter.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "tokenizer.json", "tokenizer_config.json", "generation_config.json", "base.json",
        "trained.json",
    }  # fmt: skip
