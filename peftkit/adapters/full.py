"""Classic fine-tuning: every parameter of the base is trained, or those that a recipe names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from peftkit.adapters.names import endings
from peftkit.errors import UsageError
from peftkit.plugins import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FROM_END = re.compile(r"(\w+)\.-(\d+)(:?)")
_KEY = "adapter.full.train"


class Full(Adapter):
    """Train every parameter of the base, or some of them; the run writes a whole model."""

    Config: ClassVar[None] = None

    def __init__(self, train: Sequence[str] | None = None) -> None:
        """Take the patterns of the parameters that are trained; all are where there are none."""
        super().__init__(None)
        self.train = tuple(train or ())

    @property
    def has_names(self) -> bool:
        """Tell whether there are names to hold against the base."""
        return bool(self.train)

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """Make parameters trainable, and no other.

        Raises:
            UsageError: the base is quantized, so its weights cannot take updates; or a pattern
                matches nothing.
        """
        if getattr(model, "hf_quantizer", None) is not None:
            raise UsageError(
                "adapter: full cannot train a quantized base",
                hint="remove model.quantize, or train an adapter: `adapter: {lora: {r: 16}}`",
            )
        if not self.train:
            model.requires_grad_(True)
            return model
        model.requires_grad_(False)
        wanted = self._named(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in wanted)
        return model

    def check_names(self, model: PreTrainedModel) -> None:
        """Hold patterns against a model built without weights.

        Raises:
            UsageError: one matches nothing.
        """
        self._named(model)

    def _named(self, model: PreTrainedModel) -> set[str]:
        names = [name for name, _ in model.named_parameters()]
        found: set[str] = set()
        for pattern in self.train:
            try:
                expression = re.compile(counted(pattern, names))
            except re.error as error:
                raise UsageError(f"{_KEY}: {pattern!r} is no regular expression: {error}") from None
            matched = [name for name in names if expression.search(name)]
            if not matched:
                raise UsageError(
                    f"{_KEY}: {pattern!r} matches no parameter of {type(model).__name__}",
                    hint=f"they end in {', '.join(endings(n.rpartition('.')[0] for n in names))}",
                )
            found.update(matched)
        return found


def counted(pattern: str, names: Sequence[str]) -> str:
    """Return a pattern in which layers counted from the end have their own numbers.

    `layers.-1.` is the last one, `layers.-4:` any of the last four.
    """

    def number(match: re.Match[str]) -> str:
        stem, back, is_range = match[1], int(match[2]), bool(match[3])
        there = re.compile(rf"(?:^|\.){re.escape(stem)}\.(\d+)\.")
        numbers = {int(found[1]) for name in names if (found := there.search(name))}
        first = max(numbers, default=-1) + 1 - back
        last = max(numbers, default=-1) if is_range else first
        chosen = "|".join(str(one) for one in range(max(first, 0), last + 1))
        return rf"(?:^|\.){stem}\.(?:{chosen or 'none'})\."

    # The dot behind a number belongs to it: layers.1. is not layers.12.
    return re.sub(_FROM_END.pattern + r"(?:\\?\.)?", number, pattern)
