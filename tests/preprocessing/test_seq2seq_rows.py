"""Sources and targets are what a plain tokenizer makes of them, cut without losing their close."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_heads

from peftkit.errors import DataError
from peftkit.plugins.examples import Conversation
from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.preprocessing.seq2seq_rows import (
    cut_before_closing,
    encode_pairs,
    encode_source,
    source_closing,
)

USER = {"role": "user", "content": "read a file"}
ANSWER = {"role": "assistant", "content": "close it"}
SYSTEM = {"role": "system", "content": "sort keys"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory):
    return tiny_heads.closed_tokenizer(tmp_path_factory.mktemp("closed"))


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory):
    return tiny.tiny_tokenizer(tmp_path_factory.mktemp("chatty"))


def test_without_a_template_the_tokenizer_says_it_all(closed) -> None:
    (row,) = encode_pairs([Conversation((SYSTEM, USER, ANSWER))], closed)
    assert row["input_ids"] == closed("sort keys\n\nread a file")["input_ids"]
    assert row["labels"] == closed(text_target="close it")["input_ids"]
    assert encode_source([SYSTEM, USER], closed) == row["input_ids"]


def test_a_target_ends_even_where_the_tokenizer_ends_nothing(tmp_path: Path) -> None:
    bare = tiny.tiny_tokenizer(tmp_path, chat_template=None)
    (row,) = encode_pairs([Conversation((USER, ANSWER))], bare)
    assert row["labels"] == [*bare("close it")["input_ids"], bare.eos_token_id]
    bare.eos_token = None
    with pytest.raises(TemplateError, match="has no end token"):
        encode_pairs([Conversation((USER, ANSWER))], bare)


def test_a_template_renders_the_prompt_and_the_end_of_the_answer(chatty) -> None:
    (row,) = encode_pairs([Conversation((USER, ANSWER))], chatty)
    assert row["input_ids"] == encode_source([USER], chatty)
    assert chatty.decode(row["input_ids"]).endswith("<|assistant|>\n")
    assert chatty.decode(row["labels"]) == "close it<|endoftext|>"


def test_a_row_of_several_turns_is_refused_alone(closed) -> None:
    good = Conversation((USER, ANSWER))
    rows = encode_pairs([good, Conversation((USER, ANSWER, USER, ANSWER)), good], closed)
    assert isinstance(rows[1], DataError)
    assert rows[0] == rows[2] == encode_pairs([good], closed)[0]


def test_a_source_is_cut_as_its_tokenizer_cuts_it(closed, chatty) -> None:
    text = " ".join(tiny.WORDS)
    whole = encode_source([{"role": "user", "content": text}], closed)
    cut = cut_before_closing(whole, 12, source_closing(closed))
    assert cut == closed(text, truncation=True, max_length=12)["input_ids"]
    assert cut_before_closing(whole, len(whole), 1) == whole
    assert cut_before_closing([1, 2, 3, 4], 2, 3) == [3, 4]
    assert cut_before_closing([1, 2, 3, 4], 2, 0) == [1, 2]
    opening = cut_before_closing(
        encode_source([{"role": "user", "content": text}], chatty), 12, source_closing(chatty)
    )
    assert chatty.decode(opening).endswith("<|endoftext|>\n<|assistant|>\n")
