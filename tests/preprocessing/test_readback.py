"""Answers that a vocabulary cannot write are counted, named and refused before training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import tiny_heads
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Text
from peftkit.preprocessing.readback import lost_characters


def conversation(answer: str) -> Conversation:
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": answer})
    return Conversation(turns)


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory):
    """A SentencePiece-like vocabulary without braces and quotes, which folds white space."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(char, -3.0) for char in "▁abcdefghijklmnopqrstuvwxyzABTS:,.;0123456789Söß"]
    unigram = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    unigram.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=unigram, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("wordy")
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_characters_that_are_lost_are_named(wordy) -> None:
    texts = ["read a file", "two\nlines  here", '{"a": 1}', "Größe", "naïve"]
    found = lost_characters([conversation(text) for text in texts], wordy)
    assert found == [None, None, '{"}', "G", "ï"]
    assert lost_characters([Text("{")], wordy) == [None]


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1))
def test_bytes_lose_nothing(tmp_path_factory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    tokenizer = tiny.tiny_tokenizer(folder) if not folder.exists() else _again(folder)
    assert lost_characters([conversation(text)], tokenizer) == [None]


def _again(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_a_run_refuses_answers_that_its_vocabulary_cannot_write(wordy, tmp_path: Path) -> None:
    from peftkit.data import show_data
    from peftkit.recipe.load import load_recipe

    base = tiny_heads.save(tmp_path, tiny_heads.T5, "AutoModelForSeq2SeqLM")
    wordy.save_pretrained(base)
    rows = [{"prompt": f"row {at}", "completion": '{"key": %d}' % at} for at in range(4)]  # noqa: UP031
    made = tiny_heads.recipe(
        tmp_path, base, rows, {"seq2seq": tiny_heads.SEQ2SEQ}, {"prompt_completion": {}}
    )
    with pytest.raises(
        DataError, match=r"4 of 4 rows are another text .* row 0, which loses { \" }"
    ):
        tiny_heads.train(tmp_path / "run", made)
    document = {**json.loads(made.read_text()), "evaluate": False}
    document["data"]["audit"] = {"max_unread": 1.0}
    made.write_text(json.dumps(document))
    view = show_data(load_recipe(made), split="train")
    assert view.audit["train"].num_unread == 4
    assert not view.breaches
