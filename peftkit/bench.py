"""Run a grid of benchmarks, each cell in a process of its own, one JSON a cell."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.benching.cell import KINDS
from peftkit.benching.grid import Cell, cells, read_grid
from peftkit.errors import UsageError
from peftkit.rundir.paths import write_json
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from rich.table import Table

_LAST_LINES = 5


@dataclass(frozen=True)
class Result:
    """Hold one cell's result and where it was written."""

    file: Path
    content: dict[str, Any]

    @property
    def predicted_bytes(self) -> int | None:
        """Return the planned peak."""
        predicted = self.content.get("predicted")
        return None if predicted is None else int(predicted["peak_bytes"])


def bench(kind: str, file: str | Path, *, out: str | Path) -> Iterator[Result]:
    """Run a grid's cells one after the other, giving each result as it is written.

    A cell that runs out of memory, or that no device here can hold, is a result like any other.

    Args:
        kind: `memory` or `speed`.
        file: the grid.
        out: folder of the results; a result of an earlier run is replaced.

    Raises:
        UsageError: there is no such benchmark.
        RecipeError: the grid has problems.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no benchmark {kind!r}", hint=f"one of {', '.join(KINDS)}")
    file, out = Path(file), Path(out)
    grid = read_grid(file)
    out.mkdir(parents=True, exist_ok=True)
    return (_run(kind, cell, out) for cell in cells(grid, file.stem))


def render_results(results: Sequence[Result]) -> Table:
    """Lay results out as a table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", overflow="fold")
    for column in ("predicted", "measured", "error", "tokens/s", "fitted"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(result.content["name"], *_numbers(result))
    return table


def _run(kind: str, cell: Cell, out: Path) -> Result:
    file = out / f"{kind}_{cell.name}.json"
    file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cell_file = Path(folder) / "cell.json"
        cell_file.write_text(json.dumps(cell.to_json()), encoding="utf-8")
        command = [sys.executable, "-m", "peftkit.benching.cell", str(cell_file), str(file), kind]
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            command, capture_output=True, text=True, check=False
        )
    if not file.exists():
        write_json(file, _broken(kind, cell, done))
    return Result(file, json.loads(file.read_text(encoding="utf-8")))


def _broken(kind: str, cell: Cell, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Describe a cell whose process ended without a result."""
    is_killed = done.returncode == -signal.SIGKILL
    # The error alone: the frames above it name places of this machine, and results are published.
    lines = reversed(done.stderr.strip().splitlines())
    error = takewhile(lambda line: not line.startswith(("    ", "  File ", "Traceback")), lines)
    last = "\n".join(reversed(list(islice(error, _LAST_LINES))))
    return {
        "kind": kind,
        "grid": cell.grid,
        "name": cell.name,
        "cell": cell.to_json(),
        "basis": "measured" if is_killed else "broken",
        "predicted": None,
        "measured": None,
        "fitted": False if is_killed else None,
        "reason": "the kernel killed it: the machine's memory ran out" if is_killed else last,
    }


def _numbers(result: Result) -> tuple[str, str, str, str, str]:
    content, measured = result.content, result.content.get("measured")
    predicted_bytes = result.predicted_bytes
    error = error_of(content)
    fitted = {True: "yes", False: "no", None: content["basis"]}[content["fitted"]]
    return (
        "-" if predicted_bytes is None else gibibytes(predicted_bytes),
        "-" if measured is None else gibibytes(measured["peak_bytes"]),
        "-" if error is None else f"{error:+.1%}",
        "-" if measured is None else f"{measured['tokens_per_second']:,.0f}",
        fitted,
    )


def error_of(content: dict[str, Any]) -> float | None:
    """Return by how much a cell's planned peak misses the measured one; None where it was not run.

    On a device both are what torch's allocator held; on a CPU the resident memory of Python and
    the stack, which is there before the model, is taken off both.
    """
    predicted, measured = content.get("predicted"), content.get("measured")
    if predicted is None or measured is None:
        return None
    real = measured["peak_bytes"] - measured["baseline_bytes"]
    return float(metered_bytes(predicted) / real - 1)


def metered_bytes(predicted: Mapping[str, Any]) -> int:
    """Return of a planned peak what a meter sees that begins at the model.

    On a device that is all but the context: cuBLAS's workspaces lie in torch's allocator. On a CPU
    it is all but what the process held before.
    """
    if predicted.get("device") == "cuda":
        from peftkit.memory.runtime import CONTEXT_BYTES

        return int(predicted["peak_bytes"]) - CONTEXT_BYTES
    runtime = sum(int(t["num_bytes"]) for t in predicted["terms"] if t["name"] == "runtime")
    return int(predicted["peak_bytes"]) - runtime
