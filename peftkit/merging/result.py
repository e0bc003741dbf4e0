"""What a merge did: the tensors it changed, the files it wrote, and the proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Onto = Literal["full", "dequantized", "requantized"]
"""Which weights of a quantized base take the change: the full-precision ones it was quantized
from, its dequantized ones, or those quantized again afterwards."""

To = Literal["base", "adapter"]
"""What several adapters become: a whole model, or a new adapter."""


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
    lost_to_rounding: float | None = None
    """How far rounding the merged weights moves the logits of base + adapter, where that is more
    than `tolerance`: then the comparison is with peft's own merge, rounded alike."""

    @property
    def holds(self) -> bool:
        """Tell whether the difference is within its tolerance; NaN never is."""
        return self.max_difference <= self.tolerance


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


@dataclass(frozen=True)
class CombineResult:
    """Say what a merge of several adapters wrote."""

    out: Path
    """The folder that plain transformers, or plain peft, loads."""
    to: To
    sources: tuple[Path, ...]
    base: str
    """The folder the base's weights were read from."""
    method: str
    """The merge's name, e.g. `ties`."""
    options: Mapping[str, Any]
    """As they were stated."""
    changed: tuple[str, ...] = ()
    """Tensors that differ from the base's, or the new adapter's modules."""
    num_bytes: int = 0
    """Of all weights written."""
    files: tuple[str, ...] = ()
    """Names under `out`."""
    seconds: float = 0.0
    deviation: float | None = None
    """For a merge of factors: how far its change is from the weighted sum of the adapters' changes,
    relative to that sum's size (root of the sum of squares)."""
    rank: int | None = None
    """The new adapter's largest."""
    error: float | None = None
    """How far the new adapter's change is from the combined one, relative to that one's size."""
    worst: tuple[str, float] | None = None
    """The module of the new adapter with the largest error of its own, and that error."""
    notes: tuple[str, ...] = field(default_factory=tuple)
    """Sentences a person should read."""
    verification: Verification | None = None
    """Only into the base: what was written against the combination of what peft merges."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        content = dataclasses.asdict(self)
        content["out"], content["sources"] = str(self.out), [str(s) for s in self.sources]
        return {"schema_version": 1, **content}
