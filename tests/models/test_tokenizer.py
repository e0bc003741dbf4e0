"""A base's tokenizer, its chat template by file or name, and what it pads with."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from peftkit.errors import ArtefactError, UsageError
from peftkit.models.tokenizer import choose_pad_token, load_tokenizer
from peftkit.recipe.schema import ModelSection


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def section(folder: Path, **more) -> ModelSection:
    return ModelSection(path=str(folder), **{"dtype": "float32", **more})


def edit(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_tokenizer_larger_than_the_embedding(folder) -> None:
    edit(folder / "config.json", vocab_size=300)
    with pytest.raises(ArtefactError) as caught:
        load_tokenizer(section(folder), folder)
    assert "but the embedding has 300 rows" in caught.value.message


def test_a_chat_template_beside_the_recipe_replaces_the_model_s(folder, tmp_path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}")
    tokenizer = load_tokenizer(section(folder, chat_template="mine.jinja"), tmp_path)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "sum"}], tokenize=False)
    assert ids == "sum"
    with pytest.raises(UsageError, match=r"model\.chat_template: .*other\.jinja cannot be read"):
        load_tokenizer(section(folder, chat_template="other.jinja"), tmp_path)


def strip_pad(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token=None)


def test_a_missing_padding_token_is_the_one_reserved_for_it(folder, caplog) -> None:
    strip_pad(folder)
    with caplog.at_level(logging.WARNING, "peftkit"):
        tokenizer = load_tokenizer(section(folder), folder)
    assert tokenizer.pad_token == "<|pad|>"  # noqa: S105 - a token of a vocabulary
    assert "padding token '<|pad|>': the tokenizer names none" in caplog.text


def test_the_order_in_which_padding_is_chosen(folder) -> None:
    tokenizer = load_tokenizer(section(folder), folder)
    assert choose_pad_token(tokenizer) is None

    class Bare:
        name_or_path = "bare"
        pad_token = None

        def __init__(self, vocabulary, eos=None, unk=None) -> None:
            self.vocabulary, self.eos_token, self.unk_token = vocabulary, eos, unk

        def get_vocab(self):
            return dict.fromkeys(self.vocabulary, 0)

    def chosen(*arguments):
        return choose_pad_token(Bare(*arguments)).value

    reserved = "<|finetune_right_pad_id|>"
    assert chosen(["<|pad|>", reserved], "</s>") == reserved
    assert chosen(["<pad>", "</s>", "<unk>"], "<pad>", "<unk>") == "<unk>"
    assert chosen(["</s>"], "</s>") == "</s>"
    with pytest.raises(ArtefactError, match="no padding, unknown or end token"):
        choose_pad_token(Bare([]))


def test_a_format_of_text_opens_as_the_tokenizer_does(folder) -> None:
    tokenizer = load_tokenizer(section(folder, chat_template="alpaca"), folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert text == (
        "Below is an instruction that describes a task. Write a response that"
        " appropriately completes the request.\n\n### Instruction:\na\n\n### Response:\n"
    )


def test_a_named_template_must_fit_the_tokenizer(folder) -> None:
    with pytest.raises(UsageError) as caught:
        load_tokenizer(section(folder, chat_template="chatml"), folder)
    assert caught.value.message.startswith(
        "model.chat_template: chatml writes <|im_start|>, <|im_end|>, which the tokenizer of"
    )
    with pytest.raises(UsageError, match=r"qwen3 writes <\|im_start\|>, <\|im_end\|>, which"):
        load_tokenizer(section(folder, chat_template="qwen3"), folder)
