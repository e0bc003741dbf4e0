"""Rows for pretraining are put together as BERT's, and repeat themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from datasets import Dataset

from peftkit.errors import UsageError
from peftkit.preprocessing.masked_words import Masking
from peftkit.preprocessing.pretraining_rows import RowMaker, marks_of
from peftkit.preprocessing.segment_pairs import encode_documents
from peftkit.preprocessing.wordpiece import train_wordpiece

TEXTS = [" ".join(tiny.WORDS[i:] + tiny.WORDS[:i]) + ". Then return." for i in range(30)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(TEXTS, vocab_size=150, max_length=32)


@pytest.fixture(scope="module")
def encoded(tokenizer) -> Dataset:
    return Dataset.from_list(encode_documents(TEXTS, tokenizer))


def maker(tokenizer, **options) -> RowMaker:
    marks = marks_of(tokenizer)
    return RowMaker(32, marks, Masking(marks.mask, len(tokenizer)), **{"seed": 1, **options})


def original(row) -> list[int]:
    """Put the masked words back."""
    return [
        token if label == -100 else label
        for token, label in zip(row["input_ids"], row["labels"], strict=True)
    ]


def test_a_pair_is_two_segments_of_the_texts_in_bert_s_form(tokenizer, encoded) -> None:
    made = maker(tokenizer).pairs(encoded)
    assert made.column_names == ["input_ids", "labels", "token_type_ids", "next_sentence_label"]
    joined = [" ".join(map(str, row["input_ids"])) for row in encoded]
    for row in made:
        ids, types = original(row), row["token_type_ids"]
        assert len(ids) == len(types) <= 32
        middle = types.index(1)
        assert (ids[0], ids[middle - 1], ids[-1]) == (2, 3, 3)
        assert types == [0] * middle + [1] * (len(ids) - middle)
        first, second = ids[1 : middle - 1], ids[middle:-1]
        assert all(
            any(" ".join(map(str, part)) in text for text in joined) for part in (first, second)
        )
    assert set(made["next_sentence_label"]) == {0, 1}


def test_a_block_is_as_full_as_can_be_and_no_token_is_lost(tokenizer, encoded) -> None:
    made = maker(tokenizer).blocks(encoded)
    assert {len(row["input_ids"]) for row in made.select(range(len(made) - 1))} == {32}
    read = [token for row in made for token in original(row)[1:-1]]
    joined = [token for row in encoded for token in (*row["input_ids"], 3)][:-1]
    assert read == joined


def test_rows_repeat_themselves_and_another_pass_or_seed_masks_anew(tokenizer, encoded) -> None:
    once = maker(tokenizer).pairs(encoded).to_list()
    assert maker(tokenizer).pairs(encoded).to_list() == once
    assert maker(tokenizer, seed=2).pairs(encoded).to_list() != once
    twice = maker(tokenizer, dupe_factor=2).pairs(encoded).to_list()
    assert twice[: len(once)] == once
    assert twice[len(once) :] != once


def test_a_decoder_s_tokenizer_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cls_token and no sep_token and no mask_token"):
        marks_of(tiny.tiny_tokenizer(tmp_path))
