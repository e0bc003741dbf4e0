"""What a run trained loads as plain peft and transformers load it, and its base comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from training_fixture import train, write_recipe

from peftkit.adapters.switched_off import adapter_switched_off, keeps_base
from peftkit.errors import ArtefactError
from peftkit.rundir.paths import RunDir
from peftkit.training.open_run import load_base_of, load_tuned, open_run

IDS = [[20, 30, 40, 50, 60, 70], [21, 31, 41, 51, 61, 71]]


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS)).logits


def test_the_tuned_model_and_its_base_are_plain_peft_s(tiny_run: Path, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    before = _logits(base)
    after = _logits(PeftModel.from_pretrained(base, tiny_run / "adapter").eval())

    run = open_run(RunDir(tiny_run))
    tuned = load_tuned(run).eval()
    assert not any(weight.requires_grad for weight in tuned.parameters())
    torch.testing.assert_close(_logits(tuned), after, rtol=1e-4, atol=1e-4)
    assert not torch.equal(before, after)
    with adapter_switched_off(tuned) as inner:
        assert torch.equal(_logits(inner), before)
    assert torch.equal(_logits(load_base_of(run.built, run.device).eval()), before)
    assert run.tokenizer.chat_template == tiny.CHAT_TEMPLATE


def test_a_whole_model_is_loaded_from_the_run(tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
    sft = {"max_steps": 1, "learning_rate": 0.01, "save_strategy": "no"}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft, adapter="full")
    run_dir = train(recipe, tmp_path / "run")
    tuned = load_tuned(open_run(run_dir)).eval()
    plain = AutoModelForCausalLM.from_pretrained(run_dir.model).eval()
    assert torch.equal(_logits(tuned), _logits(plain))
    assert not keeps_base(tuned)


def test_overrides_reach_the_recipe(tiny_run: Path) -> None:
    run = open_run(RunDir(tiny_run), ["evaluate.batch_size=3"])
    assert run.built.recipe.evaluate is not None
    assert run.built.recipe.evaluate.batch_size == 3


def test_no_run_and_an_unfinished_one_are_told_apart(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(ArtefactError, match=r"is not a run directory: it has no resolved\.yaml"):
        open_run(RunDir(tmp_path))
    run_dir = RunDir(Path(shutil.copytree(tiny_run, tmp_path / "run")))
    shutil.rmtree(run_dir.adapter)
    with pytest.raises(ArtefactError, match=r"no trained weights yet \(the run is finished\)"):
        open_run(run_dir)
