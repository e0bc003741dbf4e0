"""What processes that train together send each other in one optimizer step, by formula.

Ring all-reduce: each of n processes sends 2(n-1)/n of the buffer (Patarasuk & Yuan, Bandwidth
Optimal All-reduce Algorithms, 2009, https://doi.org/10.1016/j.jpdc.2008.09.002); all-gather and
reduce-scatter are half of it each. What is exchanged: DDP all-reduces gradients once a step (Li et
al., 2020, https://arxiv.org/abs/2006.15704); ZeRO-2 moves as much, ZeRO-3 and FSDP gather each
weight for the forward and for the backward (Rajbhandari et al., 2020, section 7,
https://arxiv.org/abs/1910.02054; Zhao et al., 2023, https://arxiv.org/abs/2304.11277). A weight
that is not trained is gathered all the same, since gradients pass through it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]
STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")


@dataclass(frozen=True)
class Exchange:
    """Say what is exchanged: all bytes are those of whole tensors, before anything is cut."""

    strategy: str
    """An engine's name: one of `STRATEGIES`."""
    gradient_bytes: int
    """Of what is trained, in the dtype that gradients are reduced in."""
    weight_bytes: int = 0
    """Of all weights, in the dtype that they are gathered in; only where they are cut."""
    root_bytes: int = 0
    """Of these, what lies outside of the layers: FSDP2 keeps it gathered until the backward."""
    micro_batches: int = 1
    """Forwards and backwards of one step."""
    num_units: int = 1
    """Layers, each of which is gathered by itself."""

    def __post_init__(self) -> None:
        """Refuse a strategy that no formula is known of."""
        if self.strategy not in STRATEGIES:
            raise ValueError(f"{self.strategy!r} is not one of {STRATEGIES}")


@dataclass(frozen=True)
class Collective:
    """Say what one kind of exchange moves in a step."""

    kind: Kind
    num_bytes: int
    """Of the whole tensors, all its calls together."""
    num_calls: int

    def sent(self, num_processes: int) -> float:
        """Return the bytes that each process sends, by the ring."""
        rounds = 2 if self.kind == "all_reduce" else 1
        return rounds * (num_processes - 1) / num_processes * self.num_bytes


def collectives(exchange: Exchange) -> Iterator[Collective]:
    """Give what a step exchanges; gradients once a step, weights once a forward and backward."""
    times = exchange.micro_batches
    if exchange.strategy == "ddp":
        yield Collective("all_reduce", exchange.gradient_bytes, 1)
        return
    if exchange.strategy == "zero2":
        yield Collective("reduce_scatter", exchange.gradient_bytes, 1)
        yield Collective("all_gather", exchange.gradient_bytes, 1)  # what the optimizer has changed
        return
    kept = exchange.root_bytes if exchange.strategy == "fsdp2" else 0
    gathered = 2 * (exchange.weight_bytes - kept) + kept
    yield Collective("all_gather", times * gathered, times * 2 * exchange.num_units)
    yield Collective("reduce_scatter", exchange.gradient_bytes, exchange.num_units)


def communicated_bytes(exchange: Exchange, num_processes: int) -> int:
    """Return the bytes that each process sends in one optimizer step; as many come in."""
    return round(sum(one.sent(num_processes) for one in collectives(exchange)))
