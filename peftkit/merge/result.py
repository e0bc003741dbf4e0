"""What a merge did: the tensors it changed, the files it wrote, and the proof."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Onto = Literal["full", "dequantized", "requantized"]
"""Which weights of a quantized base take the change: the full-precision ones it was quantized
from, its dequantized ones, or those quantized again afterwards."""


@dataclass(frozen=True)
class Verification:
    """Compare logits of what was written with those of base + adapter, on the same rows."""

    num_rows: int
    num_tokens: int
    max_difference: float
    """Largest absolute difference of any logit."""
    rms_difference: float
    tolerance: float
    """What `max_difference` may be; `basis` says where it comes from."""
    basis: str
    rows: str
    """Where the rows come from, e.g. the run's validation split."""
    num_agreeing: int
    """Positions whose most likely token is the same in both."""


@dataclass(frozen=True)
class LogitError:
    """Measure the result's logits against the quantized base + adapter that was trained."""

    max_difference: float
    rms_difference: float
    largest_logit: float


@dataclass(frozen=True)
class WeightError:
    """Measure how far one way of merging onto a quantized base is from base + adapter."""

    onto: Onto
    relative_rms: float
    """RMS of the difference over the RMS of (dequantized base + delta), over all merged weights."""
    max_difference: float


@dataclass(frozen=True)
class MergeResult:
    """Say what a merge wrote."""

    out: Path
    """The folder that plain transformers loads."""
    source: Path
    base: str
    """The folder the base's weights were read from."""
    method: str
    """The PEFT type, or `full` for a model that needed no merging."""
    onto: Onto
    changed: tuple[str, ...]
    """Names of the written tensors that differ from the base's."""
    num_tensors: int
    num_bytes: int
    """Of all weights written."""
    files: tuple[str, ...]
    """Names under `out`, the manifest last."""
    seconds: float
    notes: tuple[str, ...] = ()
    """Sentences a person should read, e.g. that a tied head was untied."""
    weight_errors: tuple[WeightError, ...] = ()
    """One for each way of merging onto a quantized base; empty for a full-precision base."""
    verification: Verification | None = None
    quantized_logits: LogitError | None = None
    """Only after a merge onto a quantized base: how far it is from what was trained."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        content = dataclasses.asdict(self)
        content["out"], content["source"] = str(self.out), str(self.source)
        return {"schema_version": 1, **content}
