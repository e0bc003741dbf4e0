"""A mask of ones is dropped in a fake run as in a real one; padding makes a mask in both."""

from __future__ import annotations

import preferences
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.masking_utils import create_causal_mask

from peftkit.memory.batch import AllOnes, make_batch
from peftkit.methods.classify import Classify
from peftkit.methods.pretrain_lm import PretrainLM
from peftkit.methods.seq2seq import Seq2Seq
from peftkit.methods.sft import SFT
from peftkit.plugins import Method, Point


@pytest.mark.parametrize(("layout", "is_masked"), [("full", False), ("padded", True)])
def test_attention_needs_a_mask_only_for_padding(layout: str, is_masked: bool) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=8, num_attention_heads=2, attn_implementation="sdpa")
    with FakeTensorMode():
        batch = make_batch(SFT(), Point(2, 6, layout))
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


class Masked(Method):
    """Two texts a row, of which tokens and their order are to be told: what BERT was made by."""

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        return {**super().columns(point), "next_sentence_label": (point.micro_batch,)}

    encode = None


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (SFT, {"labels": (3, 5), "attention_mask": (3, 5)}),
        (PretrainLM, {"labels": (3, 5), "attention_mask": (3, 5)}),
        (Classify, {"labels": (3,), "attention_mask": (3, 5)}),
        (Masked, {"labels": (3, 5), "next_sentence_label": (3,), "attention_mask": (3, 5)}),
        (
            Seq2Seq,
            {
                "labels": (3, 7), "decoder_input_ids": (3, 7), "attention_mask": (3, 5),
                "decoder_attention_mask": (3, 7),
            },
        ),
        (preferences.Pairs, {"labels": (6, 5), "attention_mask": (6, 5)}),
    ],
)  # fmt: skip
def test_masks_are_added_to_what_a_method_s_collator_makes(
    method: type[Method], expected: dict[str, tuple[int, ...]]
) -> None:
    batch = make_batch(method(), Point(3, 5, "padded", 7))
    found = {name: tuple(values.shape) for name, values in batch.items()}
    assert found == {"input_ids": expected["attention_mask"], **expected}
    is_dropped = isinstance(batch["attention_mask"], AllOnes)
    assert is_dropped == (method is PretrainLM), "blocks are of one length, and have no mask"


def test_tokens_say_which_text_they_are_of_where_a_model_asks() -> None:
    batch = make_batch(Classify(), Point(3, 5), has_types=True)
    assert batch["token_type_ids"].shape == (3, 5)


@pytest.mark.parametrize(("method", "num"), [(SFT, 15), (preferences.Pairs, 30)])
def test_a_flat_batch_is_one_row(method: type[Method], num: int) -> None:
    packed, flat = (make_batch(method(), Point(3, 5, layout)) for layout in ("packed", "flat"))
    assert packed["input_ids"].shape == flat["position_ids"].shape == (1, num)
    assert "attention_mask" not in packed
    assert isinstance(flat["attention_mask"], AllOnes)
