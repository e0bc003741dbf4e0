"""The device that a run will use, and what is chosen because of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Machine:
    """Describe the device a run will use, as far as decisions depend on it."""

    device: str
    """`cpu`, `cuda`, `mps` or `xpu`."""
    supports_bfloat16: bool
    total_bytes: int
    """Device memory, or resident memory on a CPU."""
    free_bytes: int
    name: str


@dataclass(frozen=True)
class Decision:
    """Record one native option that peftkit chose because the recipe is silent."""

    key: str
    """Dotted recipe key, e.g. `method.sft.bf16`."""
    value: Any
    reason: str


class Chosen(NamedTuple):
    """Choose one of a plugin's own native options where the recipe is silent."""

    option: str
    """The native key, e.g. `bf16`."""
    value: Any
    reason: str


def decided(section: str, chosen: list[Chosen], stated: Any) -> list[Decision]:
    """Keep what a recipe leaves open.

    Args:
        section: dotted key of the plugin's options, e.g. `method.sft`.
        stated: the options that stand in the recipe.
    """
    return [
        Decision(f"{section}.{option}", value, reason)
        for option, value, reason in chosen
        if option not in stated
    ]
