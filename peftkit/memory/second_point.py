"""The second size at which a step is rehearsed, from which its growth is learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from peftkit.plugins import Point


def second_point(point: Point, config: PretrainedConfig, tile_tokens: int) -> Point:
    """Choose a second size that tells all monomials apart and takes the same branches.

    One row is a case of its own: slices of it need no copy. A batch that fills the head's
    first tile is compared with one that does not, and the other way round.

    Args:
        tile_tokens: tokens of a batch whose scored positions fill a tile.
    """
    text = config.get_text_config()
    fills_tile = point.num_tokens > tile_tokens
    rows = 1 if point.micro_batch == 1 else 3
    tokens = tile_tokens // 2 if fills_tile else 2 * tile_tokens + 1000
    longest = getattr(text, "max_position_embeddings", None) or tokens
    window = getattr(text, "sliding_window", None) or 0
    length = prime_below(min(tokens // rows, longest))
    if window and point.length < window <= length:
        length = prime_below(window - 1)
    elif window and point.length >= window > length:
        length = prime_above(window)
    if length == point.length:
        length = prime_below(length - 1)
    if rows > 1 and not fills_tile:
        rows = prime_above(max(rows, -(-2 * tile_tokens // max(1, length - 1)) + 1))
    return replace(point, micro_batch=rows, length=length)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


def prime_below(number: int) -> int:
    """Return the largest prime up to a number; 2 at least."""
    return next(n for n in range(max(number, 3), 1, -1) if _is_prime(n))


def prime_above(number: int) -> int:
    """Return the smallest prime from a number on."""
    return next(n for n in range(number, 2 * number + 2) if _is_prime(n))
