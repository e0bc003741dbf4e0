"""An adapter's keys, sorted by what they are for."""

from __future__ import annotations

from pathlib import Path

from peftkit.merging.parts import group
from peftkit.merging.weights_io import Checkpoint, Tensor


def tensors(*names: str) -> dict[str, Tensor]:
    return {name: Tensor(name, Path("x"), "F32", (2, 2), 0) for name in names}


BASE = Checkpoint(Path(), (), tensors("model.q.weight", "model.embed.weight", "model.q.bias"))


def test_every_kind_of_key_has_its_place() -> None:
    prefix = "base_model.model.model"
    keys = (
        f"{prefix}.q.lora_A.weight", f"{prefix}.q.lora_B.weight", f"{prefix}.q.base_layer.bias",
        f"{prefix}.embed.token_adapter.trainable_tokens_delta", "base_model.model.score.weight",
        "base_model.vera_A", f"{prefix}.q.boft_R",
    )  # fmt: skip
    parts = group(tensors(*keys), BASE, {"modules_to_save": ["score"]})
    assert set(parts.layers["model.q"]) == {"lora_A.weight", "lora_B.weight"}
    assert set(parts.plain) == {"model.q.bias", "score.weight"}
    assert set(parts.tokens) == {"model.embed"}
    assert set(parts.shared) == {"vera_A"}
    assert set(parts.unknown) == {"model.q.boft_R"}
    assert not parts.has_strangers
    assert set(parts.of_layers) == {keys[0], keys[1], keys[5], keys[6]}


def test_a_module_that_the_checkpoint_lacks_is_a_stranger() -> None:
    parts = group(tensors("base_model.model.model.z.lora_A.weight"), BASE, {})
    assert parts.has_strangers
