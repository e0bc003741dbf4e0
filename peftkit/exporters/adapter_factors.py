"""An adapter's change of a layer as two thin matrices: its own, or the best of its whole change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.exporters.low_rank import Factors, factor
from peftkit.merging.adapter import OpenedAdapter
from peftkit.plugins.exported import Proof
from peftkit.system.checkpoint_files import PEFT_PREFIX

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")
EXACT = 1e-5
"""What rounding to float32 may make of an exact conversion, relative."""


@dataclass(frozen=True)
class LayerFactors:
    """Hold one layer's factors, and how far their product is from the trained change."""

    module: str
    factors: Factors
    squared_error: float
    squared_size: float
    is_factored: bool
    """Whether the factors are not the trained ones."""

    @property
    def is_embedding(self) -> bool:
        """Tell whether the layer looks rows up."""
        return self.module.rpartition(".")[2] in EMBEDDINGS


def layer_factors(opened: OpenedAdapter, name: str, max_rank: int) -> LayerFactors:
    """Take a layer's own factors where they are its change and fit; factor its change else.

    Args:
        name: of the weight that is changed.
    """
    import torch

    module = name.removesuffix(".weight")
    change = torch.from_numpy(opened.delta(name))
    size = float((change**2).sum())
    own = _own_factors(opened, module)
    # GPT-2 stores a weight as (in, out), and its adapter's matrices are those of (out, in).
    ways = [own, Factors(own.left.T, own.right.T)] if own is not None else []
    fitting = [
        (one.squared_error(change), one)
        for one in ways
        if (one.left.shape[0], one.right.shape[1]) == change.shape
    ]
    error, factors = min(fitting, key=lambda way: way[0], default=(float("inf"), None))
    fits = factors is not None and factors.rank <= max_rank
    is_factored = not fits or error > size * EXACT**2
    if factors is None or is_factored:
        factors = factor(change, max_rank)
        error = factors.squared_error(change)
    return LayerFactors(module, factors, error, size, is_factored)


def brought_whole(opened: OpenedAdapter) -> list[str]:
    """Name the tensors that an adapter brings whole, and that are not the base's."""
    return [name for name in opened.replaced if _differs(opened, name)]


def lost(layers: Sequence[LayerFactors], tolerance: float) -> Proof:
    """Measure what factoring lost of all that an adapter changes."""
    wrong = sum(layer.squared_error for layer in layers)
    whole = sum(layer.squared_size for layer in layers)
    ratios = {
        layer.module: (layer.squared_error / layer.squared_size) ** 0.5
        for layer in layers
        if layer.squared_size
    }
    worst = max(ratios, key=lambda module: ratios[module], default="")
    detail = (
        f"lost of the change of {len(layers)} layers, relative (RMS); most in {worst}:"
        f" {ratios.get(worst, 0.0):.3g}"
    )
    return Proof("weights", (wrong / whole) ** 0.5 if whole else float("inf"), tolerance, detail)


def _differs(opened: OpenedAdapter, name: str) -> bool:
    old, new = opened.base.tensors.get(name), opened.replaced[name]
    return old is None or old.shape != new.shape or bool((opened.delta(name) != 0).any())


def _own_factors(opened: OpenedAdapter, module: str) -> Factors | None:
    """Return a LoRA layer's factors, its scale folded into one; None where it has none."""
    named = {name.removeprefix(PEFT_PREFIX): tensor.name for name, tensor in opened.tensors.items()}
    plain = [named.get(f"{module}.lora_{part}.weight") for part in "AB"]
    embedded = [named.get(f"{module}.lora_embedding_{part}") for part in "AB"]
    first, second = plain if plain[0] else embedded
    if first is None or second is None:
        return None
    right, left = _read(opened, first), _read(opened, second)
    left = left * _scale(opened.config, module, right.shape[0])
    return Factors(right, left) if plain[0] else Factors(left.T, right.T)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what PEFT multiplies a layer's product with."""
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    matching = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    alpha = float(patterns.get(next(matching, ""), config.get("lora_alpha", 8)))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _read(opened: OpenedAdapter, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(opened.tensors[name].file, framework="pt") as stream:
        tensor: Tensor = stream.get_tensor(name)
    return tensor.float()
