"""Each kind of tokenizer is named as llama.cpp names it, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families
import tiny_tokenizers

from peftkit.errors import ArtefactError
from peftkit.exporters.gguf_tokenizer import PATTERNS, read_vocabulary

KINDS = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken")


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level_tokenizers_are_known_by_how_they_cut(kind: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.byte_level(kind, tmp_path)
    vocabulary = read_vocabulary(tokenizer, vocab_size=410)
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", kind)
    assert len(vocabulary.tokens) == len(vocabulary.kinds) == 410
    assert vocabulary.kinds[:4] == (3, 3, 3, 1)
    assert vocabulary.kinds[-1] == 5
    assert vocabulary.flags == {"add_bos_token": False, "add_eos_token": False}
    assert bool(vocabulary.notes) is (kind == "qwen2")


def test_the_patterns_are_those_of_the_published_tokenizers() -> None:
    assert PATTERNS["llama-bpe"] == tiny_tokenizers.LLAMA3
    assert PATTERNS["qwen2"] == tiny_tokenizers.QWEN2
    assert PATTERNS["tekken"] == tiny_tokenizers.TEKKEN


@pytest.mark.parametrize(("style", "adds_space"), [("llama", True), ("gemma", False)])
def test_sentencepiece_tokenizers_get_scores(style: str, adds_space: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizers.sentencepiece(tmp_path, style=style)
    vocabulary = read_vocabulary(tokenizer, vocab_size=len(tokenizer))
    assert vocabulary.model == "llama"
    assert vocabulary.flags == {
        "add_bos_token": True, "add_eos_token": False, "add_space_prefix": adds_space,
    }  # fmt: skip
    assert vocabulary.kinds[:4] == (2, 3, 3, 6)
    assert len(set(vocabulary.scores)) > 50


def test_wordpiece_marks_where_words_begin(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_families.save_bert(tmp_path))
    vocabulary = read_vocabulary(tokenizer, vocab_size=320)
    ids = tokenizer.get_vocab()
    assert vocabulary.tokens[ids["return"]] == "▁return"
    assert vocabulary.tokens[ids["##a"]] == "a"
    assert vocabulary.tokens[ids["[SEP]"]] == "[SEP]"


def test_what_llama_cpp_cannot_tokenize_is_refused(tmp_path: Path) -> None:
    unknown = tiny_tokenizers.byte_level("unknown", tmp_path / "a")
    small = tiny_tokenizers.byte_level("gpt-2", tmp_path / "b")
    stripping = tiny_tokenizers.byte_level("gpt-2", tmp_path / "c")
    from tokenizers import AddedToken

    stripping.add_tokens([AddedToken("<gap>", lstrip=True)])
    for tokenizer, size, complaint in (
        (unknown, 400, "pre-tokenizer"),
        (small, 399, "399 rows"),
        (stripping, 401, "strips spaces"),
    ):
        with pytest.raises(ArtefactError, match=complaint) as caught:
            read_vocabulary(tokenizer, vocab_size=size)
        assert "--to onnx" in str(caught.value.hint)


def test_an_added_prefix_space_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = tiny_tokenizers.byte_level("gpt-2", tmp_path)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ArtefactError, match="add_prefix_space"):
        read_vocabulary(tokenizer, vocab_size=400)
