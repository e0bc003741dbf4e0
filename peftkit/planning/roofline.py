"""Predict how long a planned step takes on a known device, from what it computes and moves.

Each phase computes for F/(peak rate) and moves bytes for M/(bandwidth), one after the other as
eager operators do, unless the host cannot launch its operators that fast. What is copied to the
host and back is added in full, though some of it runs beside the rest. Every number that comes from
here is a prediction and says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.planning.devices import Device

if TYPE_CHECKING:
    from peftkit.memory.planner import Plan, Work

MATRIX_SHARE = 0.80
"""Of the published peak, what large bf16 products reach: 790 of 989 TFLOP/s on an H200."""
BANDWIDTH_SHARE = 0.90
"""Of the published bandwidth, what a copy reaches: 4.3 of 4.8 TB/s on an H200."""
PCIE_SHARE = 0.80
"""Of the published bandwidth to the host, what copies of pinned memory reach: an assumption, about
what others report of PCIe 4.0 x16 (25 of 32 GB/s)."""
SECONDS_PER_OPERATOR = 6e-6
"""What the host needs to launch one eager operator with its autograd bookkeeping."""
_PARTS = ("matrix products", "memory traffic", "host copies", "launches")
TRAINING_PHASES = ("forward", "loss", "backward")
"""Phases that every micro-batch goes through; `step` comes once after all of them."""


@dataclass(frozen=True)
class Speed:
    """Say how fast a step is predicted to be on one device."""

    device: str
    seconds_per_step: float
    """One average optimizer step, all its micro-batches."""
    tokens_per_second: float
    """Real tokens, padding left out."""
    phase_seconds: Mapping[str, float]
    """Phase -> seconds in one step."""
    bound: str
    """What most of the time goes into: `matrix products`, `memory traffic`, `host copies`,
    `launches`."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, labelled as a prediction."""
        return {
            "basis": "predicted",
            "device": self.device,
            "seconds_per_step": self.seconds_per_step,
            "tokens_per_second": self.tokens_per_second,
            "phase_seconds": dict(self.phase_seconds),
            "bound": self.bound,
        }


def predict(
    plan: Plan,
    device: Device,
    *,
    dtype: str,
    micro_batch: int | None = None,
    accumulation: int | None = None,
) -> Speed | None:
    """Predict a plan's speed; None on a device of which only the size is known.

    What was counted for the longest rows is scaled to an average batch, padding included.

    Args:
        dtype: in which matrices are multiplied, see `peftkit.memory.settings.matrix_dtype`.
        micro_batch: rows of one forward, where they are not the plan's.
        accumulation: micro-batches a step, where they are not the plan's.
    """
    if not device.has_rates:
        return None
    times_rows = (micro_batch or plan.micro_batch) / plan.micro_batch
    mean = plan.padded_tokens / plan.micro_batch + plan.num_virtual
    longer = mean / (plan.length + plan.num_virtual)
    accumulation = accumulation or plan.accumulation
    totals = dict.fromkeys(_PARTS, 0.0)
    phase_seconds: dict[str, float] = {}
    for phase, work in plan.work.items():
        is_step = phase == "step"
        times = 1 if is_step else accumulation
        if is_step or phase in TRAINING_PHASES:
            parts = _phase_seconds(
                work if is_step else _scaled(work, times_rows, longer), device, dtype
            )
            phase_seconds[phase] = times * sum(parts.values())
            for name, seconds in parts.items():
                totals[name] += times * seconds
    seconds_per_step = sum(phase_seconds.values())
    num_tokens = plan.num_tokens * times_rows * accumulation
    return Speed(
        device=device.name,
        seconds_per_step=seconds_per_step,
        tokens_per_second=num_tokens / seconds_per_step if seconds_per_step else 0.0,
        phase_seconds=phase_seconds,
        bound=max(totals, key=lambda name: totals[name]),
    )


def _scaled(work: Work, rows: float, length: float) -> Work:
    """Take a phase's work to other rows and another length; launches stay, and what is fixed."""
    tokens = rows * length
    linear = work.num_flops - work.attention_flops - work.fixed_flops
    flops = work.fixed_flops + tokens * linear + tokens * length * work.attention_flops
    moved = work.fixed_bytes + tokens * (work.moved_bytes - work.fixed_bytes)
    copied = round(tokens * work.copied_bytes)
    return dataclasses.replace(
        work, num_flops=round(flops), moved_bytes=round(moved), copied_bytes=copied
    )


def _phase_seconds(work: Work, device: Device, dtype: str) -> dict[str, float]:
    """Split a phase's seconds over what they go into."""
    peak = device.peak_flops(dtype)
    if peak is None or device.bandwidth is None:
        raise ValueError(f"{device.name} has no rates")
    shares = (MATRIX_SHARE, BANDWIDTH_SHARE, PCIE_SHARE)
    matrix_share, bandwidth_share, pcie_share = (1.0, 1.0, 1.0) if device.is_measured else shares
    computing = work.num_flops / (peak * matrix_share)
    moving = work.moved_bytes / (device.bandwidth * bandwidth_share)
    copying = 0.0
    if device.pcie_bandwidth is not None:
        copying = work.copied_bytes / (device.pcie_bandwidth * pcie_share)
    launching = work.num_operators * SECONDS_PER_OPERATOR
    # The device works while the host goes on launching; only what it waits for counts.
    waiting = max(0.0, launching - computing - moving - copying)
    return dict(zip(_PARTS, (computing, moving, copying, waiting), strict=True))
