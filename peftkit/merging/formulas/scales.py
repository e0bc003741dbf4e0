"""IA3, which multiplies inputs or outputs, and MiSS, which adds one small block many times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.merging.changes import Change, Matrix, Rows
from peftkit.merging.formulas.layer import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def ia3(layer: Layer) -> dict[str, Change] | None:
    """Multiply the inputs of feed-forward layers, the outputs (and biases) of all others."""
    if set(layer.tensors) != {"ia3_l"} or len(layer.weight.shape) != 2:
        return None
    vector = layer.tensors["ia3_l"]
    out_features, in_features = layer.sides
    is_input = vector.shape[0] == 1 and (vector.shape[1] > 1 or in_features == 1)
    num = vector.shape[1] if is_input else vector.shape[0]
    if num != (in_features if is_input else out_features):
        raise layer.mismatch(f"ia3_l is {list(vector.shape)}")
    by_row = is_input == layer.is_transposed

    def load(_: Matrix) -> Rows:
        scale = layer.read("ia3_l").reshape(-1)
        if by_row:
            return lambda rows, start: rows * scale[start : start + len(rows), None]
        return lambda rows, _: rows * scale

    def load_bias(_: Matrix) -> Rows:
        scale = layer.read("ia3_l").reshape(-1, 1)
        return lambda rows, start: rows * scale[start : start + len(rows)]

    changes = {"weight": Change(layer.keys, load)}
    if layer.bias is not None and not is_input:
        changes["bias"] = Change(layer.keys, load_bias)
    return changes


def miss(layer: Layer) -> dict[str, Change] | None:
    """Add B[column mod r, row] to every element. Source: MiSS, arXiv:2409.15371."""
    kind = layer.config.get("init_weights", True)
    is_plain = len(layer.weight.shape) == 2 and not layer.is_transposed
    if kind == "bat" or set(layer.tensors) != {"miss_block"} or not is_plain:
        return None
    r, width = layer.tensors["miss_block"].shape
    out_features, in_features = layer.sides
    if out_features % width or (kind != "mini" and width != out_features):
        raise layer.mismatch(f"miss_block is {[r, width]}")

    def load(_: Matrix) -> Rows:
        import numpy as np

        block = layer.read("miss_block")
        column = np.arange(in_features) % r

        def add(rows: NDArray[np.float64], start: int) -> NDArray[np.float64]:
            row = np.arange(start, start + len(rows)) % width
            changed: NDArray[np.float64] = rows + block[column[None, :], row[:, None]]
            return changed

        return add

    return {"weight": Change(layer.keys, load)}
