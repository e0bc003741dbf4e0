"""A mask of ones is dropped in a fake run as in a real one; padding makes a mask in both."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.masking_utils import create_causal_mask

from peftkit.memory.batch import AllOnes, Point, make_batch


@pytest.mark.parametrize(("layout", "is_masked"), [("full", False), ("padded", True)])
def test_attention_needs_a_mask_only_for_padding(layout: str, is_masked: bool) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=8, num_attention_heads=2, attn_implementation="sdpa")
    with FakeTensorMode():
        batch = make_batch("AutoModelForCausalLM", Point(2, 6, layout))
        mask = create_causal_mask(
            config=config,
            inputs_embeds=torch.empty(2, 6, 8),
            attention_mask=batch["attention_mask"],
            past_key_values=None,
            position_ids=torch.empty(1, 6, dtype=torch.long),
        )
    assert (mask is not None) == is_masked


def test_a_mask_of_ones_stays_one_when_a_prompt_is_put_before_it() -> None:
    mask = AllOnes(torch.ones(2, 3, dtype=torch.long))
    longer = torch.cat((torch.ones(2, 4, dtype=torch.long), mask), dim=1)
    assert isinstance(longer, AllOnes)
    assert longer.shape == (2, 7)
    assert longer.all()
    assert longer.sum() == longer.numel()


@pytest.mark.parametrize(
    ("auto_class", "keys"),
    [
        ("AutoModelForSequenceClassification", {"labels": (3,)}),
        ("AutoModelForQuestionAnswering", {"start_positions": (3,), "end_positions": (3,)}),
        ("AutoModelForPreTraining", {"labels": (3, 5), "next_sentence_label": (3,)}),
        ("AutoModelForCausalLM", {"labels": (3, 5)}),
    ],
)
def test_each_head_gets_its_labels(auto_class: str, keys: dict[str, tuple[int, ...]]) -> None:
    batch = make_batch(auto_class, Point(3, 5))
    assert {k: tuple(v.shape) for k, v in batch.items() if k in keys} == keys


def test_a_flat_batch_is_one_row() -> None:
    packed, flat = (make_batch("", Point(3, 5, layout)) for layout in ("packed", "flat"))
    assert packed["input_ids"].shape == flat["position_ids"].shape == (1, 15)
    assert "attention_mask" not in packed
    assert isinstance(flat["attention_mask"], AllOnes)
