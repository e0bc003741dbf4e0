"""One adapted layer, as its formula sees it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging.changes import read_float64
from peftkit.merging.weights_io import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Layer:
    """Hold one module's adapter tensors beside the base tensors they change."""

    module: str
    """Path in the model, e.g. `model.layers.0.self_attn.q_proj`."""
    tensors: Mapping[str, Tensor] = field(repr=False)
    """Parameter (`lora_A.weight`) -> where it lies; `Tensor.name` is its whole key."""
    config: Mapping[str, Any] = field(repr=False)
    weight: Tensor
    bias: Tensor | None
    is_transposed: bool
    """Whether the weight is stored as (in, out): transformers' Conv1D."""
    shared: Mapping[str, Tensor] = field(repr=False, default_factory=dict)
    """Adapter tensors that belong to no layer, e.g. VeRA's projections."""

    def read(self, name: str) -> NDArray[np.float64]:
        """Read one of this layer's adapter tensors."""
        return read_float64(self.tensors[name])

    def key(self, name: str) -> str:
        """Return the whole key of one of this layer's adapter tensors."""
        return self.tensors[name].name

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the whole keys of all of this layer's adapter tensors."""
        return tuple(tensor.name for tensor in self.tensors.values())

    @property
    def sides(self) -> tuple[int, int]:
        """Return (out, in) features; a convolution's kernel belongs to its inputs."""
        rows, columns = self.weight.row_shape
        return (columns, rows) if self.is_transposed else (rows, columns)

    def rank(self) -> int:
        """Return the rank that the config promises for this layer."""
        return int(self._pattern("rank_pattern", self.config.get("r", 0)))

    def scale(self, r: int, alpha_key: str = "lora_alpha") -> float:
        """Return alpha / r, or alpha / sqrt(r) for rsLoRA, with this layer's own alpha."""
        alpha = float(self._pattern("alpha_pattern", self.config.get(alpha_key, r)))
        return alpha / math.sqrt(r) if self.config.get("use_rslora") else alpha / r

    def mismatch(self, what: str) -> ArtefactError:
        """Say that this layer's adapter does not fit the base."""
        return ArtefactError(
            f"{self.module}: {what}, but the base's weight is {list(self.weight.shape)}",
            hint="name the base model that this adapter was trained on with --base",
        )

    def _pattern(self, key: str, default: Any) -> Any:
        """Look this layer up in a pattern, as get_pattern_key of peft.utils.other does."""
        patterns: Mapping[str, Any] = self.config.get(key) or {}
        return patterns.get(matching_pattern(patterns, self.module), default)


def matching_pattern(patterns: Iterable[str], module: str) -> str:
    """Return the first pattern that a module's path ends in; the path itself when none does.

    Raises:
        ArtefactError: a pattern is no regular expression.
    """
    for pattern in patterns:
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return pattern
        except re.error as error:
            raise ArtefactError(f"{pattern!r} is no regular expression: {error}") from None
    return module
