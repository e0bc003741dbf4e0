"""Differences of logits are what a formula says, and rows reach every part of the vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_heads
import torch
import transformers

from peftkit.models.logit_parity import compare, head_outputs, token_rows


def test_a_known_difference_is_measured() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    other = torch.tensor([[1.0, 0.5], [3.0, 2.0]])
    found = compare([reference], [other])
    assert found.max_difference == 3.0
    assert found.rms_difference == pytest.approx((9.25 / 4) ** 0.5)
    assert found.relative_rms == pytest.approx((9.25 / 5) ** 0.5)
    assert (found.num_agreeing, found.num_tokens) == (1, 2)
    assert "1 of 2" in str(found)


def test_a_logit_that_is_no_number_is_an_endless_difference() -> None:
    found = compare([torch.zeros(1, 2)], [torch.tensor([[0.0, float("nan")]])])
    assert found.max_difference == float("inf")


def test_rows_are_cut_and_one_goes_through_the_whole_vocabulary(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    rows = token_rows(tokenizer, ["sum " * 90, "", "return a file"], vocab_size=512)
    assert [len(row) for row in rows[:-1]] == [48, len(tokenizer("return a file").input_ids)]
    assert rows[-1][0] == 0
    assert rows[-1][-1] > 460
    assert len(token_rows(tokenizer, [], vocab_size=512)) == 4


def test_rows_end_where_the_tokenizer_ends_texts(tmp_path: Path) -> None:
    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    rows = token_rows(tokenizer, ["sum " * 90, "return a file"], vocab_size=512)
    assert [len(row) for row in rows[::2]] == [48, 48]
    assert {row[-1] for row in rows} == {tokenizer.eos_token_id}


def test_every_head_of_a_model_is_heard() -> None:
    sizes = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 1,
             "num_attention_heads": 4, "max_position_embeddings": 32}  # fmt: skip
    config = transformers.BertConfig(**sizes)
    shapes = {
        "BertForPreTraining": [(3, 48), (1, 2)],
        "BertForQuestionAnswering": [(1, 3), (1, 3)],
        "BertForTokenClassification": [(3, 2)],
        "BertModel": [(3, 32)],
    }
    for name, wanted in shapes.items():
        found = head_outputs(getattr(transformers, name)(config).eval(), [5, 6, 7])
        assert [tuple(values.shape) for values in found] == wanted
