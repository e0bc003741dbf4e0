"""What an exporter reads, and what it says about what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trained:
    """Say what an exporter reads: a whole model's folder, or an adapter's."""

    name: str
    """The run's name, or the folder's."""
    folder: Path
    """Weights in safetensors, configuration, tokenizer and chat template, as PEFT or transformers
    saves them."""
    base: str | None = None
    """The folder or Hub id of the base that an adapter belongs to; None for a whole model."""
    is_scratch: bool = False
    """Whether `folder` was merged for this export alone, so that its files may be moved."""
    texts: tuple[str, ...] = ()
    """Text of the kind the model was trained on, for measurements; may be empty."""


@dataclass(frozen=True)
class Proof:
    """Record one measurement of what was written against what it was made from."""

    what: str
    """e.g. `logits`"""
    measured: float
    tolerance: float
    """What `measured` may be."""
    detail: str
    """What was compared with what, on what."""

    @property
    def holds(self) -> bool:
        """Tell whether the measurement is within its tolerance; NaN never is."""
        return self.measured <= self.tolerance


@dataclass(frozen=True)
class Exported:
    """Hold what an exporter wrote and how well it kept the model."""

    files: tuple[Path, ...]
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...] = ()
    """Sentences a person should read: what the format cannot say."""
