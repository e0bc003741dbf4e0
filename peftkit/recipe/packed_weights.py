"""Which adapters train on a quantized base: those that do not read its weights' own values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.plugins import Adapter, find, plugin_names

if TYPE_CHECKING:
    from peftkit.plugins.quantizer import Quantizer
    from peftkit.recipe.schema import Recipe
    from peftkit.recipe.strict import Gate


def refuse_packed(
    gate: Gate, recipe: Recipe, adapter: Adapter | None, quantizer: Quantizer | None
) -> None:
    """Note an adapter that reads the values of weights which are packed, with others that do not.

    Whatever was refused before may be why one of the two was not built.
    """
    if gate.problems or adapter is None or quantizer is None or recipe.adapter.choice is None:
        return
    bits = quantizer.bits
    if bits is None or bits >= adapter.fewest_bits:
        return
    others = {name: find("adapters", name) for name in plugin_names("adapters")}
    able = [
        name
        for name, other in others.items()
        if name != "full" and other.fewest_bits <= bits and not other.conflicts({}, "", {})
    ]
    gate.refuse(
        f"adapter.{recipe.adapter.choice.name}",
        f"reads the values of the base's weights, which are packed in {bits} bits",
        f"take one that trains on {bits} bits: {', '.join(able)}; or leave out model.quantize",
    )
