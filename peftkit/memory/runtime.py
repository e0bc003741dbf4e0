"""What a device's runtime takes beside all tensors; the terms that no fake run can count.

On CUDA, estimates, each said where it comes from:

- the context with the kernels that are loaded: 0.5 GiB for a driver and torch of today. It lies
  outside of torch's allocator, so `max_memory_allocated` does not hold it, but the card does;
- cuBLAS's workspaces: 8,519,680 bytes a handle, 32 MiB from Hopper on (PyTorch's CUDA semantics,
  "cuBLAS workspaces": `:4096:2:16:8` and `:4096:8`), one handle for the thread that runs forward
  and one for the thread that runs backward.

On a CPU it is measured: what this process holds already, the libraries above all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftkit.plugins import Machine

CONTEXT_BYTES = 512 << 20
WORKSPACE_BYTES = 8_519_680
HOPPER_WORKSPACE_BYTES = 32 << 20
CUDA_BLOCK = 512
"""What CUDA's caching allocator rounds every request up to.
Source: torch, c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize."""

_WITH_LARGE_WORKSPACE = ("H100", "H200", "H20", "H800", "GH200", "B100", "B200", "B300", "GB200")
_NUM_HANDLES = 2


@dataclass(frozen=True)
class Runtime:
    """Say what the runtime of a device takes, and how its allocator rounds."""

    num_bytes: int
    formula: str
    block: int
    context_bytes: int = 0
    """Of `num_bytes`, what no allocator of torch knows of."""
    workspaces: tuple[int, ...] = ()
    """The rest of it, request by request."""

    @property
    def caches(self) -> bool:
        """Tell whether torch's caching allocator stands between tensors and the device."""
        return self.block > 1


def runtime_of(machine: Machine) -> Runtime:
    """Return the runtime's bytes on a machine: estimated on CUDA, measured on a CPU."""
    if machine.device == "cpu":
        import psutil

        resident = int(psutil.Process().memory_info().rss)
        return Runtime(resident, "resident in this process before the model is read", 1)
    is_large = any(name in machine.name for name in _WITH_LARGE_WORKSPACE)
    workspace = HOPPER_WORKSPACE_BYTES if is_large else WORKSPACE_BYTES
    return Runtime(
        CONTEXT_BYTES + _NUM_HANDLES * workspace,
        f"context {CONTEXT_BYTES:,} + {_NUM_HANDLES} cuBLAS workspaces of {workspace:,}",
        CUDA_BLOCK,
        CONTEXT_BYTES,
        (workspace,) * _NUM_HANDLES,
    )
