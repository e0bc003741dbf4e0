"""LoHa and LoKr: deltas that are products of small matrices, element by element or Kronecker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.merging.changes import Change, Matrix, Rows
from peftkit.merging.formulas.layer import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


def loha(layer: Layer) -> dict[str, Change] | None:
    """Add scale * (w1_a w1_b) * (w2_a w2_b). Source: arXiv:2108.06098, proposition 1."""
    if set(layer.tensors) != set(_HADAMARD) or layer.is_transposed:
        return None
    r = layer.tensors["hada_w1_b"].shape[0]
    shape = (layer.tensors["hada_w1_a"].shape[0], layer.tensors["hada_w1_b"].shape[1])
    if shape != layer.sides:
        raise layer.mismatch(f"its Hadamard factors make {list(shape)}")
    scale = layer.scale(r, "alpha")

    def load(_: Matrix) -> Rows:
        w1_a, w1_b, w2_a, w2_b = (layer.read(name) for name in _HADAMARD)

        def add(rows: NDArray[np.float64], start: int) -> NDArray[np.float64]:
            part = slice(start, start + len(rows))
            changed: NDArray[np.float64] = rows + scale * (w1_a[part] @ w1_b) * (w2_a[part] @ w2_b)
            return changed

        return add

    return {"weight": Change(layer.keys, load)}


def lokr(layer: Layer) -> dict[str, Change] | None:
    """Add scale * kron(w1, w2), each whole or a product of two factors."""
    if "lokr_t2" in layer.tensors or len(layer.weight.shape) != 2 or layer.is_transposed:
        return None
    scale = layer.scale(layer.rank(), "alpha")

    def load(_: Matrix) -> Rows:
        w1, w2 = _factor(layer, "lokr_w1"), _factor(layer, "lokr_w2")
        if (len(w1) * len(w2), w1.shape[1] * w2.shape[1]) != layer.sides:
            raise layer.mismatch(f"its Kronecker factors are {w1.shape} and {w2.shape}")

        def add(rows: NDArray[np.float64], start: int) -> NDArray[np.float64]:
            import numpy as np

            outer, inner = np.divmod(np.arange(start, start + len(rows)), len(w2))
            product = w1[outer][:, :, None] * w2[inner][:, None, :]
            changed: NDArray[np.float64] = rows + scale * product.reshape(rows.shape)
            return changed

        return add

    return {"weight": Change(layer.keys, load)}


def _factor(layer: Layer, name: str) -> NDArray[np.float64]:
    if name in layer.tensors:
        return layer.read(name)
    product: NDArray[np.float64] = layer.read(f"{name}_a") @ layer.read(f"{name}_b")
    return product
