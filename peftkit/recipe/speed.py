"""What a recipe's `speed` comes to with its method and adapter, before a model is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftkit.errors import UsageError
from peftkit.plugins import Adapter, Method, find
from peftkit.plugins.speed import Speed
from peftkit.recipe.schema import AdapterSection, Choice, ModelSection
from peftkit.recipe.stated import Found, Stated

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe

_OFF = {"loss": "native", "unpad": "off", "fused_adapter": "off"}


def settle_speed(recipe: Recipe, method: Method | None, adapter: Adapter | None) -> None:
    """Tell method and adapter what is asked of them, but for what cannot be.

    Args:
        method: None where it was refused.
    """
    if method is None:
        return
    asked = dataclasses.asdict(recipe.speed)
    for key, _, _ in _obstacles(recipe.model, recipe.method, recipe.adapter):
        asked[key] = _OFF[key]
    method.speed = Speed(**asked)
    if adapter is not None:
        adapter.is_fused = adapter.can_fuse and asked["fused_adapter"] != "off"


def _asked(stated: Stated) -> Found:
    """Refuse what is asked for and cannot be with this method, adapter or attention."""
    if stated.speed is None:
        return
    asked = dataclasses.asdict(stated.speed)
    for key, reason, hint in _obstacles(stated.model, stated.method, stated.adapter):
        if asked[key] not in ("auto", _OFF[key]):
            yield f"speed.{key}", f"{asked[key]} is not possible: {reason}", hint


def _obstacles(
    model: ModelSection | None, method: Choice | None, adapter: AdapterSection | None
) -> Iterator[tuple[str, str, str]]:
    """Give each key that is in someone's way, with the reason and what to write."""
    found = list(_of_method(method)) if method else []
    attention = model.attn_implementation if model else None
    if attention not in (None, "sdpa"):
        found.append(
            (
                "unpad",
                f"model.attn_implementation: {attention} is asked for, and rows without padding"
                " have an attention of their own",
                "delete model.attn_implementation",
            )
        )
    if adapter is not None:
        found += _of_adapter(adapter)
    # One reason is enough of each key.
    yield from {key: (key, reason, hint) for key, reason, hint in reversed(found)}.values()


def _of_method(method: Choice) -> Iterator[tuple[str, str, str]]:
    name = method.name
    try:
        speeds = find("methods", name).speeds
    except UsageError:
        return  # refused where it is named
    for key in ("loss", "unpad"):
        if key not in speeds:
            yield key, f"method {name} computes its steps by its trainer alone", f"speed.{key}=auto"
    if method.options.get("neftune_noise_alpha"):
        yield (
            "unpad",
            f"method.{name}.neftune_noise_alpha scales its noise by the length of a row, which a"
            " batch without padding does not have",
            f"delete method.{name}.neftune_noise_alpha",
        )


def _of_adapter(adapter: AdapterSection) -> Iterator[tuple[str, str, str]]:
    if adapter.choice is None:
        if adapter.is_full:
            yield "fused_adapter", "adapter: full has no adapter", "speed.fused_adapter=auto"
        return
    try:
        plugin = find("adapters", adapter.choice.name)
    except UsageError:
        return
    if plugin.adds_positions:
        for key in ("loss", "unpad"):
            yield (
                key,
                "this adapter puts positions of its own before each row",
                f"speed.{key}=auto",
            )
    if not plugin.can_fuse:
        yield "fused_adapter", "only layers of adapter: lora can be", "speed.fused_adapter=auto"


RULES = (_asked,)
