"""What `speed` may say, and what it comes to with each method and adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import RecipeError
from peftkit.plugins import Machine
from peftkit.plugins.speed import Speed
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe

CPU = Machine("cpu", True, 8 << 30, 4 << 30, "a CPU")


def built(file: Path, *overrides: str):
    return build(load_recipe(file, overrides=overrides), CPU)


def test_everything_is_left_to_the_model_where_nothing_is_said(tiny_recipe: Path) -> None:
    made = built(tiny_recipe)
    assert made.method.speed == Speed("auto", "auto", "auto")
    assert made.adapter is not None and made.adapter.is_fused
    assert made.resolved["speed"] == {"loss": "auto", "unpad": "auto", "fused_adapter": "auto"}


@pytest.mark.parametrize("word", ["on", "true"])
def test_yes_and_no_are_words_or_booleans(tiny_recipe: Path, word: str) -> None:
    made = built(tiny_recipe, f"speed={{unpad: {word}, fused_adapter: false}}")
    assert made.method.speed == Speed("auto", "on", "off")
    assert made.adapter is not None and not made.adapter.is_fused


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        (["speed.unpad=on", "model.attn_implementation=eager"], "speed.unpad", "eager is asked"),
        (["speed.unpad=on", "method.sft.neftune_noise_alpha=5"], "speed.unpad", "noise"),
        (
            ["speed.unpad=on", "adapter={prompt_tuning: {num_virtual_tokens: 4}}"],
            "speed.unpad", "positions of its own",
        ),
        (["speed.fused_adapter=on", "adapter={ia3: {}}"], "speed.fused_adapter", "adapter: lora"),
        (["speed.fused_adapter=on", "adapter=full"], "speed.fused_adapter", "has no adapter"),
        (["speed.loss=trained", "method={grpo: {}}"], "speed.loss", "by its trainer alone"),
        (["speed.loss=yes"], "speed.loss", "trained"),
        (["speed.unpadd=on"], "speed.unpadd", "unpad"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_is_asked_for(
    tiny_recipe: Path, overrides: list[str], key: str, reason: str
) -> None:
    """Already by the gate, which needs no stack."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny_recipe, overrides=overrides)
    (problem,) = [one for one in caught.value.problems if one.key == key]
    assert reason in str(problem)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.attn_implementation=eager", Speed("auto", "off", "auto")),
        ("method.sft.neftune_noise_alpha=5", Speed("auto", "off", "auto")),
        ("adapter={ia3: {}}", Speed("auto", "auto", "off")),
        ("adapter={prompt_tuning: {num_virtual_tokens: 4}}", Speed("native", "off", "off")),
    ],
)
def test_what_cannot_be_is_left_where_nothing_is_said(
    tiny_recipe: Path, override: str, expected: Speed
) -> None:
    assert built(tiny_recipe, override).method.speed == expected
