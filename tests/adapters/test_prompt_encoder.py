"""A prompt encoder outlives a checkpoint, and PEFT's file alone is not taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftkit.adapters.continued import load_adapter
from peftkit.adapters.peft_types import PrefixTuning, PTuning
from peftkit.adapters.prompt_encoder import put_back
from peftkit.errors import ArtefactError


@pytest.fixture
def make(tiny_model: Path):
    from peft import PromptEncoderConfig
    from transformers import AutoModelForCausalLM

    def make(seed: int):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        torch.manual_seed(seed)
        return PTuning(PromptEncoderConfig(num_virtual_tokens=4)).attach(base)

    return make


def test_put_back_makes_the_same_prompt(make) -> None:
    one, other = make(0), make(1)
    ids = torch.tensor([[5, 6, 7]])
    trained = {name: p.detach().clone() for name, p in one.named_parameters() if p.requires_grad}
    assert not torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)
    put_back(other, trained)
    assert torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


def test_training_does_not_go_on_from_the_computed_prompt(
    make, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tuned = make(0).eval()
    tuned.save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(ArtefactError, match="without the encoder, so training cannot go on"):
        load_adapter(base, tmp_path, is_trainable=True)
    again = load_adapter(base, tmp_path, is_trainable=False)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(again(input_ids=ids).logits, tuned(input_ids=ids).logits)


def test_a_prefix_projection_is_refused_with_a_way_out() -> None:
    options = {"num_virtual_tokens": 4, "prefix_projection": True}
    (conflict,) = PrefixTuning.conflicts(options, "sft", {})
    assert conflict.endswith("say false, or use p_tuning")
    assert PrefixTuning.conflicts({"num_virtual_tokens": 4}, "sft", {}) == []
