"""The probe leaves no trace: a run after it is the run without it, bit for bit."""

from __future__ import annotations

import random

import preferences
import pytest
import real_step
import torch

from peftkit.memory.probe import probe_longest_batch
from peftkit.plugins import CAUSAL_LM, Training
from peftkit.recipe.build import build


def _tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<pad>",
    )


def _trained(tmp_path, method: str, *, is_probed: bool, **options) -> dict[str, torch.Tensor]:
    from datasets import Dataset

    from peftkit.models.base import load_base

    folder = tmp_path / "model"
    if not folder.exists():
        real_step.save_model(folder, {**real_step.LLAMA, "num_hidden_layers": 2})
    options = {
        "per_device_train_batch_size": 2, "max_length": 64, "max_steps": 3, "use_cpu": True,
        "learning_rate": 1e-2, "report_to": "none", "save_strategy": "no", **options,
    }  # fmt: skip
    changes = {
        "method": {method: options},
        "adapter": {"lora": {"r": 4, "lora_dropout": 0.2, "target_modules": "all-linear"}},
    }
    if method == "pretrain_lm":
        changes["data.task"] = {"text": {"text": "document"}}
    recipe = real_step.recipe_for(folder, **changes)
    built = build(recipe, real_step.CPU)
    torch.manual_seed(0)
    random.seed(0)
    model = built.adapter.attach(load_base(recipe.model, kind=CAUSAL_LM))
    lengths = (10, 20, 60, 40, 30, 12) if method == "sft" else (64,) * 6
    rows = [{"input_ids": list(range(5, 5 + n)), "labels": list(range(5, 5 + n))} for n in lengths]
    trainer = built.method.trainer(
        Training(model, _tokenizer(), Dataset.from_list(rows), None, (), tmp_path)
    )
    if is_probed:
        before = [torch.get_rng_state().clone(), random.getstate()]
        length = probe_longest_batch(trainer, built.method, device="cpu")
        assert length == max(lengths)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert all(p.grad is None for p in model.parameters())
    trainer.train()
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", {}),
        ("sft", {"activation_checkpointing": True}),
        ("pretrain_lm", {}),
    ],
)
def test_a_probed_run_is_the_same_run(method: str, options, tmp_path) -> None:
    plain = _trained(tmp_path, method, is_probed=False, **options)
    probed = _trained(tmp_path, method, is_probed=True, **options)
    assert plain.keys() == probed.keys()
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


def test_a_loss_of_the_trainers_own_is_not_probed() -> None:
    method = preferences.Unknown(preferences.arguments())
    assert probe_longest_batch(None, method, device="cpu") is None
