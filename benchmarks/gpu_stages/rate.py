"""rate: what the card itself achieves, against which everything else is held.

The matrix product by dtype, the copy by dtype and to the host, and NF4 made into a matrix again.
Operands are random: zeros run faster than data does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Bench, found_by, seconds_of

if TYPE_CHECKING:
    from gpu_stages.bench import Setting

SHARE = 4
_NF4_BLOCK = 64


@dataclass(frozen=True)
class Sizes:
    """Say how large the operands are."""

    edge: int = 8192
    """Of the matrices; large products reach more."""
    copy_bytes: int = 2 << 30
    """Many times the largest cache."""
    host_bytes: int = 1 << 28


DRY = Sizes(edge=128, copy_bytes=1 << 20, host_bytes=1 << 18)


def requests(_setting: Setting) -> list[Any]:
    """Ask for no plan."""
    return []


def run(bench: Bench) -> None:
    """Measure the rates, the ones that others divide by first."""
    sizes = DRY if bench.is_dry else Sizes()
    for dtype in ("bfloat16", "float16", "float32"):
        bench.add("matrix", _matrix(bench, dtype, sizes.edge))
    bench.add("matrix", _in_tf32(bench, sizes.edge))
    for dtype in ("bfloat16", "float32", "uint8"):
        bench.add("copy", _copy(bench, dtype, sizes.copy_bytes))
    bench.add("nf4", _nf4(bench, sizes.edge))
    for way in ("to the device", "to the host"):
        bench.add("host", _host_copy(bench, way, sizes.host_bytes))


def matrix_rate(setting: Setting, dtype: str = "bfloat16") -> float | None:
    """Return the FLOP/s that this stage found products in a dtype to reach; None before it ran."""
    for one in found_by(setting, "rate").get("matrix", ()):
        if one["dtype"] == dtype:
            return float(one["flops_per_second"])
    return None


def _matrix(bench: Bench, dtype: str, edge: int, *, name: str | None = None) -> Mapping[str, Any]:
    import torch

    draw = torch.Generator(bench.device).manual_seed(0)
    left, right = (
        torch.randn(edge, edge, device=bench.device, generator=draw).to(getattr(torch, dtype))
        for _ in range(2)
    )
    out = torch.empty_like(left)
    seconds = seconds_of(lambda: torch.mm(left, right, out=out), bench.device)
    rate = 2 * edge**3 / seconds
    bench.say(f"product, {name or dtype}: {rate / 1e12:,.1f} TFLOP/s")
    return {"dtype": name or dtype, "edge": edge, "seconds": seconds, "flops_per_second": rate}


def _in_tf32(bench: Bench, edge: int) -> Mapping[str, Any]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return _matrix(bench, "float32", edge, name="tf32")
    finally:
        torch.set_float32_matmul_precision(before)


def _copy(bench: Bench, dtype: str, num_bytes: int) -> Mapping[str, Any]:
    import torch

    source = torch.randint(0, 127, (num_bytes,), dtype=torch.uint8, device=bench.device)
    source = source.view(getattr(torch, dtype))
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), bench.device)
    rate = 2 * num_bytes / seconds
    bench.say(f"copy, {dtype}: {rate / 1e9:,.0f} GB/s read and written")
    return {"dtype": dtype, "num_bytes": num_bytes, "seconds": seconds, "bytes_per_second": rate}


def _nf4(bench: Bench, edge: int) -> Mapping[str, Any]:
    """Make a matrix in bfloat16 of one in NF4, as every step of QLoRA does for each layer."""
    import torch
    from bitsandbytes import functional

    weight = torch.randn(edge, edge, device=bench.device).to(torch.bfloat16)
    packed, state = functional.quantize_4bit(weight, blocksize=_NF4_BLOCK, quant_type="nf4")
    seconds = seconds_of(lambda: functional.dequantize_4bit(packed, state), bench.device)
    num_bytes = packed.numel() * packed.element_size() + 2 * weight.numel()
    rate = num_bytes / seconds
    bench.say(f"NF4 to bfloat16: {rate / 1e9:,.0f} GB/s read and written")
    return {"edge": edge, "seconds": seconds, "num_bytes": num_bytes, "bytes_per_second": rate}


def _host_copy(bench: Bench, way: str, num_bytes: int) -> Mapping[str, Any]:
    import torch

    is_pinned = bench.device == "cuda"
    host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_pinned).random_(0, 255)
    there = host.to(bench.device, copy=True)
    source, target = (host, there) if way == "to the device" else (there, host)
    seconds = seconds_of(lambda: target.copy_(source, non_blocking=True), bench.device)
    rate = num_bytes / seconds
    bench.say(f"copy of pinned memory {way}: {rate / 1e9:,.1f} GB/s")
    return {"way": way, "num_bytes": num_bytes, "seconds": seconds, "bytes_per_second": rate}
