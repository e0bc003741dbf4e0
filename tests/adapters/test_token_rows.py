"""Rows of single tokens, trained through the head that trl's loss reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig

from peftkit.adapters.peft_types import Lora
from peftkit.models.base import load_base
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection

IDS = [380, 381]


def attached(folder: Path, **options):
    base = load_base(ModelSection(path=str(folder), dtype="float32"), kind=CAUSAL_LM)
    return Lora(LoraConfig(r=2, **options)).with_tokens(IDS).attach(base)


@pytest.mark.parametrize("is_tied", [True, False])
def test_trl_s_head_gives_the_gradients_of_the_model_s_own_loss(is_tied: bool, tmp_path) -> None:
    from trl.trainer.utils import add_fused_lm_head

    folder = tiny.tiny_llama(tmp_path, tie_word_embeddings=is_tied)
    ids = torch.tensor([[1, 380, 7, 381, 9, 380, 12]])
    found = []
    for fuses in (False, True):
        torch.manual_seed(0)
        model = attached(folder, target_modules=["q_proj"])
        if fuses:
            add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))
        model(
            input_ids=ids, labels=ids, **({"fused_lm_head": True} if fuses else {})
        ).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    plain, fused = found
    assert sum("trainable_tokens_delta" in name for name in fused) == (1 if is_tied else 2)
    for name, gradient in plain.items():
        torch.testing.assert_close(fused[name], gradient)
        assert "tokens" not in name or gradient.abs().max() > 0


def test_the_recipe_s_own_words_about_an_embedding_win(tiny_model) -> None:
    own = attached(tiny_model, target_modules=["q_proj"], trainable_token_indices=[5])
    assert own.peft_config["default"].trainable_token_indices == [5]
    whole = attached(tiny_model, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    assert whole.peft_config["default"].trainable_token_indices is None
