"""LoRA on bare parameters (`target_parameters`), which is how fused experts are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging.changes import Change, LowRank, Matrix, Rows
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.origins import Origins, Piece
from peftkit.merging.weights_io import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INNER = ".base_layer"


def expert_changes(
    origins: Origins, layers: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any]
) -> dict[str, Change]:
    """Return the changes of the checkpoint's tensors, one expert's share each.

    Args:
        layers: module -> its lora_A and lora_B; where several parameters of one module are
            trained, `.base_layer` at the end of the module's name tells them apart.
    """
    found: dict[str, Change] = {}
    for module, tensors in layers.items():
        owner = module
        while owner.endswith(_INNER):
            owner = owner.removesuffix(_INNER)
        depth = (len(module) - len(owner)) // len(_INNER)
        name = _parameter(origins, owner, depth, config)
        pieces = origins.of(f"{owner}.{name}")
        parameter = origins.model.get_parameter(f"{owner}.{name}")
        is_transposed = bool(getattr(origins.model.get_submodule(owner), "is_transposed", False))
        layer = Layer(f"{owner}.{name}", tensors, config, pieces[0].tensor, None, False)
        factors = _Factors(layer, tuple(parameter.shape), is_transposed=is_transposed)
        for piece in pieces:
            is_stack = piece.expert is None and len(parameter.shape) == 3
            found[piece.tensor.name] = Change(layer.keys, factors.loader(piece), is_stack)
    return found


class _Factors:
    """Cut the factors of a stack of experts.

    PEFT's layout: lora_A is [E * r, in] with the expert slowest, lora_B is [out, r * E] with the
    expert fastest.
    """

    def __init__(self, layer: Layer, shape: tuple[int, ...], *, is_transposed: bool) -> None:
        self.layer, self.shape = layer, shape
        self.num_experts = shape[0] if len(shape) == 3 else 1
        self.is_transposed = is_transposed and len(shape) == 3
        a, b = layer.tensors["lora_A.weight"], layer.tensors["lora_B.weight"]
        self.r = a.shape[0] // self.num_experts
        rows, columns = shape[-2:]
        wanted = (columns, rows) if self.is_transposed else (rows, columns)
        if (b.shape[0], a.shape[1]) != wanted or b.shape[1] != self.r * self.num_experts:
            raise ArtefactError(
                f"{layer.module} is {list(shape)} in the base, but lora_A is {list(a.shape)} and"
                f" lora_B {list(b.shape)}",
                hint="name the base model that this adapter was trained on with --base",
            )
        self.scale = layer.scale(self.r)

    def loader(self, piece: Piece) -> Any:
        """Return what loads one tensor's part."""

        def load(base: Matrix) -> Rows:
            left, right = self._read()
            if piece.expert is None:
                one = len(self.shape) == 2
                return LowRank(left[0] if one else left, right[0] if one else right, self.scale)
            rows = slice(piece.start, piece.start + base.shape[0])
            return LowRank(left[piece.expert, rows].copy(), right[piece.expert].copy(), self.scale)

        return load

    def _read(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return left [E, rows, r] and right [E, r, columns]."""
        a_ERI = self.layer.read("lora_A.weight").reshape(self.num_experts, self.r, -1)  # noqa: N806
        b = self.layer.read("lora_B.weight")
        b_EOR = b.reshape(len(b), self.r, self.num_experts).transpose(2, 0, 1)  # noqa: N806
        if self.is_transposed:
            return a_ERI.transpose(0, 2, 1), b_EOR.transpose(0, 2, 1)
        return b_EOR, a_ERI


def _parameter(origins: Origins, owner: str, depth: int, config: Mapping[str, Any]) -> str:
    """Return which of a module's parameters a wrapper at some depth is for.

    PEFT wraps a module once for each of its trained parameters, in the order they are defined in,
    so that the last one is outermost.
    """
    targets = config.get("target_parameters") or []
    try:
        module = origins.model.get_submodule(owner)
    except AttributeError:
        module = None
    names: list[str] = [
        name
        for name, _ in (module.named_parameters(recurse=False) if module is not None else ())
        if any(f".{owner}.{name}".endswith(f".{target}") for target in targets)
    ]
    if depth >= len(names):
        raise ArtefactError(
            f"the base has no parameter of {owner} that the adapter's target_parameters name",
            hint="name the base model that this adapter was trained on with --base",
        )
    return names[len(names) - 1 - depth]
