"""A layer's own factors where they are its change, in whichever layout the weight is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families
from trained_adapter import lora, move_and_save

from peftkit.exporters.adapter_factors import EXACT, layer_factors, lost
from peftkit.merging.adapter import OpenedAdapter, open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint

GPT2 = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}


def opened(family: str, folder: Path, **options) -> OpenedAdapter:
    base = tiny_families.save(family, folder / "base")
    adapter = move_and_save(base, folder / "adapter", lora(**options)).folder
    return open_adapter(adapter, open_checkpoint(base), model_config=model_config(base))


@pytest.mark.parametrize(
    ("family", "options"), [("llama", {"use_rslora": True}), ("gpt2", GPT2)], ids=["llama", "gpt2"]
)
def test_a_loras_own_factors_are_taken(family: str, options: dict, tmp_path: Path) -> None:
    import torch

    adapter = opened(family, tmp_path, **options)
    layers = {name: layer_factors(adapter, name, 4) for name in adapter.changes}
    assert layers
    for name, layer in layers.items():
        assert (layer.is_factored, layer.factors.rank) == (False, 4)
        product = layer.factors.left @ layer.factors.right
        torch.testing.assert_close(product, torch.from_numpy(adapter.delta(name)).float())
    proof = lost([*layers.values()], EXACT)
    assert proof.holds


def test_a_rank_that_is_too_large_is_factored_and_said(tmp_path: Path) -> None:
    adapter = opened("llama", tmp_path)
    layers = [layer_factors(adapter, name, 2) for name in adapter.changes]
    assert {layer.factors.rank for layer in layers} == {2}
    assert all(layer.is_factored for layer in layers)
    proof = lost(layers, EXACT)
    assert not proof.holds
    assert 0.1 < proof.measured < 1
