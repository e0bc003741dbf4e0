"""LoRA, rsLoRA, DoRA and VeRA on linear layers, embeddings and convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftkit.adapters.lora_starts import moved_by
from peftkit.merging.changes import Change, LowRank, Matrix, Rows, read_float64
from peftkit.merging.formulas.layer import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VARIANTS = (
    "alora_invocation_tokens", "arrow_config", "layer_replication", "monteclora_config",
    "use_bdlora", "velora_config",
)  # fmt: skip
"""Options under which a LoRA is more than its factors; peft knows how."""


def lora(layer: Layer) -> dict[str, Change] | None:
    """Add scale * B A, along a magnitude per output where the adapter is a DoRA."""
    if is_more_than_factors(layer.config):
        return None
    names = set(layer.tensors)
    magnitude = next((name for name in names if name.startswith("lora_magnitude_vector")), None)
    names.discard(magnitude or "")
    if names == {"lora_embedding_A", "lora_embedding_B"}:
        return {"weight": _embedding(layer, magnitude)}
    if not {"lora_A.weight", "lora_B.weight"} <= names <= {
        "lora_A.weight", "lora_B.weight", "lora_B.bias",
    }:  # fmt: skip
        return None
    changes = {"weight": _linear(layer, magnitude)}
    if "lora_B.bias" in names:
        changes["bias"] = _bias(layer)
    return changes


def is_more_than_factors(config: Mapping[str, Any]) -> bool:
    """Tell whether the base itself was moved, or a variant changes what the factors mean."""
    return moved_by(config) is not None or any(config.get(key) for key in _VARIANTS)


def vera(layer: Layer) -> dict[str, Change] | None:
    """Add diag(lambda_b) B diag(lambda_d) A, whose A and B all layers share."""
    if set(layer.tensors) != {"vera_lambda_b", "vera_lambda_d"} or set(layer.shared) != {
        "vera_A",
        "vera_B",
    }:
        return None
    out_features, in_features = layer.sides

    def load(_: Matrix) -> Rows:
        a_RI = read_float64(layer.shared["vera_A"])[:, :in_features]  # noqa: N806
        b_OR = read_float64(layer.shared["vera_B"])[:out_features]  # noqa: N806
        left = layer.read("vera_lambda_b")[:, None] * b_OR
        right = layer.read("vera_lambda_d")[:, None] * a_RI
        return _low_rank(layer, left, right, 1.0)

    shared = tuple(tensor.name for tensor in layer.shared.values())
    return {"weight": Change((*layer.keys, *shared), load)}


def _linear(layer: Layer, magnitude: str | None) -> Change:
    """Fit A [r, in] and B [out, r], with a convolution's kernel counted as inputs."""
    a, b = layer.tensors["lora_A.weight"], layer.tensors["lora_B.weight"]
    r = a.shape[0]
    if (b.shape[0], a.row_shape[1]) != layer.sides or b.shape[1] != r:
        raise layer.mismatch(f"lora_A is {list(a.shape)} and lora_B {list(b.shape)}")
    if layer.rank() not in (r, 0):
        raise layer.mismatch(f"the config promises rank {layer.rank()}, lora_A has {r}")
    scale = layer.scale(r)

    def load(base: Matrix) -> Rows:
        left = layer.read("lora_B.weight").reshape(-1, r)
        right = layer.read("lora_A.weight").reshape(r, -1)
        product = _low_rank(layer, left, right, scale)
        if magnitude is None:
            return product
        return _dora(
            product, layer.read(magnitude).reshape(-1), base, by_row=not layer.is_transposed
        )

    names = ("lora_A.weight", "lora_B.weight", *([magnitude] if magnitude else []))
    return Change(tuple(layer.key(name) for name in names), load)


def _embedding(layer: Layer, magnitude: str | None) -> Change:
    """Fit A [r, tokens] and B [width, r]: rows of an embedding are inputs."""
    a, b = layer.tensors["lora_embedding_A"], layer.tensors["lora_embedding_B"]
    r = a.shape[0]
    if (a.shape[1], b.shape[0]) != layer.weight.shape or b.shape[1] != r:
        raise layer.mismatch(f"lora_embedding_A is {list(a.shape)} and B {list(b.shape)}")
    scale = layer.scale(r)

    def load(base: Matrix) -> Rows:
        left, right = layer.read("lora_embedding_A").T, layer.read("lora_embedding_B").T
        product = LowRank(left.copy(), right.copy(), scale)
        if magnitude is None:
            return product
        return _dora(product, layer.read(magnitude).reshape(-1), base, by_row=False)

    return Change(layer.keys, load)


def _bias(layer: Layer) -> Change:
    """Add the scaled bias of B, which `lora_bias: true` trains."""
    if layer.bias is None:
        raise layer.mismatch("the adapter has a lora_bias and the base's layer has no bias")
    scale = layer.scale(layer.tensors["lora_A.weight"].shape[0])

    def load(_: Matrix) -> Rows:
        delta = scale * layer.read("lora_B.bias")[:, None]
        return lambda rows, start: rows + delta[start : start + len(rows)]

    return Change((layer.key("lora_B.bias"),), load)


def _low_rank(
    layer: Layer, left: NDArray[np.float64], right: NDArray[np.float64], scale: float
) -> LowRank:
    if layer.is_transposed:
        return LowRank(right.T.copy(), left.T.copy(), scale)
    return LowRank(left, right, scale)


def _dora(product: LowRank, magnitude: NDArray[np.float64], base: Matrix, *, by_row: bool) -> Rows:
    """Give every output the length that was trained: m * (W + delta) / |W + delta|.

    Source: DoRA, arXiv:2402.09353, equation 5. An output is a row of a linear layer's weight and a
    column of a Conv1D's or an embedding's; columns need a first pass over the base.
    """
    import numpy as np

    if by_row:

        def scale_rows(rows: NDArray[np.float64], start: int) -> NDArray[np.float64]:
            moved = product(rows, start)
            lengths = np.linalg.norm(moved, axis=1, keepdims=True)
            scaled: NDArray[np.float64] = moved * (
                magnitude[start : start + len(rows), None] / lengths
            )
            return scaled

        return scale_rows
    squares = np.zeros(base.shape[1])
    for start, rows in base.tiles():
        squares += np.square(product(rows, start)).sum(axis=0)
    factors = magnitude / np.sqrt(squares)
    return lambda rows, start: product(rows, start) * factors
