"""What a recipe states, as the rules that look for contradictions read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from peftkit.plugins.speed import Speed
from peftkit.recipe.schema import (
    AdapterSection,
    Choice,
    DataSection,
    EvaluateSection,
    ModelSection,
    PerEpochSection,
)

Found = Iterator[tuple[str, str, str | None]]
"""(key, what contradicts, what to do)"""


@dataclass(frozen=True)
class Stated:
    """Hold the sections that could be read; the others are None."""

    model: ModelSection | None
    data: DataSection | None
    adapter: AdapterSection | None
    method: Choice | None
    evaluate: EvaluateSection | None
    stops_early: bool
    """Whether the recipe has `early_stopping`."""
    splits: Mapping[str, str] | None
    """Our splits; None when that part of the recipe could not be read."""
    per_epoch: PerEpochSection | None = None
    speed: Speed | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The method's options."""
        return self.method.options if self.method else {}

    def at(self, name: str) -> str:
        """Return the dotted key of a method's option."""
        return f"method.{self.method.name if self.method else ''}.{name}"

    def says(self, name: str, value: Any = True) -> bool:
        """Tell whether the method states this option with this value."""
        return name in self.options and bool(self.options[name] == value)

    def has_split(self, name: str) -> bool:
        """Tell whether a split is declared, or may be, since the section could not be read."""
        return self.splits is None or name in self.splits


def is_count(value: Any) -> TypeGuard[int]:
    """Tell whether a value is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
