"""What is known about devices: their memory as the driver reports it, and their speed."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins import Machine
from peftkit.system.units import GIB

DEFAULT_SIZES = (8, 12, 16, 24, 40, 48, 80, 141)
"""GiB that a plan is shown for when nothing is asked."""

TYPICAL = ("4060", "3060", "4080", "4090", "5090", "a100-40", "l40s", "h100", "h200", "b200")
"""Cards that stand for a mere size when times are compared."""

_MAKERS = ("nvidia", "geforce", "tesla", "amd", "instinct")
_DTYPES = ("bfloat16", "float16", "tf32", "float32")


@dataclass(frozen=True)
class Device:
    """Describe a device, or a mere size: then the rates are None and no time is predicted."""

    name: str
    total_bytes: int
    """As the driver reports it."""
    bfloat16_flops: float | None = None
    """FLOP/s of dense matrix products, as published; None where the arithmetic is missing."""
    float16_flops: float | None = None
    tf32_flops: float | None = None
    float32_flops: float | None = None
    bandwidth: float | None = None
    """Bytes per second of the device's own memory."""
    pcie_bandwidth: float | None = None
    """Bytes per second to the host, one way."""
    source: str = ""
    """Where the rates are published, or were measured."""
    is_measured: bool = False
    """Whether they are what the device was seen to achieve, and not its published peaks."""

    @property
    def has_rates(self) -> bool:
        """Tell whether time can be predicted."""
        return self.float32_flops is not None and self.bandwidth is not None

    def as_machine(self) -> Machine:
        """Return what a recipe's decisions would see on a machine with this device, all free."""
        # A mere size is taken for a card of today; every one since Ampere has bfloat16.
        has_bfloat16 = self.bfloat16_flops is not None or not self.has_rates
        return Machine("cuda", has_bfloat16, self.total_bytes, self.total_bytes, self.name)

    def peak_flops(self, dtype: str) -> float | None:
        """Return the peak of matrix products in a dtype: `bfloat16`, `float16`, `tf32`, `float32`.

        Where the arithmetic is missing the product runs in float32.
        """
        if dtype not in _DTYPES:
            raise ValueError(f"{dtype!r} is not one of {_DTYPES}")
        peak: float | None = getattr(self, f"{dtype}_flops")
        return peak if peak is not None else self.float32_flops


def known() -> tuple[Device, ...]:
    """List every known device."""
    return tuple(device for device, _ in _table())


def find(name: str) -> Device:
    """Find a device by the driver's name or a short one: `NVIDIA A100-SXM4-80GB`, `a100-80`.

    Raises:
        UsageError: it is not known; asks for its memory.
    """
    wanted = _plain(name)
    for device, keys in _table():
        if wanted in keys:
            return device
    every = {key: device.name for device, keys in _table() for key in keys}
    close = difflib.get_close_matches(wanted, list(every), n=1)
    hint = "give its memory in GiB, as the driver reports it, e.g. 24"
    raise UsageError(
        f"no device called {name!r} is known",
        hint=f"did you mean {every[close[0]]!r}? otherwise {hint}" if close else hint,
    )


def of_size(gib: float) -> Device:
    """Stand for any device of this memory, in GiB as the driver reports it.

    Raises:
        UsageError: that is no size.
    """
    if not (math.isfinite(gib) and gib > 0):
        raise UsageError(f"{gib:g} GiB is no size of a device", hint="e.g. --gpus 8,16,24")
    return Device(f"{gib:g} GiB", round(gib * GIB))


def parse(text: str) -> tuple[Device, ...]:
    """Read `--gpus`: sizes in GiB and names, separated by commas: `8,16,a100-80`.

    Raises:
        UsageError: an item is neither; names all that are wrong.
    """
    found: list[Device] = []
    problems: list[UsageError] = []
    for item in (part.strip() for part in text.split(",")):
        try:
            found.append(_parse_one(item))
        except UsageError as error:
            problems.append(error)
    if problems:
        raise UsageError("; ".join(e.message for e in problems), hint=problems[0].hint)
    return tuple(found)


def present(name: str, total_bytes: int) -> Device:
    """Describe the device at hand: its own memory, and its rates where its name is known.

    Args:
        name: as the driver reports it; memory that is a slice of a card (MIG) says so here and
            is then not known, because its rates are a slice too.
    """
    wanted = _plain(name)
    for device, keys in _table():
        if wanted in keys:
            return dataclasses.replace(device, total_bytes=total_bytes)
    return Device(name, total_bytes)


def with_rates(device: Device) -> Device:
    """Return the device, or a known card of about its size where only the size is known."""
    if device.has_rates:
        return device
    typical = (find(name) for name in TYPICAL)
    return min(typical, key=lambda known: abs(math.log(known.total_bytes / device.total_bytes)))


def defaults() -> tuple[Device, ...]:
    """Return the sizes that a plan is shown for when nothing is asked."""
    return tuple(of_size(gib) for gib in DEFAULT_SIZES)


def _parse_one(item: str) -> Device:
    if not item:
        raise UsageError("--gpus has an empty item", hint="e.g. --gpus 8,16,24")
    try:
        size = float(item)
    except ValueError:
        return find(item)
    is_name = any(_plain(item) in keys for _, keys in _table())  # 4090 is a card, not 4 TiB
    return find(item) if is_name else of_size(size)


def _plain(name: str) -> str:
    """Reduce a name to what tells devices apart: `NVIDIA GeForce RTX 4090` -> `rtx4090`."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    return "".join(word for word in words if word not in _MAKERS).removesuffix("gb")


@cache
def _table() -> Sequence[tuple[Device, frozenset[str]]]:
    text = files(__package__).joinpath("devices.json").read_text(encoding="utf-8")
    return tuple(_read(entry) for entry in json.loads(text)["devices"])


def _read(entry: dict[str, Any]) -> tuple[Device, frozenset[str]]:
    """Describe an entry's device, by the rates that were measured on it where some were."""
    rates = entry.get("measured", entry)
    device = Device(
        name=entry["name"],
        total_bytes=round(entry["total_gib"] * GIB),
        bfloat16_flops=_tera(rates["bf16_tflops"]),
        float16_flops=_tera(rates["fp16_tflops"]),
        tf32_flops=_tera(rates["tf32_tflops"]),
        float32_flops=_tera(rates["fp32_tflops"]),
        bandwidth=rates["bandwidth_gb_per_s"] * 1e9,
        pcie_bandwidth=rates["pcie_gb_per_s"] * 1e9,
        source=rates["source"],
        is_measured="measured" in entry,
    )
    return device, frozenset(_plain(key) for key in (entry["name"], *entry["aliases"]))


def _tera(value: float | None) -> float | None:
    return None if value is None else value * 1e12
