"""Full fine-tuning trains everything, and refuses a base that cannot take updates."""

from __future__ import annotations

import pytest

from peftkit.adapters.base import count_parameters
from peftkit.adapters.full import Full, counted
from peftkit.errors import UsageError
from peftkit.models.base import load_base
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection


def test_every_parameter_is_trainable(tiny_model) -> None:
    base = load_base(ModelSection(path=str(tiny_model)), kind=CAUSAL_LM)
    model = Full().attach(base.requires_grad_(False))
    trainable, total = count_parameters(model)
    assert trainable == total > 0
    assert (Full.conflicts({}, "sft", {}), Full.decide("sft", {}), Full().callbacks()) == (
        [],
        (),
        (),
    )


def test_a_quantized_base_is_refused(tiny_model) -> None:
    from transformers import BitsAndBytesConfig

    from peftkit.quantizers.bitsandbytes import BitsAndBytes

    base = load_base(
        ModelSection(path=str(tiny_model)),
        kind=CAUSAL_LM,
        quantizer=BitsAndBytes(BitsAndBytesConfig(load_in_8bit=True)),
    )
    with pytest.raises(UsageError, match="cannot train a quantized base") as caught:
        Full().attach(base)
    assert "remove model.quantize" in caught.value.hint


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["layers.-1."], {1}),
        (["layers.-2:"], {0, 1}),
        ([r"layers\.0\.self_attn"], {0}),
    ],
)
def test_only_what_is_named_is_trained(tiny_model, patterns, expected) -> None:
    base = load_base(ModelSection(path=str(tiny_model)), kind=CAUSAL_LM)
    model = Full(patterns).attach(base)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {int(name.split(".")[2]) for name in trained} == expected
    assert "model.embed_tokens.weight" not in trained
    with_embedding = Full([*patterns, "embed_tokens"]).attach(base)
    assert with_embedding.get_input_embeddings().weight.requires_grad


def test_layers_from_the_end_are_whole_numbers() -> None:
    names = [f"model.layers.{number}.mlp.weight" for number in range(12)]

    def trained(pattern: str) -> list[int]:
        import re

        found = re.compile(counted(pattern, names))
        return [at for at, name in enumerate(names) if found.search(name)]

    assert trained("layers.-11.") == [1]
    assert trained("layers.-3:") == [9, 10, 11]
    assert trained(r"layers\.1\.") == [1]


def test_a_pattern_without_a_match_is_refused(tiny_model) -> None:
    base = load_base(ModelSection(path=str(tiny_model)), kind=CAUSAL_LM)
    with pytest.raises(UsageError, match=r"adapter\.full\.train: 'lm_heed' matches no parameter"):
        Full(["lm_heed"]).check_names(base)
    with pytest.raises(UsageError, match="is no regular expression"):
        Full(["("]).attach(base)
