"""How a step is computed: what a recipe asks for, and what comes of it on one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Speed:
    """Say how a step is computed: the same result by less work, where the model lets it."""

    loss: Literal["auto", "trained", "native"] = "auto"
    """`trained` scores trained positions only and keeps no logits; `native` is the trainer's own
    loss, with trl's metrics of every token; `auto` is `trained` where the model lets it."""
    unpad: Literal["auto", "on", "off"] = "auto"
    """Whether the rows of a batch lie one after another instead of being padded to the longest."""
    fused_adapter: Literal["auto", "on", "off"] = "auto"
    """Whether a LoRA layer computes in one step what PEFT computes in six."""


UPSTREAM = Speed("native", "off", "off")
"""The stack's own way to compute a step, which reads each weight by calling its layer."""
UPSTREAM_OVERRIDE = "speed={loss: native, unpad: off, fused_adapter: off}"
"""What asks for it on the command line."""


@dataclass(frozen=True)
class Way:
    """Say how a method computes its steps on one model."""

    scores_trained: bool = False
    """Whether the loss is made of trained positions only, with no logits kept."""
    by_rows: bool = False
    """Whether rows lie one after another, and attention keeps to each."""
    why_not: tuple[str, ...] = ()
    """What is done the usual way although it was not asked to be, each with its reason."""

    def describe(self) -> str:
        """Return it in one line; empty where there is nothing to say."""
        done = [
            *(["the loss of trained positions only"] if self.scores_trained else []),
            *(["rows without padding"] if self.by_rows else []),
        ]
        return "; ".join([*([" and ".join(done)] if done else []), *self.why_not])
