"""How each allocation of a step grows with the micro-batch and the length, and what follows.

Two runs of one program at two sizes give every allocation two numbers. Tensors of a model are
products of the rows, the tokens and constants, so one of a few monomials explains both numbers
exactly; then the step can be replayed at any size without being run. An allocation that no
monomial explains is scaled with the number of tokens, and the replay says that it is not exact.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.memory.trace import Live, Program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TILE_TOKENS = 4096
"""Positions that trl's fused head scores at once."""
_LIMIT = 1 << 40
"""No search looks beyond this many rows or tokens."""


@dataclass(frozen=True)
class Virtual:
    """Hold the tokens that prompt learning adds to each row."""

    num: int
    num_scored: int
    """Those of them that the head sees as well."""


@dataclass(frozen=True)
class Size:
    """Hold the numbers that tensor shapes are made of."""

    micro_batch: int
    """Sequences of a micro-batch; as many as rows, as a rule."""
    length: int
    num_virtual: int
    """Tokens that prompt tuning puts before each row."""
    num_scored: int
    """Positions whose loss is computed, in the order of the fused head's tiles."""
    tiles: tuple[int, int]
    """Rows of the fused head's first two tiles."""


def monomials(size: Size) -> dict[str, int]:
    """Return every monomial's value, the likeliest first."""
    rows, length, longer = size.micro_batch, size.length, size.length + size.num_virtual
    tokens = rows * length
    values = {
        "1": 1,
        "B·T": tokens,
        "B·(T-1)": rows * (length - 1),
        "tile": size.tiles[0],
        "tile 2": size.tiles[1],
        "N": size.num_scored,
        "B": rows,
        "T": length,
        "T²": length * length,
        "B·T²": tokens * length,
        "(B·T)²": tokens * tokens,
        "B·T-1": tokens - 1,
        "B·T+1": tokens + 1,
        "T-1": length - 1,
    }
    if size.num_virtual:
        values |= {
            "B·T'": rows * longer,
            "B·(T'-1)": rows * (longer - 1),
            "T'": longer,
            "T'²": longer * longer,
            "T·T'": length * longer,
            "B·T'²": rows * longer * longer,
            "B·T·T'": tokens * longer,
            "B+1": rows + 1,
        }
    return values


@dataclass(frozen=True)
class Growth:
    """Hold each allocation's monomial and coefficient."""

    names: tuple[str, ...]
    choice: NDArray[np.int64]
    """Allocation -> index in `names`."""
    numerator: NDArray[np.int64]
    denominator: NDArray[np.int64]
    """The coefficient in bytes is `numerator / denominator`."""
    num_unexplained: int

    def bytes_at(self, size: Size) -> NDArray[np.int64]:
        """Return every allocation's bytes at a size."""
        import numpy as np

        values = monomials(size)
        table = np.array([values[name] for name in self.names], np.float64)
        return np.rint(table[self.choice] * self.numerator / self.denominator).astype(np.int64)


def explain_growth(
    first: NDArray[np.int64], second: NDArray[np.int64], sizes: tuple[Size, Size]
) -> Growth:
    """Find for every allocation the monomial that gives its bytes at both sizes.

    Args:
        first: allocation -> bytes at the first size.
        second: the same allocations at the second size.
    """
    import numpy as np

    at_first, at_second = monomials(sizes[0]), monomials(sizes[1])
    names = tuple(at_first)
    choice = np.full(len(first), -1, np.int64)
    for index, name in enumerate(names):
        explains = (choice < 0) & (first * at_second[name] == second * at_first[name])
        explains &= (second == 0) | (at_second[name] > 0)
        choice[explains] = index
    unexplained = choice < 0
    choice[unexplained] = names.index("B·T")
    denominator = np.array([at_second[name] for name in names], np.int64)[choice]
    return Growth(names, choice, second, np.maximum(denominator, 1), int(unexplained.sum()))


@dataclass(frozen=True)
class Footprint:
    """Replay one program at any size."""

    program: Program
    growth: Growth
    before: NDArray[np.int64]
    """Bytes of the allocations that are there before the batch: weights, optimizer state."""
    after: NDArray[np.int64]
    """Bytes of those that the update makes, which do not depend on the batch either."""
    block: int
    """What every allocation is rounded up to."""
    virtual: Virtual
    scored_share: float
    recorded: tuple[int, int, NDArray[np.int64]]
    """A micro-batch and length at which the bytes are known, not replayed."""
    num_sequences: int = 1
    """Sequences of a row in a batch, see `Method.num_sequences`."""
    tile: int = TILE_TOKENS
    """Positions that the head scores at once."""

    def size(self, micro_batch: int, length: int) -> Size:
        """Return the numbers of a micro-batch of rows of a length."""
        num = micro_batch * self.num_sequences
        return make_size(
            num, length, virtual=self.virtual, scored_share=self.scored_share, tile=self.tile
        )

    def live(self, micro_batch: int, length: int) -> Live:
        """Return what is alive at every moment at a size."""
        return self.program.live(self.bytes_at(micro_batch, length), block=self.block)

    def peak(self, micro_batch: int, length: int) -> int:
        """Return the peak at a size."""
        return self.program.peak(self.bytes_at(micro_batch, length), block=self.block)

    def formulas(self, event: int) -> dict[str, str]:
        """Return, for each term, the sum of what is alive after an event as a formula in B and T.

        Returns:
            e.g. `{"activations": "131,072·B·T + 4·B·T²"}`, largest coefficients first.
        """
        num_before, num_grown = len(self.before), len(self.growth.choice)
        coefficients = self.growth.numerator / self.growth.denominator
        sums: dict[str, defaultdict[str, float]] = {}
        for number, copies in self.program.alive_after(event).items():
            counter = sums.setdefault(
                self.program.term_names[self.program.terms[number]], defaultdict(float)
            )
            if number < num_before:
                counter["1"] += int(self.before[number]) * copies
            elif number < num_before + num_grown:
                at = number - num_before
                name = self.growth.names[self.growth.choice[at]]
                counter[name] += float(coefficients[at]) * copies
            else:
                counter["1"] += int(self.after[number - num_before - num_grown]) * copies
        return {term: _formula(counter) for term, counter in sums.items()}

    def bytes_at(self, micro_batch: int, length: int) -> NDArray[np.int64]:
        """Return every allocation's bytes at a size, not yet rounded."""
        import numpy as np

        rows, tokens, grown = self.recorded
        if (rows, tokens) != (micro_batch, length):
            grown = self.growth.bytes_at(self.size(micro_batch, length))
        return np.concatenate([self.before, grown, self.after])


def second_bytes(
    first: Program,
    second: Program,
    first_bytes: NDArray[np.int64],
    num_bytes: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """Return the bytes that the allocations of one run had in another, matched event by event.

    The two may have run different numbers of a repeated layer, since both are expanded to all.

    Args:
        first_bytes: allocation of the first run -> its bytes, kept by those in no event.
        num_bytes: allocation of the second run -> its bytes.

    Returns: None when the two did not do the same.
    """
    import numpy as np

    if len(first.events) != len(second.events):
        return None
    if not np.array_equal(np.sign(first.events), np.sign(second.events)):
        return None
    if not np.array_equal(first.phases, second.phases):
        return None
    index = np.abs(first.events) - 1
    seen = num_bytes[np.abs(second.events) - 1]
    matched = first_bytes.copy()
    matched[index] = seen
    return matched if np.array_equal(matched[index], seen) else None


def virtual_tokens(model: Any) -> Virtual:
    """Return the tokens that prompt learning puts before each row, if it does."""
    configs: dict[str, Any] = getattr(model, "peft_config", None) or {}
    for config in configs.values():
        if getattr(config, "is_prompt_learning", False):
            # A prefix is put before keys and values only, and has no position that is scored.
            is_prefix = str(config.peft_type.value) in ("PREFIX_TUNING", "CARTRIDGE")
            num = int(getattr(config, "num_virtual_tokens", 0) or 0)
            return Virtual(num, 0 if is_prefix else num)
    return Virtual(0, 0)


def make_size(
    micro_batch: int,
    length: int,
    *,
    virtual: Virtual = Virtual(0, 0),
    scored_share: float = 1.0,
    tile: int = TILE_TOKENS,
) -> Size:
    """Return the numbers of a micro-batch of rows of a length."""
    num_scored = scored_positions(micro_batch * (length + virtual.num_scored - 1), scored_share)
    return Size(micro_batch, length, virtual.num, num_scored, tile_sizes(num_scored, tile))


def tile_sizes(num_tokens: int, tile: int = TILE_TOKENS) -> tuple[int, int]:
    """Return the rows of the first two tiles; 0 for a second one that there is not."""
    return min(num_tokens, tile), min(max(num_tokens - tile, 0), tile)


def scored_positions(num_positions: int, share: float) -> int:
    """Return how many positions carry a loss: a share of all, rounded up, at least one."""
    return max(1, math.ceil(share * num_positions))


def largest_that_fits(fits: Callable[[int], bool], start: int) -> int:
    """Return the largest number for which a falling predicate holds; 0 when none does.

    Args:
        fits: from a positive number to whether it fits.
        start: where to look first.
    """
    low, high = 0, max(1, start)
    while high < _LIMIT and fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _formula(counter: Mapping[str, float]) -> str:
    parts = sorted(counter.items(), key=lambda item: -abs(item[1]))
    shown = [
        f"{value:,.0f}" if name == "1" else f"{value:,.0f}·{name}"
        for name, value in parts
        if round(value)
    ]
    return " + ".join(shown) or "0"
