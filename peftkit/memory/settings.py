"""What a recipe's method is really told on a device: what is stated, decided, or by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.plugins import find
from peftkit.recipe.build import decide
from peftkit.recipe.quantization import compute_dtype
from peftkit.recipe.signatures import signature_of

if TYPE_CHECKING:
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe


def method_settings(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """Return every option of a recipe's method as a run on this machine would have it.

    Nothing native is constructed, so a GPU's settings can be read on a machine that has none.
    """
    signature = signature_of(find("methods", recipe.method.name).Config)
    defaults = {name: o.default for name, o in signature.options.items() if o.has_default}
    decided = {d.key.rpartition(".")[2]: d.value for d in decide(recipe, machine)}
    return {**defaults, **recipe.method.options, **decided}


def checkpoints_activations(settings: dict[str, Any]) -> bool:
    """Tell whether activations are recomputed: transformers' option, else trl's older one."""
    newer = settings.get("activation_checkpointing")
    return bool(settings.get("gradient_checkpointing") if newer is None else newer)


def matrix_dtype(recipe: Recipe, machine: Machine) -> str:
    """Return the dtype that a recipe's matrix products run in: `bfloat16`, `tf32` ...

    Autocast decides it where `bf16` or `fp16` is on, otherwise what a quantized base computes in,
    or the weights; float32 products use tf32 only where the recipe says `tf32: true`, as in torch.
    """
    settings = method_settings(recipe, machine)
    if settings.get("bf16"):
        return "bfloat16"
    if settings.get("fp16"):
        return "float16"
    dtype = compute_dtype(recipe.model)
    if dtype == "float32":
        return "tf32" if settings.get("tf32") else "float32"
    return "bfloat16" if dtype == "auto" else dtype
