"""Run one cell of a grid in this process: plan it, then really train it where that can be.

`python -m peftkit.benching.cell CELL RESULT`: a process a cell, so that none inherits another's
memory, and running out of it is a result.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.benching.grid import Cell
from peftkit.benching.trial import run_trial
from peftkit.errors import PeftkitError
from peftkit.memory.settings import matrix_dtype
from peftkit.models.versions import stack_versions
from peftkit.planning import devices
from peftkit.planning.host_rates import measure_host
from peftkit.planning.roofline import predict
from peftkit.rundir.paths import write_json
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from peftkit.memory.planner import Plan
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

KINDS = ("memory", "speed")
_SPARE = 0.9
"""Share of the free host memory that a cell may be planned to take; the rest is for the system."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Say where a cell runs."""

    machine: Machine
    is_here: bool
    """Whether this machine has it; otherwise a cell is planned and not run."""
    context_bytes: int = 0
    """What the device's context takes, which no allocator sees."""


def run_cell(cell: Cell, kind: str) -> dict[str, Any]:
    """Plan a cell and, where its device is here, train it.

    Args:
        kind: `memory`, where freed blocks are given back at once, or `speed`, where they are kept.

    Returns:
        the content of its JSON.
    """
    place = find_place(cell.gpu_gib)
    with tempfile.TemporaryDirectory() as name:
        recipe = _write_recipe(cell, Path(name))
        if cell.edge is not None:
            cell = _at_edge(cell, recipe, place.machine)
            recipe = _write_recipe(cell, Path(name))
        result = {**_describe(cell, kind, place), **_predict(cell, recipe, place)}
        obstacle = _obstacle(result, place)
        if obstacle is None:
            return {**result, **_measure(cell, kind, recipe, place, Path(name))}
    return {**result, "basis": "predicted", "fitted": None, "measured": None, "reason": obstacle}


def find_place(gpu_gib: float | None) -> Place:
    """Find the device of a cell: the one here, a part of it, or one that is only planned for."""
    from peftkit.system.machine import describe_machine

    machine = describe_machine()
    if gpu_gib is None:
        return Place(machine, is_here=True)
    wanted = devices.of_size(gpu_gib)
    if machine.device != "cuda" or machine.total_bytes < wanted.total_bytes:
        return Place(wanted.as_machine(), is_here=False)
    context = _cap(wanted.total_bytes)
    capped = dataclasses.replace(
        machine, total_bytes=wanted.total_bytes, free_bytes=wanted.total_bytes - context
    )
    return Place(capped, is_here=True, context_bytes=context)


def _cap(total_bytes: int) -> int:
    """Let torch's allocator have a size less the context; return the context's bytes.

    The allocator does not see the context, so a fraction of the whole card would leave it out.
    """
    import torch

    torch.ones(1, device="cuda")
    free, total = torch.cuda.mem_get_info()
    context: int = total - free - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(max(0.0, (total_bytes - context) / total))
    return context


def _at_edge(cell: Cell, recipe: Recipe, machine: Machine) -> Cell:
    """Return the cell at its share of the longest length that is planned to fit."""
    from peftkit.memory.planner import plan

    made = plan(recipe, lengths=[cell.length] * cell.micro_batch, machine=machine)
    longest = made.longest_length(machine.total_bytes, micro_batch=cell.micro_batch)
    return dataclasses.replace(cell, length=max(1, int(longest * (cell.edge or 1.0))))


def _write_recipe(cell: Cell, folder: Path) -> Recipe:
    from peftkit.recipe.load import load_recipe

    (folder / "config.json").write_text(json.dumps(dict(cell.config)), encoding="utf-8")
    file = folder / "recipe.yaml"
    file.write_text(cell.recipe_text(folder), encoding="utf-8")
    return load_recipe(file)


def _describe(cell: Cell, kind: str, place: Place) -> dict[str, Any]:
    return {
        "kind": kind,
        "grid": cell.grid,
        "name": cell.name,
        "cell": cell.to_json(),
        "device": {
            "name": place.machine.name,
            "type": place.machine.device,
            "total_bytes": place.machine.total_bytes,
            "context_bytes": place.context_bytes,
        },
        "versions": stack_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _predict(cell: Cell, recipe: Recipe, place: Place) -> dict[str, Any]:
    """Plan the cell's step and its time; what cannot be planned says why."""
    from peftkit.memory.planner import plan

    try:
        made = plan(recipe, lengths=[cell.length] * cell.micro_batch, machine=place.machine)
    except PeftkitError as error:
        return {"predicted": None, "unplanned": error.message}
    return {"predicted": {**made.to_json(), "speed": _speed(recipe, made, place)}}


def _speed(recipe: Recipe, made: Plan, place: Place) -> dict[str, Any] | None:
    """Predict the time on the cell's card, or on this CPU from rates measured just now."""
    machine = place.machine
    if machine.device == "cuda":
        device = devices.with_rates(devices.present(machine.name, machine.total_bytes))
    elif machine.device == "cpu":
        device = measure_host(machine.name, machine.total_bytes)
    else:
        return None
    speed = predict(made, device, dtype=matrix_dtype(recipe, machine))
    return None if speed is None else speed.to_json()


def _obstacle(result: dict[str, Any], place: Place) -> str | None:
    """Say why a cell is not run; None where it is."""
    if not place.is_here:
        return f"no device of {gibibytes(place.machine.total_bytes)} here"
    predicted, machine = result["predicted"], place.machine
    if machine.device == "cpu" and predicted is not None:
        needed = predicted["peak_bytes"]
        if needed > machine.free_bytes * _SPARE:
            return f"needs {gibibytes(needed)}, {gibibytes(machine.free_bytes)} are free here"
    return None


def _measure(cell: Cell, kind: str, recipe: Recipe, place: Place, folder: Path) -> dict[str, Any]:
    from peftkit.recipe.build import build
    from peftkit.system.allocator import return_freed_memory

    if place.machine.device == "cpu" and kind == "memory":
        return_freed_memory()
    try:
        trial = run_trial(cell, build(recipe, place.machine), place.machine, folder)
    except (RuntimeError, MemoryError) as error:
        if not _is_exhaustion(error):
            raise
        text = str(error).strip().splitlines()
        reason = text[0] if text else type(error).__name__
        return {"basis": "measured", "fitted": False, "measured": None, "reason": reason}
    return {"basis": "measured", "fitted": True, "measured": trial.to_json(), "reason": None}


def _is_exhaustion(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def main(arguments: list[str]) -> None:
    """Read a cell, run it and write its result."""
    from peftkit.system.allocator import take_large_pages

    file, result, kind = arguments
    if kind == "memory":
        take_large_pages(wanted=False)  # whose bytes need not be those of tensors
    cell = Cell.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
    write_json(Path(result), run_cell(cell, kind))


if __name__ == "__main__":
    main(sys.argv[1:])
