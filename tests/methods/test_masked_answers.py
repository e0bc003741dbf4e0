"""Masked words are filled in as transformers' own pipeline fills them in."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import BertConfig, BertForMaskedLM, pipeline

from peftkit.errors import DataError, UsageError
from peftkit.methods.masked_answers import MaskedWordsAnswerer
from peftkit.plugins import Asking, Question
from peftkit.preprocessing.wordpiece import train_wordpiece


@pytest.fixture(scope="module")
def parts():
    tokenizer = train_wordpiece([" ".join(tiny.WORDS)] * 3, vocab_size=150, max_length=16)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    return BertForMaskedLM(config).eval(), tokenizer


def answerer(parts, **options) -> MaskedWordsAnswerer:
    model, tokenizer = parts
    task: Any = None
    asking = Asking(
        task=task, tokenizer=tokenizer, batch_size=2, options=options, generation={},
        source_limit=None, load=lambda: model, encode=lambda _: [],
    )  # fmt: skip
    return MaskedWordsAnswerer(asking)


def test_the_words_and_their_shares_are_those_of_the_pipeline(parts) -> None:
    model, tokenizer = parts
    text = "return the [MASK] of two [MASK]"
    written: list[str] = []
    reply = answerer(parts).reply(Question(text=text), written.append)
    filler = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    for words, wanted in zip(reply.values["words"], filler(text), strict=True):
        assert [one["word"] for one in words] == [one["token_str"] for one in wanted]
        assert [one["share"] for one in words] == pytest.approx([one["score"] for one in wanted])
    first = [words[0]["word"] for words in reply.values["words"]]
    assert set(first) <= set(reply.text.replace("##", " ").split()) | set(first)
    assert "[MASK]" not in reply.text
    assert written[0].splitlines()[0] == reply.text


def test_a_text_that_cannot_be_filled_in_says_why(parts) -> None:
    with pytest.raises(DataError, match=r"the text has no \[MASK\]"):
        answerer(parts).reply(Question(text="return the sum"), print)
    with pytest.raises(DataError, match="has 22 tokens, and the model reads 16"):
        answerer(parts).reply(Question(text="[MASK] " * 20), print)
    with pytest.raises(UsageError, match="so max_new_tokens has no use"):
        answerer(parts, max_new_tokens=3)
