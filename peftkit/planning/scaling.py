"""Predict a step's time on many GPUs, from its time on one and what the processes exchange.

A collective takes its latencies and its bytes, t = a L + b S (Hockney's model; Thakur et al., 2005,
https://doi.org/10.1177/1094342005051521): a ring passes n - 1 hops, twice for an all-reduce, and a
double tree of all-reduce 2 log2 n (Sanders et al., 2009, https://doi.org/10.1016/j.parco.2009.09.001),
of which the quicker is taken, as NCCL does. How much of it hides behind computing is not known, so
both ends are given: all of it that can, and none. Every number that comes from here is predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from peftkit.planning.communication import Collective, Exchange, collectives, communicated_bytes


@dataclass(frozen=True)
class Links:
    """Describe what joins GPUs, one way."""

    within: float
    """Bytes per second of a GPU to the others of its machine."""
    between: float
    """Bytes per second of a machine to the others, all its adapters together."""
    gpus_per_machine: int = 8
    seconds_within: float = 5e-6
    """Latency of a hop within a machine."""
    seconds_between: float = 10e-6
    """Latency of a hop that may lead to another machine."""
    share: float = 0.8
    """Of the published bandwidth, what collectives reach."""
    source: str = ""
    """Where the rates are published."""

    def rate(self, num_gpus: int) -> float:
        """Return the bytes a second that pass any point of a ring through all GPUs."""
        rate = self.within if num_gpus <= self.gpus_per_machine else min(self.within, self.between)
        return rate * self.share

    def latency(self, num_gpus: int) -> float:
        """Return the seconds of a hop."""
        return self.seconds_within if num_gpus <= self.gpus_per_machine else self.seconds_between


DGX_A100 = Links(
    within=300e9,
    between=200e9,
    source="DGX A100: NVLink 600 GB/s both ways together, 8 adapters of 200 Gb/s"
    " (https://images.nvidia.com/aem-dam/Solutions/Data-Center/nvidia-dgx-a100-datasheet.pdf)",
)


@dataclass(frozen=True)
class Scaled:
    """Say how a step is predicted to go on so many GPUs, each with the batch that one had."""

    num_gpus: int
    sent_bytes: int
    """By each GPU in a step."""
    exchange_seconds: float
    best_seconds: float
    """All of the exchange that can hides behind computing."""
    worst_seconds: float
    """None of it does."""
    alone_seconds: float

    @property
    def best_efficiency(self) -> float:
        """Return the speed a GPU keeps at best."""
        return self.alone_seconds / self.best_seconds

    @property
    def worst_efficiency(self) -> float:
        """Return the speed a GPU keeps at worst."""
        return self.alone_seconds / self.worst_seconds

    def to_json(self) -> dict[str, Any]:
        """Return plain data, labelled as a prediction."""
        efficiency = [self.worst_efficiency, self.best_efficiency]
        return {"basis": "predicted", **vars(self), "efficiency": efficiency}


def scale(
    seconds: float, backward_share: float, exchange: Exchange, links: Links, num_gpus: int
) -> Scaled:
    """Predict a step on many GPUs, the batch of each as it was: weak scaling.

    Args:
        seconds: of a step on one GPU, measured.
        backward_share: of it, what the backward takes: gradients are only reduced there.
    """
    exchanging = sum(collective_seconds(one, links, num_gpus) for one in collectives(exchange))
    cuts_weights = exchange.strategy in ("fsdp2", "zero3")
    hides_behind = seconds if cuts_weights else seconds * backward_share
    return Scaled(
        num_gpus,
        communicated_bytes(exchange, num_gpus),
        exchanging,
        best_seconds=seconds - hides_behind + max(hides_behind, exchanging),
        worst_seconds=seconds + exchanging,
        alone_seconds=seconds,
    )


def collective_seconds(one: Collective, links: Links, num_gpus: int) -> float:
    """Predict how long one kind of exchange takes in a step."""
    if num_gpus == 1:
        return 0.0
    hops = num_gpus - 1
    if one.kind == "all_reduce":
        hops = min(2 * hops, 2 * math.ceil(math.log2(num_gpus)))
    moving = one.sent(num_gpus) / links.rate(num_gpus)
    return one.num_calls * hops * links.latency(num_gpus) + moving
