"""What a recipe's `speed` comes to with its method and adapter, before a model is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftkit.plugins import Adapter, Method
from peftkit.plugins.speed import Speed

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe
    from peftkit.recipe.strict import Gate

_OFF = {"loss": "native", "unpad": "off", "fused_adapter": "off"}


def settle_speed(
    gate: Gate, recipe: Recipe, method: Method | None, adapter: Adapter | None
) -> None:
    """Tell method and adapter what is asked of them; refuse what is stated and cannot be.

    Args:
        method: None where it was refused.
    """
    if method is None:
        return
    asked = dataclasses.asdict(recipe.speed)
    for key, reason, hint in _obstacles(recipe, method, adapter):
        if asked[key] not in ("auto", _OFF[key]):
            gate.refuse(f"speed.{key}", f"{asked[key]} is not possible: {reason}", hint)
        asked[key] = _OFF[key]
    method.speed = Speed(**asked)
    if adapter is not None:
        adapter.is_fused = adapter.can_fuse and asked["fused_adapter"] != "off"


def _obstacles(
    recipe: Recipe, method: Method, adapter: Adapter | None
) -> Iterator[tuple[str, str, str]]:
    """Give each key that is in someone's way, with the reason and what to write."""
    name, args = recipe.method.name, method.config
    for key in ("loss", "unpad"):
        if key not in method.speeds:
            yield key, f"method {name} computes its steps by its trainer alone", f"speed.{key}=auto"
    attention = recipe.model.attn_implementation
    if attention not in (None, "sdpa"):
        yield (
            "unpad",
            f"model.attn_implementation: {attention} is asked for, and rows without padding have"
            " an attention of their own",
            "delete model.attn_implementation",
        )
    if getattr(args, "neftune_noise_alpha", None):
        yield (
            "unpad",
            f"method.{name}.neftune_noise_alpha scales its noise by the length of a row, which a"
            " batch without padding does not have",
            f"delete method.{name}.neftune_noise_alpha",
        )
    if adapter is not None and adapter.adds_positions:
        for key in ("loss", "unpad"):
            yield (
                key,
                "this adapter puts positions of its own before each row",
                f"speed.{key}=auto",
            )
    if adapter is not None and not adapter.can_fuse:
        yield "fused_adapter", "only layers of adapter: lora can be", "speed.fused_adapter=auto"
