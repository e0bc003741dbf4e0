"""edges: memory that runs out in the middle of a run, a budget, and a neighbour on the card."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_stages import small_run
from gpu_stages.bench import Bench, clear
from gpu_stages.trials import attempted
from peftkit.system.units import MIB, gibibytes

if TYPE_CHECKING:
    from gpu_stages.bench import Setting

SHARE = 8
NUM_STEPS, PINCH_AFTER, SAVED_EVERY = 120, 12, 10
DRY_STEPS, DRY_PINCH_AFTER, DRY_SAVED_EVERY = 6, 2, 2
_FEWER = ("method.sft.per_device_train_batch_size=4",)
"""In a dry run; its logits are still too large for what the heap has free."""
_LEFT_FREE = 256 * MIB
"""What a neighbour leaves on the card; the small run is planned to take more."""
_HOLD = """
import sys, torch
left, device = int(sys.argv[1]), sys.argv[2]
num_bytes = torch.cuda.mem_get_info()[0] - left if device == "cuda" else left
held = torch.empty(max(1, num_bytes), dtype=torch.uint8, device=device).fill_(1)
print("held", num_bytes, flush=True)
sys.stdin.read()
"""


def requests(_setting: Setting) -> list[Any]:
    """Ask for no plan."""
    return []


def run(bench: Bench) -> None:
    """Try each edge by itself."""
    for name, edge in (
        ("budget", _budget), ("out of memory", _exhausted), ("neighbour", _neighbour)
    ):  # fmt: skip
        attempted(bench, name, partial(edge, bench))


def _budget(bench: Bench) -> None:
    """Refuse a run above its budget, before a weight is read."""
    out = bench.folder / "budget"
    shorter = small_run.SHORTER if bench.is_dry else ()
    ended = small_run.run_to_end(out, ("memory.budget=64 MiB", *shorter), num_steps=2)
    _keep(bench, "budget", ended, wanted=5, has_weights=ended.run_dir.checkpoints.exists())


def _exhausted(bench: Bench) -> None:
    """Take the memory away in the middle of a run, then give it back and go on."""
    clear(bench.device)
    out = bench.folder / "exhausted"
    steps, after, every = NUM_STEPS, PINCH_AFTER, SAVED_EVERY
    if bench.is_dry:
        steps, after, every = DRY_STEPS, DRY_PINCH_AFTER, DRY_SAVED_EVERY
    options: tuple[str, ...] = (f"method.sft.save_steps={every}", "method.sft.save_total_limit=2")
    options += _FEWER if bench.is_dry else ()
    with pinched_after(out / "metrics.jsonl", after, bench.device):
        ended = small_run.run_to_end(out, options, num_steps=steps)
    kept = sorted(folder.name for folder in ended.run_dir.checkpoints.glob("step-*"))
    _keep(bench, "out_of_memory", ended, wanted=5, kept_checkpoints=kept)
    clear(bench.device)
    again = small_run.run_to_end(out, options, num_steps=steps)
    resumed = [line.strip() for line in again.printed.splitlines() if "resuming at" in line]
    _keep(bench, "resumed_after_it", again, wanted=0, said=resumed)


def _neighbour(bench: Bench) -> None:
    """Let another process hold the card: what is free is said, and a run is refused for it."""
    from peftkit.system.machine import describe_machine

    clear(bench.device)
    is_cuda = bench.device == "cuda"
    with neighbour(_LEFT_FREE if is_cuda else MIB, bench.device) as taken:
        free = describe_machine().free_bytes
        shorter = small_run.SHORTER if bench.is_dry else ()
        ended = small_run.run_to_end(bench.folder / "neighbour", shorter, num_steps=2)
    _keep(bench, "neighbour", ended, wanted=5 if is_cuda else 0, held_bytes=taken, free_bytes=free)
    bench.say(f"  the neighbour held {gibibytes(taken)}; {gibibytes(free)} were free")


def _keep(bench: Bench, key: str, ended: small_run.Ended, *, wanted: int, **more: Any) -> None:
    is_right = ended.exit_code == wanted
    bench.keep(
        key,
        {"exit_code": ended.exit_code, "wanted": wanted, "is_right": is_right,
         "message": ended.message, **more},
    )  # fmt: skip
    shown = f": {ended.message}" if ended.message else ""
    bench.say(f"{key}: exit code {ended.exit_code}, {wanted} wanted{shown}")


@contextmanager
def pinched_after(metrics: Path, step: int, device: str) -> Iterator[None]:
    """Take away what a run has not allocated yet, once its metrics show a step; give it back.

    On a card the allocator's share is cut to what tensors hold, and its free blocks are returned;
    on a CPU the address space is.
    """
    over = threading.Event()
    give_back: list[Callable[[], None]] = []

    def watch() -> None:
        while not over.wait(0.02):
            if _last_step(metrics) >= step:
                give_back.append(_pinch_card() if device == "cuda" else _pinch_process())
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        for undo in give_back:
            undo()


def _pinch_card() -> Callable[[], None]:
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_allocated() / total)
    torch.cuda.empty_cache()
    return partial(torch.cuda.set_per_process_memory_fraction, 1.0)


def _pinch_process() -> Callable[[], None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now, before[1]))
    return partial(resource.setrlimit, resource.RLIMIT_AS, before)


def _last_step(metrics: Path) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(json.loads(metrics.read_text("utf-8").splitlines()[-1])["step"])
    return 0


@contextmanager
def neighbour(num_bytes: int, device: str) -> Iterator[int]:
    """Let another process hold a card but for these bytes, or these bytes of the host.

    Returns: the bytes that it holds.
    Raises:
        RuntimeError: it could not take them.
    """
    command: Sequence[str] = [sys.executable, "-c", _HOLD, str(num_bytes), device]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            said = other.stdout.readline().split() if other.stdout else []
            if said[:1] != ["held"]:
                raise RuntimeError(f"another process could not leave {gibibytes(num_bytes)} free")
            yield int(said[1])
        finally:
            other.communicate()  # its end of input, at which it ends
