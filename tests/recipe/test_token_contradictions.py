"""New tokens ask for something that can train their rows."""

from __future__ import annotations

import pytest

from peftkit.recipe.schema import AdapterSection, Choice, ModelSection
from peftkit.recipe.stated import Stated
from peftkit.recipe.token_contradictions import RULES


def found(model: ModelSection, adapter: AdapterSection | None = None) -> list[str]:
    stated = Stated(model=model, data=None, adapter=adapter, method=None, evaluate=None,
                    stops_early=False, splits=None)  # fmt: skip
    return [key for rule in RULES for key, _, _ in rule(stated)]


def test_a_new_model_has_no_tokens_to_add_to() -> None:
    config = {"model_type": "llama"}
    model = ModelSection(config=config, add_tokens=["<a>"], chat_template="chatml")
    assert found(model) == ["model.add_tokens", "model.chat_template"]
    elsewhere = ModelSection(config=config, tokenizer=Choice("path", {"path": "x"}))
    assert found(elsewhere) == ["model.tokenizer.path"]


@pytest.mark.parametrize(
    ("name", "options", "is_refused"),
    [
        ("lora", {}, False),
        ("adalora", {}, False),
        ("ia3", {}, True),
        ("ia3", {"modules_to_save": ["embed_tokens"]}, False),
        ("prompt_tuning", {}, True),
    ],
)
def test_an_adapter_must_be_able_to_train_rows(name, options, is_refused) -> None:
    model = ModelSection(path="x", add_tokens=["<a>"])
    keys = found(model, AdapterSection(Choice(name, options)))
    assert keys == (["model.add_tokens"] if is_refused else [])


@pytest.mark.parametrize(
    ("asked", "is_refused"),
    [(None, False), ("sdpa", False), ("owner/kernel", False), ("xformers", True), (False, False)],
)
def test_an_attention_that_is_a_word_must_be_one_of_transformers(asked, is_refused) -> None:
    keys = found(ModelSection(path="x", attn_implementation=asked))
    assert keys == (["model.attn_implementation"] if is_refused else [])
