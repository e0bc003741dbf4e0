"""LoRA layers of PEFT that compute by `adapted_linear`, where what they adapt lets them.

PEFT makes them itself, told by its registration of custom modules; their names, parameters and
saved files are PEFT's own, and so is every forward that is not served here: of several adapters at
once, of merged ones, of variants other than DoRA.

Imported once torch and PEFT are needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from peft.tuners.lora import layer as lora
from torch import nn

from peftkit.kernels.adapted_linear import Factors, adapted, with_delta

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))
"""Names of layers that read the same input, one after another, in many families."""

_ACROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)


def register(config: Any, model: nn.Module, packed: Mapping[type, type] | None = None) -> bool:
    """Tell PEFT to make these layers for a LoRA config; what is saved of it stays the same.

    Args:
        packed: linear layers over packed weights -> PEFT's LoRA layer over each.

    Returns:
        whether the model has any linear layer that they serve.
    """
    linear = {type(m) for m in model.modules() if isinstance(m, nn.Linear)}
    plain = [m.weight for m in model.modules() if type(m) is nn.Linear]
    known = {base: over_packed(layer) for base, layer in (packed or {}).items()}
    mapping = {base: layer for base, layer in known.items() if base in linear}
    # PEFT asks `isinstance`: a subclass may pack its weight, and a quantizer may keep the class and
    # pack the weight inside. Then PEFT's own layers know how, or the subclass multiplies by itself.
    if plain and linear <= {nn.Linear, *known} and all(type(w) is nn.Parameter for w in plain):
        mapping[nn.Linear] = FusedLinear
    if mapping:
        config._register_custom_module(mapping)
    return bool(mapping)


def tie_siblings(model: nn.Module) -> None:
    """Let layers that read the same input know each other, so that they share what they can.

    Attention across two texts is left out: its keys and values read another one than its queries.
    """
    for path, parent in model.named_modules():
        for names in SIBLINGS if not _ACROSS.search(path) else ():
            found = [getattr(parent, name, None) for name in names]
            layers = [one for one in found if isinstance(one, FusedLinear)]
            if len(layers) > 1:
                group = Siblings(layers)
                for one in layers:
                    one.siblings = group


def fused_layers(model: nn.Module) -> tuple[int, int]:
    """Count a model's LoRA layers that are of this kind, and all of its linear ones."""
    layers = [m for m in model.modules() if isinstance(m, lora.LoraLayer)]
    linear = [m for m in layers if isinstance(m.get_base_layer(), nn.Linear)]
    return sum(isinstance(m, _Fused) for m in linear), len(linear)


class _Fused:
    """What the layers share: which forwards are served here."""

    def _served(self: Any) -> str | None:
        """Return the adapter whose forward this is; None where PEFT's own must do it."""
        if self.disable_adapters or self.merged:
            return None
        active = [name for name in self.active_adapters if name in self.lora_A]
        if len(active) != 1 or self.lora_bias[active[0]]:
            return None
        return str(active[0])

    def _dropout(self: Any, name: str) -> float:
        dropout = self.lora_dropout[name]
        return float(dropout.p) if self.training and isinstance(dropout, nn.Dropout) else 0.0


class FusedLinear(_Fused, lora.Linear):  # type: ignore[misc] # PEFT is untyped
    """PEFT's LoRA layer over a plain linear one."""

    siblings: Siblings | None = None
    """Those that read the same input."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what PEFT's layer does."""
        name = None if args or kwargs else self._served()
        factors = None if name is None else self.factors()
        if name is None or factors is None:
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        dropout = self._dropout(name)
        found = None
        if self.siblings is not None and not dropout:
            found = self.siblings.output(self, x)
        return adapted(x, [factors], dropout=dropout)[0] if found is None else found

    def factors(self) -> Factors | None:
        """Return what adapts the layer now; None where PEFT's own forward must do it."""
        name = self._served()
        base = self.get_base_layer()
        if name is None or base.weight.requires_grad:
            return None
        magnitude = None
        if (variant := self.lora_variant.get(name)) is not None:
            if type(variant).__name__ != "DoraLinearVariant" or self._dropout(name):
                return None
            magnitude = self.lora_magnitude_vector[name].weight
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return Factors(base.weight, base.bias, down, up, self.scaling[name], magnitude)


class Siblings:
    """Layers that read the same input: the first one that is asked computes for all of them.

    What it computes for the others waits for them, as long as they are asked with that very input.
    Where one is not, the layers do not belong together after all, and each computes for itself.
    """

    def __init__(self, layers: list[FusedLinear]) -> None:
        self.layers = layers
        self.input: torch.Tensor | None = None
        self.waiting: dict[int, torch.Tensor] = {}

    def output(self, layer: FusedLinear, x: torch.Tensor) -> torch.Tensor | None:
        """Return a layer's output; None where the layers turn out not to read one input."""
        found, is_same = self.waiting.pop(id(layer), None), x is self.input
        if found is not None and not is_same:
            self.waiting, self.input = {}, None
            for one in self.layers:
                one.siblings = None
            return None
        if found is None:
            found = self._compute(layer, x)
        if not self.waiting:
            self.input = None  # nobody else will ask, and it need not be kept
        return found

    def _compute(self, layer: FusedLinear, x: torch.Tensor) -> torch.Tensor:
        of_all = {id(one): of for one in self.layers if (of := one.factors()) is not None}
        self.waiting = dict(zip(of_all, adapted(x, list(of_all.values())), strict=True))
        self.input = x
        return self.waiting.pop(id(layer))


@cache
def over_packed(of_peft: type[nn.Module]) -> type[nn.Module]:
    """Return PEFT's layer over packed weights, with the adapter's part fused."""

    class FusedOverPacked(_Fused, of_peft):  # type: ignore[misc, valid-type] # made of a value
        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            """Return what PEFT's layer does."""
            name = None if args or kwargs else self._served()
            if name is None or self.lora_variant.get(name) is not None:
                result: torch.Tensor = super().forward(x, *args, **kwargs)
                return result
            down, up = self.lora_A[name].weight, self.lora_B[name].weight
            factors = Factors(down, None, down, up, self.scaling[name])
            y = self.base_layer(x)
            return with_delta(y, x, factors, dropout=self._dropout(name))

    return FusedOverPacked
