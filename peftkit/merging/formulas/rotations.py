"""OFT and HRA: rotations and reflections of a linear layer's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.merging.changes import Change, Matrix, Rows
from peftkit.merging.formulas.layer import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


def hra(layer: Layer) -> dict[str, Change] | None:
    """Reflect inputs at hyperplanes, in order: W (I - 2 u u') ... Source: arXiv:2405.17484."""
    if set(layer.tensors) != {"hra_u"} or len(layer.weight.shape) != 2 or layer.is_transposed:
        return None
    if layer.tensors["hra_u"].shape[0] != layer.sides[1]:
        raise layer.mismatch(f"hra_u is {list(layer.tensors['hra_u'].shape)}")

    def load(_: Matrix) -> Rows:
        normals = layer.read("hra_u")
        normals = _orthogonal(normals) if layer.config.get("apply_GS") else _unit(normals)

        def reflect(rows: F64, _: int) -> F64:
            for normal in normals.T:
                rows = rows - 2 * (rows @ normal)[:, None] * normal
            return rows

        return reflect

    return {"weight": Change(layer.keys, load)}


def oft(layer: Layer) -> dict[str, Change] | None:
    """Rotate blocks of inputs: W R', R the Cayley transform of a skew matrix per block.

    Source: arXiv:2306.07280 and, for the truncated series, arXiv:2506.19847.
    """
    is_plain = len(layer.weight.shape) == 2 and not layer.is_transposed
    if set(layer.tensors) != {"oft_R.weight"} or not is_plain or layer.config.get("coft"):
        return None
    num_blocks, num_free = layer.tensors["oft_R.weight"].shape
    size = round((1 + (1 + 8 * num_free) ** 0.5) / 2)
    in_features = layer.sides[1]
    if in_features % size or num_blocks not in (1, in_features // size):
        raise layer.mismatch(f"oft_R is {num_blocks} blocks of {size}")

    def load(_: Matrix) -> Rows:
        blocks = _cayley(layer, _skew(layer.read("oft_R.weight"), size))

        def rotate(rows: F64, _: int) -> F64:
            import numpy as np

            pieces = rows.reshape(len(rows), -1, size).swapaxes(0, 1)
            turned: F64 = np.matmul(pieces, blocks.swapaxes(-1, -2))
            return turned.swapaxes(0, 1).reshape(rows.shape)

        return rotate

    return {"weight": Change(layer.keys, load)}


def _skew(free: F64, size: int) -> F64:
    """Fill skew-symmetric matrices from their upper triangles."""
    import numpy as np

    matrices = np.zeros((len(free), size, size))
    row, column = np.triu_indices(size, 1)
    matrices[:, row, column] = free
    return matrices - matrices.swapaxes(-1, -2)


def _cayley(layer: Layer, skew: F64) -> F64:
    """Turn skew matrices into rotations, by the series that was trained or exactly.

    The series is I + 2 (Q + Q^2 + ...) with its last term taken once.
    """
    import numpy as np

    one = np.eye(skew.shape[-1])
    if not layer.config.get("use_cayley_neumann", True):
        # (I + Q)^-1 from the right; torch.linalg.solve(..., left=False) in peft
        return (one - skew) @ np.linalg.inv(one + skew)
    terms = int(layer.config.get("num_cayley_neumann_terms", 5))
    rotation = np.broadcast_to(one, skew.shape).copy()
    if terms > 1:
        rotation += 2 * skew
    if terms > 2:
        power = skew @ skew
        rotation += 2 * power
        for _ in range(3, terms - 1):
            power = power @ skew
            rotation += 2 * power
        rotation += power @ skew
    return rotation


def _unit(vectors: F64) -> F64:
    import numpy as np

    unit: F64 = vectors / np.linalg.norm(vectors, axis=0)
    return unit


def _orthogonal(vectors: F64) -> F64:
    """Gram-Schmidt, in order."""
    import numpy as np

    found: list[F64] = []
    for vector in vectors.T:
        for other in found:
            vector = vector - (other @ vector) * other  # noqa: PLW2901
        found.append(vector / np.linalg.norm(vector))
    return np.stack(found, axis=1)
