"""A step's allocations and frees in order, and what is alive at every moment of it.

A trace is cut into segments, one for each layer's forward and backward, so that a run over a few
layers stands for a run over all of them: the segments of a repeated layer are repeated, with the
tensors that it frees. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


HOST = "host"
"""The term of what lies in pinned host memory: followed like all else, but not of the device."""


@dataclass
class Segment:
    """Hold the events of one stretch of a step."""

    phase: str
    layer: tuple[str, int] | None
    """Layer stack and index in it, e.g. `("model.layers", 3)`; None outside of layers."""
    events: list[int] = field(default_factory=list)
    """Allocation n is `n + 1`, its free is `-(n + 1)`."""
    num_flops: int = 0
    moved_bytes: int = 0
    num_operators: int = 0
    copied_bytes: int = 0
    """Copied to the host and back."""
    attention_flops: int = 0
    """Of `num_flops`, those that grow with the square of the length."""


@dataclass
class Trace:
    """Hold the allocations of a step and the order in which they come and go."""

    num_bytes: list[int] = field(default_factory=list)
    """Allocation -> its bytes."""
    terms: list[str] = field(default_factory=list)
    """Allocation -> what it is."""
    segments: list[Segment] = field(default_factory=list)

    def repeated(self, blocks: Sequence[Repeat]) -> list[int]:
        """Return the indices of segments in order, those of repeated layers repeated."""
        order: list[int] = []
        at = 0
        while at < len(self.segments):
            block = _block_at(self.segments, at, blocks)
            if block is None:
                order.append(at)
                at += 1
                continue
            end = at
            while end < len(self.segments) and _is_in(self.segments[end], block, self.segments[at]):
                end += 1
            order.extend(list(range(at, end)) * block.times)
            at = end
        return order


@dataclass(frozen=True)
class Repeat:
    """Say that some consecutive layers of a run stand for more of the same."""

    stack: str
    layers: tuple[int, ...]
    """Indices in the stack of the layers that were run."""
    times: int
    """How often they follow each other in the whole model."""


@dataclass(frozen=True)
class Live:
    """Say what is alive after each event of a step, in all and by term."""

    total: NDArray[np.int64]
    """Of the device: what lies on the host is a term of its own and not in here."""
    by_term: Mapping[str, NDArray[np.int64]]
    phases: NDArray[np.int64]
    """Event -> index in `phase_names`."""
    phase_names: tuple[str, ...]

    @property
    def peak_at(self) -> int:
        """Return the event after which most is alive."""
        return int(self.total.argmax())

    @property
    def peak_phase(self) -> str:
        """Return the phase of the peak."""
        return self.phase_names[int(self.phases[self.peak_at])]

    def terms_at(self, event: int) -> dict[str, int]:
        """Return the live bytes of each term after an event."""
        return {term: int(values[event]) for term, values in self.by_term.items()}

    def phase_peaks(self) -> dict[str, int]:
        """Return each phase's own peak, in the order in which phases first come."""
        return {
            name: int(self.total[self.phases == index].max())
            for index, name in enumerate(self.phase_names)
        }


@dataclass(frozen=True)
class Program:
    """Hold a trace as arrays, repeated layers expanded, ready to be replayed with other bytes."""

    events: NDArray[np.int64]
    """Signed allocation numbers in order, from 1."""
    terms: NDArray[np.int64]
    """Allocation -> index in `term_names`."""
    term_names: tuple[str, ...]
    phases: NDArray[np.int64]
    phase_names: tuple[str, ...]

    def live(self, num_bytes: NDArray[np.int64], *, block: int = 1) -> Live:
        """Add up what is alive after each event.

        Args:
            num_bytes: allocation -> its bytes.
            block: what each allocation is rounded up to.
        """
        import numpy as np

        deltas = self._deltas(num_bytes, block)
        terms = self.terms[np.abs(self.events) - 1]
        by_term = {
            name: np.cumsum(np.where(terms == at, deltas, 0))
            for at, name in enumerate(self.term_names)
        }
        total = np.cumsum(np.where(self._is_on_device(), deltas, 0))
        return Live(total, by_term, self.phases, self.phase_names)

    def peak(self, num_bytes: NDArray[np.int64], *, block: int = 1) -> int:
        """Return the most that is alive on the device at any moment."""
        import numpy as np

        deltas = np.where(self._is_on_device(), self._deltas(num_bytes, block), 0)
        return int(np.cumsum(deltas).max())

    def is_of(self, term: str) -> NDArray[np.bool_]:
        """Tell which allocations are of a term."""
        import numpy as np

        chosen: NDArray[np.bool_] = np.array([name == term for name in self.term_names])[self.terms]
        return chosen

    def alive_after(self, event: int) -> dict[int, int]:
        """Return allocation -> how many copies of it are alive after an event."""
        import numpy as np

        index = np.abs(self.events[: event + 1]) - 1
        counts = np.bincount(index, weights=np.sign(self.events[: event + 1]))
        return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}

    def _deltas(self, num_bytes: NDArray[np.int64], block: int) -> NDArray[np.int64]:
        """Return what each event adds, rounded up to the allocator's block."""
        import numpy as np

        rounded = -(-num_bytes // block) * block
        deltas: NDArray[np.int64] = np.sign(self.events) * rounded[np.abs(self.events) - 1]
        return deltas

    def _is_on_device(self) -> NDArray[np.bool_]:
        """Tell which events are the device's."""
        import numpy as np

        is_device = np.array([name != HOST for name in self.term_names])
        chosen: NDArray[np.bool_] = is_device[self.terms[np.abs(self.events) - 1]]
        return chosen


def compile_trace(
    trace: Trace, repeats: Sequence[Repeat] = (), *, without: str | None = None
) -> Program:
    """Turn a trace into arrays, the segments of repeated layers repeated.

    Args:
        without: a phase to leave out, e.g. the one that only held what was alive before.
    """
    import numpy as np

    chosen = [trace.segments[at] for at in trace.repeated(repeats)]
    chosen = [segment for segment in chosen if segment.phase != without]
    events = np.array([e for s in chosen for e in s.events], np.int64)
    terms = _agreeing_terms(trace, events) if repeats else trace.terms
    term_names = tuple(dict.fromkeys(terms))
    phase_names = tuple(dict.fromkeys(s.phase for s in chosen if s.events))
    return Program(
        events=events,
        terms=np.array([term_names.index(term) for term in terms], np.int64),
        term_names=term_names,
        phases=np.array([phase_names.index(s.phase) for s in chosen for _ in s.events], np.int64),
        phase_names=phase_names,
    )


def _agreeing_terms(trace: Trace, events: NDArray[np.int64]) -> list[str]:
    """Return the term of each allocation, in agreement with what frees its copies.

    A repeated layer may free what the layer before it allocated. Then copies of one allocation are
    born, and as many of another are freed; the last of a kind may live longer than the others and
    be called otherwise, and what it is called must not leave a term with less than nothing.
    """
    import numpy as np

    terms = list(trace.terms)
    counts = np.bincount(abs(events) - 1, weights=np.sign(events), minlength=len(terms))
    freed: dict[tuple[int, int], list[str]] = {}
    for number in np.flatnonzero(counts < 0):
        key = (-int(counts[number]), trace.num_bytes[number])
        freed.setdefault(key, []).append(terms[number])
    left = []
    for number in np.flatnonzero(counts > 0):
        key = (int(counts[number]), trace.num_bytes[number])
        if terms[number] in freed.get(key, ()):
            freed[key].remove(terms[number])
        else:
            left.append((number, key))
    for number, key in left:
        if freed.get(key):
            terms[number] = freed[key].pop(0)
    return terms


def join_programs(programs: Sequence[Program]) -> Program:
    """Run programs one after the other: allocations are numbered on, in the same order."""
    import numpy as np

    term_names = tuple(dict.fromkeys(name for one in programs for name in one.term_names))
    phase_names = tuple(dict.fromkeys(name for one in programs for name in one.phase_names))
    events, terms, phases, offset = [], [], [], 0
    for one in programs:
        events.append(one.events + np.sign(one.events) * offset)
        terms.append(_renamed(one.terms, one.term_names, term_names))
        phases.append(_renamed(one.phases, one.phase_names, phase_names))
        offset += len(one.terms)
    return Program(
        np.concatenate(events), np.concatenate(terms), term_names,
        np.concatenate(phases), phase_names,
    )  # fmt: skip


def _renamed(
    indices: NDArray[np.int64], old: tuple[str, ...], new: tuple[str, ...]
) -> NDArray[np.int64]:
    import numpy as np

    table = np.array([new.index(name) for name in old] or [0], np.int64)
    return table[indices]


def sum_work(trace: Trace, repeats: Sequence[Repeat] = ()) -> dict[str, tuple[int, ...]]:
    """Add up flops, moved bytes, operators and copied bytes by phase, repeats counted as often."""
    sums: dict[str, tuple[int, ...]] = {}
    for at in trace.repeated(repeats):
        s = trace.segments[at]
        counts = (
            s.num_flops, s.moved_bytes, s.num_operators, s.copied_bytes, s.attention_flops,
        )  # fmt: skip
        before = sums.get(s.phase, (0,) * len(counts))
        sums[s.phase] = tuple(one + more for one, more in zip(before, counts, strict=True))
    return sums


def fixed_work(
    first: Mapping[str, tuple[int, ...]],
    second: Mapping[str, tuple[int, ...]],
    tokens: tuple[int, int],
) -> dict[str, tuple[int, int]]:
    """Return by phase the flops and moved bytes that do not depend on the batch.

    Weights are read, and some adapters build one as large, whatever the rows: what two runs of one
    program have, attention's own flops left out, is that and as much for each token.

    Args:
        first: phase -> counts of `sum_work` at a number of tokens.
        second: the same at another.
    """
    found = {}
    for phase, one in first.items():
        other = second.get(phase, one)
        pairs = ((one[0] - one[4], other[0] - other[4]), (one[1], other[1]))
        fixed = (
            here - (there - here) / (tokens[1] - tokens[0]) * tokens[0] for here, there in pairs
        )
        flops, moved = (
            round(min(max(value, 0), here)) for value, (here, _) in zip(fixed, pairs, strict=True)
        )
        found[phase] = (flops, moved)
    return found


def _block_at(segments: list[Segment], at: int, blocks: Sequence[Repeat]) -> Repeat | None:
    """Return the repeated block that starts at a segment, forwards or backwards."""
    layer = segments[at].layer
    for block in blocks:
        if layer is not None and layer[0] == block.stack and layer[1] in block.layers:
            return block
    return None


def _is_in(segment: Segment, block: Repeat, first: Segment) -> bool:
    layer: Any = segment.layer
    return (
        layer is not None
        and segment.phase == first.phase
        and layer[0] == block.stack
        and layer[1] in block.layers
    )
