"""The dotted key that a short or a foreign word means."""

from __future__ import annotations

import pytest

from peftkit.recipe.shorthand import full_key

RECIPE = {"model": {}, "adapter": {"lora": {}}, "method": {"sft": {}}, "evaluate": {}}


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("learning_rate", "method.sft.learning_rate"),
        ("Learning-Rate", "method.sft.learning_rate"),
        ("lr", "method.sft.learning_rate"),
        ("sft.lr", "method.sft.learning_rate"),
        ("method.learning_rate", "method.sft.learning_rate"),
        ("batch_size", "method.sft.per_device_train_batch_size"),
        ("rank", "adapter.lora.r"),
        ("lora.alpha", "adapter.lora.lora_alpha"),
        ("model", "model.path"),
        ("dtype", "model.dtype"),
        ("run_name", "name"),
        ("lerning_rate", "method.sft.learning_rate"),
        ("qwertz", None),
    ],
)
def test_a_word_of_a_recipe_with_lora(word: str, key: str | None) -> None:
    assert full_key(word, RECIPE) == key


def test_keys_are_those_that_this_recipe_has() -> None:
    classify = {**RECIPE, "adapter": "full", "method": {"classify": None}}
    assert full_key("epochs", classify) == "method.classify.num_train_epochs"
    assert full_key("rank", classify) is None
    assert full_key("epochs", {"method": {"no_such": {}}, "adapter": [1]}) is None
