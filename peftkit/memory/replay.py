"""Replay a planned step on the caching allocator: what must be free is more than what is alive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.memory.caching_allocator import CachingAllocator
from peftkit.memory.terms import RUNTIME
from peftkit.memory.trace import HOST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftkit.memory.growth import Footprint


def reserved_bytes(
    footprint: Footprint,
    micro_batch: int,
    length: int,
    *,
    workspaces: Sequence[int] = (),
    former: int | None = None,
) -> int:
    """Return the most that the allocator takes for a step, the first one that a process makes.

    Args:
        workspaces: requests that the runtime makes and keeps; its term is left out for them.
        former: length of a batch before it, after whose step the cache is emptied while its
            gradients are still there; None where the cache is never emptied.
    """
    load, batch, update, drop = _parts(footprint)
    memory = _Memory(workspaces)
    if former is None:
        memory.run((*load, *batch, *update, *drop), footprint.bytes_at(micro_batch, length))
        return memory.allocator.most_bytes
    num_bytes = footprint.bytes_at(micro_batch, former)
    memory.run((*load, *batch, *update), num_bytes)
    memory.allocator.give_back()
    # The loop drops its gradients and what it holds of the former batch as it goes on.
    before = {abs(event) - 1 for event in load}
    is_gradient = footprint.program.is_of("gradients")
    memory.free_all(n for n in list(memory.alive) if n not in before and not is_gradient[n])
    memory.run(drop, num_bytes)
    memory.run((*batch, *update), footprint.bytes_at(micro_batch, length))
    return memory.allocator.most_bytes


def _parts(footprint: Footprint) -> list[list[int]]:
    """Return the events that the allocator serves: before the batch, its own, the update's.

    Last those in which the update lets gradients go.
    """
    import numpy as np

    program = footprint.program

    def is_of(names: Sequence[str], all_names: Sequence[str], places: Any) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.array([name in names for name in all_names])[places]
        return found

    terms = program.terms[np.abs(program.events) - 1]
    is_served = ~is_of((HOST, RUNTIME), program.term_names, terms)
    is_load = is_of(("load",), program.phase_names, program.phases)
    is_update = is_of(("step",), program.phase_names, program.phases)
    is_gradient = program.is_of("gradients")[np.abs(program.events) - 1]
    is_drop = is_update & is_gradient & (program.events < 0)
    chosen = (is_load, ~is_load & ~is_update, is_update & ~is_drop, is_drop)
    return [program.events[is_served & part].tolist() for part in chosen]


class _Memory:
    """Serve the events of a program, in which an allocation may come more than once."""

    def __init__(self, workspaces: Sequence[int]) -> None:
        self.allocator = CachingAllocator()
        for size in workspaces:
            self.allocator.allocate(size)
        self.alive: dict[int, list[Any]] = defaultdict(list)
        """Allocation -> its blocks."""
        self._of_size: dict[int, list[int]] = defaultdict(list)

    def run(self, events: Iterable[int], sizes: NDArray[np.int64]) -> None:
        """Serve events; a repeated layer may free what the one before it allocated.

        Then copies of one allocation are left, and as many of another, of the same size, are freed.
        """
        num_bytes = sizes.tolist()
        for event in events:
            number = abs(event) - 1
            size = num_bytes[number]
            if event > 0 and size:
                self.alive[number].append(self.allocator.allocate(size))
                self._of_size[size].append(number)
            elif size:
                blocks = self.alive[number] or self._like(size)
                if blocks:
                    self.allocator.free(blocks.pop())

    def free_all(self, numbers: Iterable[int]) -> None:
        """Free every block of some allocations."""
        for number in numbers:
            for block in self.alive.pop(number):
                self.allocator.free(block)

    def _like(self, size: int) -> list[Any]:
        found = (n for n in reversed(self._of_size[size]) if self.alive[n])
        return self.alive[number] if (number := next(found, None)) is not None else []
