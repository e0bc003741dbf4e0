"""What torch's caching allocator takes from a CUDA device to serve a step, which is what must fit.

A model of `c10/cuda/CUDACachingAllocator.cpp` with its default settings: a request is rounded up
to 512 bytes; up to 1 MiB it is served from segments of 2 MiB, below 10 MiB from segments of 20 MiB,
and above from a segment of its own, rounded up to 2 MiB. The smallest free block that is large
enough is taken, and split where what is left is worth it: 512 bytes in a small segment, more than
1 MiB in a large one. What is freed joins its free neighbours and stays the allocator's. What it is
not told of: streams other than the default one, `PYTORCH_ALLOC_CONF`, and that segments are given
back, and the request tried again, once the device is full.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 1 << 20
SMALLEST_BLOCK = 512
LARGEST_SMALL = MIB
SMALL_SEGMENT = 2 * MIB
SMALLEST_OWN = 10 * MIB
LARGE_SEGMENT = 20 * MIB
OWN_ROUNDED_TO = 2 * MIB


@dataclass(slots=True)
class _Block:
    """A stretch of a segment, in a list with its neighbours."""

    address: int
    size: int
    is_small: bool
    is_free: bool = False
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """Serve requests from segments, as torch does, and remember how much was taken in all."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        """Of all segments."""
        self.most_bytes = 0
        """The most that they ever had."""
        self._end = 0
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        """Small or not -> size and address of free blocks, the smallest first."""
        self._at: dict[int, _Block] = {}

    def allocate(self, num_bytes: int) -> _Block:
        """Serve a request of at least one byte."""
        size = -(-num_bytes // SMALLEST_BLOCK) * SMALLEST_BLOCK
        is_small = size <= LARGEST_SMALL
        free = self._free[is_small]
        place = bisect_left(free, (size, 0))
        if place < len(free):
            block = self._at[free.pop(place)[1]]
            block.is_free = False
        else:
            block = self._new_segment(size, is_small=is_small)
        left = block.size - size
        if left >= SMALLEST_BLOCK if is_small else left > LARGEST_SMALL:
            self._split(block, size)
        return block

    def free(self, block: _Block) -> None:
        """Take a block back, and join it with free neighbours."""
        before, after = block.before, block.after
        if after is not None and after.is_free:
            self._forget(after)
            block.size += after.size
            self._link(block, after.after)
        if before is not None and before.is_free:
            self._forget(before)
            before.size += block.size
            del self._at[block.address]
            self._link(before, block.after)
            block = before
        block.is_free = True
        self._at[block.address] = block
        insort(self._free[block.is_small], (block.size, block.address))

    def give_back(self) -> None:
        """Return segments that are wholly free to the device, as `torch.cuda.empty_cache` does."""
        for free in self._free.values():
            whole = [
                address for _, address in free
                if (block := self._at[address]).before is None and block.after is None
            ]  # fmt: skip
            for address in whole:
                block = self._at[address]
                self._forget(block)
                self.reserved_bytes -= block.size

    def _new_segment(self, size: int, *, is_small: bool) -> _Block:
        if is_small:
            taken = SMALL_SEGMENT
        elif size < SMALLEST_OWN:
            taken = LARGE_SEGMENT
        else:
            taken = -(-size // OWN_ROUNDED_TO) * OWN_ROUNDED_TO
        # Addresses only order blocks; segments lie one after the other.
        block = _Block(self._end, taken, is_small)
        self._end += taken
        self._at[block.address] = block
        self.reserved_bytes += taken
        self.most_bytes = max(self.most_bytes, self.reserved_bytes)
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.is_small, is_free=True)
        self._link(rest, block.after)
        block.size = size
        self._link(block, rest)
        self._at[rest.address] = rest
        insort(self._free[rest.is_small], (rest.size, rest.address))

    def _forget(self, block: _Block) -> None:
        free = self._free[block.is_small]
        del free[bisect_left(free, (block.size, block.address))]
        del self._at[block.address]

    @staticmethod
    def _link(block: _Block, after: _Block | None) -> None:
        block.after = after
        if after is not None:
            after.before = block
