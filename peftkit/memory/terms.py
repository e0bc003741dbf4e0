"""Take a step apart: what each kind of memory holds at the peak, and over the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.memory.trace import HOST

if TYPE_CHECKING:
    from peftkit.memory.growth import Footprint
    from peftkit.memory.runtime import Runtime
    from peftkit.memory.trace import Live

COLLECTIVES = "collectives"
"""The term of what processes exchange: DDP's buckets; the layers that FSDP2 gathers and reduces."""

RUNTIME = "runtime"
"""The term of what a device's runtime takes beside all tensors."""

TERMS = (
    "base",
    "adapter",
    "gradients",
    "optimizer",
    "activations",
    "loss",
    "temporaries",
    COLLECTIVES,
    RUNTIME,
)


@dataclass(frozen=True)
class Term:
    """Say what one kind of memory takes when the step is at its peak."""

    name: str
    """One of `TERMS`."""
    num_bytes: int
    phase: str
    """The phase in which most of it was allocated."""
    formula: str
    """How it grows, e.g. `262,144·B·T`, with B rows of T tokens; or the equation and its source."""
    exact: bool
    """Whether it was counted allocation by allocation; False for a documented estimate."""


@dataclass(frozen=True)
class Moment:
    """Say what is alive at one moment of the step; a timeline of them makes the picture."""

    phase: str
    num_bytes: Mapping[str, int]
    """Term -> live bytes."""


def terms_of(live: Live, footprint: Footprint, runtime: Runtime) -> tuple[Term, ...]:
    """Take the peak apart."""
    at = live.peak_at
    formulas, alive = footprint.formulas(at), live.terms_at(at)
    found = []
    for name in TERMS:
        if alive.get(name):
            is_runtime = name == RUNTIME
            found.append(
                Term(
                    name=name,
                    num_bytes=alive[name],
                    phase=_phase_of(name, live),
                    formula=runtime.formula if is_runtime else formulas.get(name, ""),
                    exact=not is_runtime,
                )
            )
    return tuple(found)


def host_bytes(live: Live) -> int:
    """Return what lies in pinned host memory at its most."""
    values = live.by_term.get(HOST)
    return 0 if values is None else int(values.max())


def _phase_of(term: str, live: Live) -> str:
    """Return the phase in which a term grew most before the peak."""
    import numpy as np

    values = live.by_term[term][: live.peak_at + 1]
    growth = np.diff(values, prepend=0).clip(min=0)
    sums = np.bincount(live.phases[: len(values)], weights=growth)
    return live.phase_names[int(sums.argmax())]


def timeline_of(live: Live, num_moments: int = 400) -> tuple[Moment, ...]:
    """Sample the step evenly, the peak included."""
    import numpy as np

    chosen = np.unique(
        np.append(np.linspace(0, len(live.total) - 1, num_moments).astype(int), live.peak_at)
    )
    return tuple(
        Moment(live.phase_names[int(live.phases[at])], live.terms_at(int(at))) for at in chosen
    )
