"""The allocator's own record of a training: what was alive at the peak, and who had asked for it.

`torch.cuda.memory._snapshot` is what PyTorch's memory viewer reads. It is reduced to its events,
with each stack kept once, and to what holds the peak: a hundredth of its size.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

_MAX_ENTRIES = 400_000
_NUM_FRAMES = 6
"""Innermost frames that tell holders apart."""
_FREED = "free_completed"

MADE_UP: Mapping[str, Any] = {
    "device_traces": [[
        {"action": "segment_alloc", "addr": 0, "size": 4096, "frames": []},
        {"action": "alloc", "addr": 0, "size": 1024, "frames": [
            {"filename": "/x/torch/nn/modules/linear.py", "line": 1, "name": "forward"}]},
        {"action": "alloc", "addr": 1024, "size": 2048, "frames": []},
        {"action": "free_requested", "addr": 1024, "size": 2048, "frames": []},
        {"action": "free_completed", "addr": 1024, "size": 2048, "frames": []},
        {"action": "alloc", "addr": 1024, "size": 512, "frames": []},
    ]]
}  # fmt: skip
"""What a dry run reads, in the form that torch gives on a card."""


class Recorded:
    """Hold the snapshot that `recording` takes when its block ends."""

    snapshot: Mapping[str, Any] | None = None


@contextmanager
def recording(device: str) -> Iterator[Recorded]:
    """Record every allocation of a block with the Python lines that asked for it."""
    found = Recorded()
    if device != "cuda":
        yield found
        found.snapshot = MADE_UP
        return
    import torch

    # C++ frames would name backward's operators, and take minutes to be looked up.
    torch.cuda.memory._record_memory_history(
        enabled="all", context="alloc", stacks="python", max_entries=_MAX_ENTRIES
    )
    try:
        yield found
    finally:
        found.snapshot = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(enabled=None)


def reduce_snapshot(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first device's events, `[is allocation, address, bytes, stack]`, and stacks."""
    stacks: dict[tuple[str, ...], int] = {}
    events = []
    for entry in snapshot["device_traces"][0]:
        if entry["action"] in ("alloc", _FREED):
            stack = tuple(map(_frame, entry.get("frames") or ()))
            number = stacks.setdefault(stack, len(stacks))
            events.append([int(entry["action"] == "alloc"), entry["addr"], entry["size"], number])
    return {"stacks": [list(stack) for stack in stacks], "events": events}


def holders_at_peak(reduced: Mapping[str, Any], *, most: int = 40) -> dict[str, Any]:
    """Replay the events; return what was alive when most was, by who had asked for it.

    What backward asks for has no Python line; it is told apart by its size.
    """
    peak_at = _peak_at(reduced["events"])
    alive = _alive_after(reduced["events"], peak_at)
    sizes: Counter[tuple[str, ...]] = Counter()
    counts: Counter[tuple[str, ...]] = Counter()
    for num_bytes, stack in alive.values():
        asked = tuple(reduced["stacks"][stack][:_NUM_FRAMES])
        key = asked or (f"without a Python line, {num_bytes:,} bytes",)
        sizes[key] += num_bytes
        counts[key] += 1
    return {
        "peak_bytes": sum(sizes.values()),
        "num_blocks": len(alive),
        "holders": [
            {"num_bytes": num_bytes, "num_blocks": counts[key], "asked_by": list(key)}
            for key, num_bytes in sizes.most_common(most)
        ],
    }


def keep_snapshot(file: Path, name: str, reduced: Mapping[str, Any]) -> None:
    """Put a reduced snapshot into a zip."""
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.json", json.dumps(reduced, separators=(",", ":")))


def _peak_at(events: Sequence[Sequence[int]]) -> int:
    held, highest, at = 0, 0, 0
    sizes: dict[int, int] = {}
    for number, (is_allocation, address, num_bytes, _stack) in enumerate(events):
        if is_allocation:
            sizes[address] = num_bytes
            held += num_bytes
        else:
            held -= sizes.pop(address, 0)  # of a block that is older than the record
        if held > highest:
            highest, at = held, number
    return at


def _alive_after(events: Sequence[Sequence[int]], last: int) -> dict[int, tuple[int, int]]:
    alive: dict[int, tuple[int, int]] = {}
    for is_allocation, address, num_bytes, stack in events[: last + 1]:
        if is_allocation:
            alive[address] = (num_bytes, stack)
        else:
            alive.pop(address, None)
    return alive


def _frame(frame: Mapping[str, Any]) -> str:
    """Name a frame by the last two parts of its path: where a machine keeps them is its own."""
    place = "/".join(PurePath(str(frame["filename"])).parts[-2:])
    return f"{place}:{frame['line']} {frame['name']}"
