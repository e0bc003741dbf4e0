"""What a stage is given: the device, its time, and the file that its numbers go into."""

from __future__ import annotations

import dataclasses
import gc
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from peftkit.plugins import Machine


@dataclasses.dataclass(frozen=True)
class Setting:
    """Say what all stages share, before any has begun."""

    machine: Machine
    out: Path
    """Folder of the results, one JSON a stage."""
    work: Path
    """Folder for everything else: plans, runs, models."""
    is_dry: bool = False
    """Tiny models on the CPU: every branch, no number of worth."""
    driver: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return {**dataclasses.asdict(self), "out": str(self.out), "work": str(self.work)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Setting:
        """Undo `to_json`."""
        paths = {name: Path(content[name]) for name in ("out", "work")}
        return cls(**{**content, **paths, "machine": Machine(**content["machine"])})

    @property
    def device(self) -> str:
        """Return `cuda`, or `cpu` in a dry run."""
        return self.machine.device


class Bench:
    """Give a stage its setting and its time, and keep what it finds."""

    def __init__(self, setting: Setting, stage: str, *, seconds: float) -> None:
        """Begin a stage that has so many seconds; what an earlier one of its name found is gone."""
        self.setting, self.stage = setting, stage
        self.machine, self.device, self.is_dry = setting.machine, setting.device, setting.is_dry
        self._began, self._seconds = time.monotonic(), seconds
        self.file = result_file(setting, stage)
        self.folder = setting.work / stage
        self.folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"stage": stage, **describe(setting), "state": "running"}
        self._write()

    def left(self) -> float:
        """Return the seconds that are left to this stage."""
        return self._seconds - (time.monotonic() - self._began)

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"  {text}", flush=True)

    def keep(self, key: str, value: Any) -> None:
        """Put a finding into the stage's file, now."""
        self.content[key] = value
        self._write()

    def add(self, key: str, value: Any) -> None:
        """Put one more into a list of findings, now."""
        self.content.setdefault(key, []).append(value)
        self._write()

    def finish(self, state: str, reason: str | None = None) -> None:
        """Say how the stage ended: `done`, or `failed` with the reason."""
        self.content |= {"state": state, "reason": reason}
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(time.monotonic() - self._began, 1)
        write(self.file, self.content)


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON so that a kill leaves the old one or the new one, and nothing between."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def result_file(setting: Setting, stage: str) -> Path:
    """Return the file of a stage's findings."""
    return setting.out / f"{stage}.json"


def found_by(setting: Setting, stage: str) -> dict[str, Any]:
    """Return what a stage has kept so far; nothing where it has not run."""
    with suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads(result_file(setting, stage).read_text("utf-8"))
        return content
    return {}


def describe(setting: Setting) -> dict[str, Any]:
    """Say on what and when: device, driver, versions, date."""
    from peftkit.models.versions import stack_versions

    machine = setting.machine
    return {
        "is_dry": setting.is_dry,
        "device": {
            "name": machine.name,
            "type": machine.device,
            "total_bytes": machine.total_bytes,
            "free_bytes": machine.free_bytes,
            "driver": setting.driver,
        },
        "versions": stack_versions(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def seconds_of(run: Callable[[], object], device: str, *, repeats: int = 10) -> float:
    """Return the median time of a piece of work, after two that warm up."""
    import statistics

    import torch

    run()
    run()
    if device != "cuda":
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)
    event = partial(torch.cuda.Event, enable_timing=True)
    marks = [(event(), event()) for _ in range(repeats)]
    torch.cuda.synchronize()
    for start, end in marks:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    took = [float(start.elapsed_time(end)) for start, end in marks]
    return statistics.median(took) / 1000


def clear(device: str) -> int:
    """Give back what nobody holds; return the bytes that tensors still take.

    cuBLAS's workspaces lie in torch's allocator and outlive every model: they are dropped too, so
    that each measurement begins at nothing and makes its own.
    """
    gc.collect()
    if device != "cuda":
        return 0
    import torch

    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.memory_allocated())


def is_exhaustion(error: BaseException) -> bool:
    """Tell memory that ran out from a bug, on either kind of device."""
    signs = ("out of memory", "allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


@contextmanager
def capped(device: str, total_bytes: int | None) -> Iterator[None]:
    """Let torch take what a card of a size would have, its context apart; None: all there is.

    Whatever the card's other bytes are, context and neighbours, they are not this card's: only the
    context's share is taken off the size.
    """
    if device != "cuda" or total_bytes is None:
        yield
        return
    import torch

    from peftkit.memory.runtime import CONTEXT_BYTES

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, max(0.0, (total_bytes - CONTEXT_BYTES) / total))
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
