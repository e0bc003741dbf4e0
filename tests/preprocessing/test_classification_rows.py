"""Texts and pairs are encoded and cut as their own tokenizer does."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_heads

from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.preprocessing.classification_rows import encode_texts

LONG, SHORT = " ".join(tiny.WORDS), "sort keys"


def test_a_pair_is_the_tokenizer_s_own_and_cut_as_it_cuts(tmp_path: Path) -> None:
    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    pairs = [(LONG, SHORT), (SHORT, LONG), (SHORT, SHORT)]
    rows = encode_texts(pairs, tokenizer, 16)
    for row, pair in zip(rows, pairs, strict=True):
        expected = tokenizer(*pair, truncation=True, max_length=16)
        assert row["input_ids"] == expected["input_ids"]
        assert row["token_type_ids"] == expected["token_type_ids"]
        assert row["length"] == len(tokenizer(*pair)["input_ids"])
    (alone,) = encode_texts([(LONG,)], tokenizer, 16)
    assert alone["input_ids"] == tokenizer(LONG, truncation=True, max_length=16)["input_ids"]
    assert encode_texts([], tokenizer, 16) == []


def test_the_end_token_parts_texts_that_a_tokenizer_would_join(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    one, other = (tokenizer(text)["input_ids"] for text in (LONG, SHORT))
    (whole,) = encode_texts([(LONG, SHORT)], tokenizer, 500)
    assert whole["input_ids"] == [*one, tokenizer.eos_token_id, *other]
    assert "token_type_ids" not in whole
    assert whole["length"] == len(whole["input_ids"])
    first, second = encode_texts([(LONG, SHORT), (LONG, LONG)], tokenizer, 16)
    assert first["input_ids"] == [*one[: 15 - len(other)], tokenizer.eos_token_id, *other]
    assert second["input_ids"] == [*one[:7], tokenizer.eos_token_id, *one[:8]]
    tokenizer.add_special_tokens({"sep_token": "<|user|>"})
    (parted,) = encode_texts([(SHORT, SHORT)], tokenizer, 16)
    assert parted["input_ids"] == [*other, tokenizer.sep_token_id, *other]


def test_without_any_token_to_part_them_a_pair_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    tokenizer.eos_token = None
    with pytest.raises(TemplateError, match="puts nothing between two texts"):
        encode_texts([(SHORT, SHORT)], tokenizer, 16)
