"""The caching allocator's model: torch's rules by hand, and what holds of any order of requests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.memory.caching_allocator import MIB, CachingAllocator

REQUESTS = st.lists(
    st.one_of(st.integers(1, 30 * MIB), st.integers(-40, -1)), min_size=1, max_size=60
)
"""Bytes to allocate, or which of those that are there to free."""


def reserved_after(*sizes: int) -> int:
    allocator = CachingAllocator()
    for size in sizes:
        allocator.allocate(size)
    return allocator.reserved_bytes


def test_segments() -> None:
    assert reserved_after(1) == 2 * MIB  # small requests share a segment of 2 MiB
    assert reserved_after(*[512] * 4096) == 2 * MIB
    assert reserved_after(*[512] * 4097) == 4 * MIB
    assert reserved_after(MIB) == 2 * MIB
    assert reserved_after(MIB + 1) == 20 * MIB  # those up to 10 MiB one of 20 MiB
    assert reserved_after(*[6 * MIB] * 3) == 20 * MIB
    assert reserved_after(*[6 * MIB] * 4) == 40 * MIB
    assert reserved_after(10 * MIB) == 10 * MIB  # and larger ones have their own
    assert reserved_after(10 * MIB + 1) == 12 * MIB


def test_what_is_left_of_a_block_is_used_where_it_is_worth_it() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(40 * MIB))
    first = allocator.allocate(30 * MIB)
    allocator.allocate(9 * MIB)  # the rest of the segment
    assert allocator.reserved_bytes == 40 * MIB
    allocator.free(first)
    allocator.allocate(29 * MIB)  # leaves 1 MiB, which is not split off
    assert allocator.allocate(2 * MIB).size == 2 * MIB
    assert allocator.reserved_bytes == 60 * MIB


def test_the_smallest_free_block_is_taken_and_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(20 * MIB)
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(12 * MIB).address == small.address
    halves = [allocator.allocate(20 * MIB) for _ in range(2)]
    for half in halves:
        allocator.free(half)
    assert allocator.allocate(40 * MIB).address == large.address
    assert allocator.reserved_bytes == 60 * MIB


def test_an_emptied_cache_keeps_segments_that_are_in_use() -> None:
    allocator = CachingAllocator()
    whole, part, rest = (allocator.allocate(size * MIB) for size in (20, 5, 5))
    allocator.free(whole)
    allocator.free(part)
    allocator.give_back()
    assert allocator.reserved_bytes == 20 * MIB
    allocator.free(rest)
    allocator.give_back()
    assert allocator.reserved_bytes == 0
    assert allocator.most_bytes == 40 * MIB


@given(REQUESTS)
@settings(max_examples=60, deadline=None)
def test_blocks_never_overlap_and_all_can_be_given_back(requests: list[int]) -> None:
    allocator, blocks = CachingAllocator(), []
    alive = most = 0
    for request in requests:
        if request > 0:
            blocks.append((allocator.allocate(request), request))
            alive += request
        elif blocks:
            block, size = blocks.pop(request % len(blocks))
            allocator.free(block)
            alive -= size
        most = max(most, alive)
        places = sorted((block.address, block.size) for block, _ in blocks)
        ends = [address + size for address, size in places]
        assert all(end <= start for end, (start, _) in zip(ends, places[1:], strict=False))
        assert all(block.size >= size for block, size in blocks)
        assert allocator.reserved_bytes % (2 * MIB) == 0
    assert allocator.most_bytes >= most
    for block, _ in blocks:
        allocator.free(block)
    allocator.give_back()
    assert allocator.reserved_bytes == 0
