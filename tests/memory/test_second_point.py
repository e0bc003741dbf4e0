"""The second size at which a step is rehearsed: of the same kind, on the tile's other side."""

from __future__ import annotations

import pytest
import real_step
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from peftkit.memory.growth import make_size, monomials
from peftkit.memory.second_point import prime_above, prime_below, second_point
from peftkit.plugins import Point


def config(**options):
    values = {**real_step.MISTRAL, **options}
    return AutoConfig.for_model(values.pop("model_type"), **values)


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
@pytest.mark.parametrize("length", [16, 48, 100])
def test_it_has_the_same_branches(rows: int, length: int) -> None:
    found = second_point(Point(rows, length), config(), 4096)
    assert (found.micro_batch == 1) == (rows == 1)
    assert (found.length >= 32) == (length >= 32), "on the same side of the window"


@pytest.mark.parametrize("point", [Point(1, 16), Point(2, 48), Point(8, 1000), Point(3, 1000)])
@pytest.mark.parametrize("tile_tokens", [300, 2048, 4096, 40000])
def test_one_of_the_two_fills_the_heads_tile(point: Point, tile_tokens: int) -> None:
    long = config(max_position_embeddings=90000, sliding_window=None)
    fills_tile = second_point(point, long, tile_tokens).num_tokens > tile_tokens
    assert fills_tile != (point.num_tokens > tile_tokens)


@given(rows=st.integers(1, 40), length=st.integers(3, 3000))
def test_it_tells_the_numbers_of_tokens_apart(rows: int, length: int) -> None:
    long = config(max_position_embeddings=90000, sliding_window=None)
    found = second_point(Point(rows, length), long, 4096)
    first, second = (
        monomials(make_size(p.micro_batch, p.length)) for p in (Point(rows, length), found)
    )
    names = ("1", "B·T", "T²" if rows > 1 else "B·T²")
    ratios = [second[name] / first[name] for name in names]
    assert len(set(ratios)) == len(ratios)


@given(st.integers(3, 5000))
def test_primes_lie_beside_a_number(number: int) -> None:
    below, above = prime_below(number), prime_above(number)
    assert below <= number <= above
    for prime in (below, above):
        assert all(prime % d for d in range(2, prime))
