"""List runs, compare them, and delete one."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.rundir.checkpoints import flatten
from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir, is_locked, locked
from peftkit.rundir.whole import find_log_damage
from peftkit.system.units import duration, gibibytes

if TYPE_CHECKING:
    from rich.console import RenderableType

_WRITTEN = (
    "recipe.yaml",
    "resolved.yaml",
    "base.json",
    "drift.json",
    "versions.json",
    "data.json",
    "plan.json",
    "measured.json",
    "metrics.jsonl",
    "checkpoints",
    "adapter",
    "model",
    "status.json",
    "report.html",
)
_NOT_COMPARED = ("schema_version", "_sha256")
"""Endings of the keys that say nothing of how well a run did."""
_WRITTEN_PREFIXES = ("scores", "samples", ".")


@dataclass(frozen=True)
class RunSummary:
    """Hold one line of the list of runs."""

    name: str
    path: str
    state: str
    """`running`, `finished`, `stopped`, `failed`; `killed`: it ended without a word; `damaged`."""
    step: int
    total_steps: int | None
    metric: str | None
    """The task's headline metric."""
    base: float | None
    tuned: float | None
    num_bytes: int
    modified_seconds: float
    """When its files last changed, in seconds since 1970."""


@dataclass(frozen=True)
class Comparison:
    """Hold several runs side by side; each tuple has one entry a run, in their order."""

    names: tuple[str, ...]
    recipe: dict[str, tuple[Any, ...]]
    """Dotted keys of the resolved recipes that are not the same in all; None where absent."""
    measured: dict[str, tuple[Any, ...]]
    scores: dict[str, tuple[float | None, ...]]
    """Metric -> the tuned models' scores."""
    is_same_data: bool
    """Whether all trained on, and were scored on, the same rows."""


def list_runs(root: str | Path = "runs") -> list[RunSummary]:
    """List the runs in a folder, the newest first."""
    root = Path(root)
    if not root.is_dir():
        return []
    found = [summarize(RunDir(path)) for path in root.iterdir() if is_run(path)]
    return sorted(found, key=lambda run: run.modified_seconds, reverse=True)


def is_run(path: Path) -> bool:
    """Tell whether a path is a run directory, and not a link to one."""
    return path.is_dir() and not path.is_symlink() and RunDir(path).is_begun


def summarize(run_dir: RunDir) -> RunSummary:
    """Read one run's line from its files; `damaged` is one whose files are not what was written."""
    status: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    logged: list[int] = []
    with suppress(ArtefactError):
        status = {"state": "damaged", **run_dir.read_if_there(run_dir.status)}
        logged = [line["step"] for line in read_metrics(run_dir.metrics)]
    try:
        scores = run_dir.read_if_there(run_dir.scores)
    except ArtefactError:
        status = {**status, "state": "damaged"}
    if find_log_damage(run_dir):
        status = {**status, "state": "damaged"}
    metric = scores.get("headline")
    files = [file for file in run_dir.path.rglob("*") if file.is_file()]
    return RunSummary(
        name=run_dir.path.name,
        path=str(run_dir.path),
        state=_state(run_dir, status),
        step=max([status.get("step") or 0, *logged]),
        total_steps=status.get("total_steps"),
        metric=metric,
        base=scores.get("base", {}).get(metric),
        tuned=scores.get("tuned", {}).get(metric),
        num_bytes=sum(file.lstat().st_size for file in files),
        modified_seconds=max((file.lstat().st_mtime for file in files), default=0.0),
    )


def compare_runs(paths: Sequence[str | Path], root: str | Path = "runs") -> Comparison:
    """Compare two or more runs: what their recipes differ in, what they took, what they scored.

    Args:
        paths: their directories, or their names as `list_runs` gives them.
        root: the folder that holds those that are named.

    Raises:
        UsageError: fewer than two, or one is not a run.
    """
    if len(paths) < 2:
        raise UsageError("one run alone cannot be compared", hint="peftkit runs compare RUN RUN")
    runs = [RunDir(_checked(path, root)) for path in paths]
    recipes = [dict(flatten(run.read_resolved())) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = {key: tuple(recipe.get(key) for recipe in recipes) for key in keys}
    scores = [run.read_if_there(run.scores) for run in runs]
    fingerprints = {run.read_if_there(run.data).get("fingerprint") for run in runs}
    splits = {(score.get("split"), score.get("num_rows")) for score in scores if score}
    return Comparison(
        names=tuple(run.path.name for run in runs),
        recipe={key: values for key, values in rows.items() if _differ(values)},
        measured=_side_by_side([run.read_if_there(run.measured) for run in runs]),
        scores=_side_by_side([score.get("tuned", {}) for score in scores]),
        is_same_data=len(fingerprints) == 1 and len(splits) <= 1,
    )


def check_deletable(path: str | Path, root: str | Path = "runs") -> RunSummary:
    """Return what deleting a directory, or a run of that name, would lose.

    Raises:
        UsageError: it is not a run, a link, or holds files that no run writes.
    """
    path = _checked(path, root)
    run_dir = RunDir(path)
    strangers = [
        entry.name
        for entry in sorted(path.iterdir())
        if entry.name not in _WRITTEN and not entry.name.startswith(_WRITTEN_PREFIXES)
    ]
    if strangers:
        raise UsageError(
            f"{path} holds what no run wrote: {', '.join(strangers[:3])}",
            hint="move it elsewhere, or delete the directory yourself",
        )
    return summarize(run_dir)


def delete_run(path: str | Path, root: str | Path = "runs") -> int:
    """Delete a run directory, and return the bytes that frees.

    Raises:
        UsageError: it is not a run, a link, or holds files that no run writes.
        ResourceError: the run is still running.
    """
    found = check_deletable(path, root)
    run_dir = RunDir(Path(found.path))
    with locked(run_dir):
        # The status goes first: a deletion that is cut short must not look like a run.
        run_dir.status.unlink()
        shutil.rmtree(run_dir.path)
    return found.num_bytes


def runs_to_json(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Return the list of runs as plain data."""
    return [dataclasses.asdict(run) for run in runs]


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    return {"schema_version": 1, **dataclasses.asdict(comparison)}


def render_runs(runs: Sequence[RunSummary], *, now: float | None = None) -> RenderableType:
    """Show the list of runs as a table."""
    from rich.table import Table
    from rich.text import Text

    if not runs:
        return Text("no runs here; `peftkit run RECIPE` makes one")
    now = time.time() if now is None else now
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "step", "score", "size", "age"):
        table.add_column(heading, justify="right" if heading in ("size", "age") else "left")
    for run in runs:
        steps = f"{run.step}/{run.total_steps}" if run.total_steps else str(run.step)
        age = duration(max(0.0, now - run.modified_seconds))
        cells = (run.name, run.state, steps, _score(run), gibibytes(run.num_bytes), age)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def render_comparison(comparison: Comparison) -> RenderableType:
    """Show a comparison as one table with a part each for recipe, measurements and scores."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", *comparison.names):
        table.add_column(Text(heading), overflow="fold")
    for part in ("recipe", "measured", "scores"):
        rows: dict[str, tuple[Any, ...]] = getattr(comparison, part)
        if rows:
            table.add_row(Text(part, "bold"))
        for key, values in rows.items():
            cells = (_cell(key, value) for value in values)
            table.add_row(Text(f"  {key}"), *(Text(cell) for cell in cells))
    if comparison.is_same_data:
        return table
    note = "These runs do not share their rows: scores are not comparable."
    return Group(table, Text(note, "yellow"))


def _checked(path: str | Path, root: str | Path) -> Path:
    path, root = Path(path), Path(root)
    if not path.exists() and is_run(root / path):
        return root / path
    if path.is_symlink():
        raise UsageError(f"{path} is a link", hint=f"name what it points to: {path.resolve()}")
    if not is_run(path):
        raise UsageError(f"{path} is not a run directory", hint="`peftkit runs` lists the runs")
    return path


def _state(run_dir: RunDir, status: dict[str, Any]) -> str:
    state = str(status.get("state", "damaged"))
    return "killed" if state == "running" and not is_locked(run_dir) else state


def _side_by_side(found: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    keys = dict.fromkeys(key for one in found for key in one if not key.endswith(_NOT_COMPARED))
    return {key: tuple(one.get(key) for one in found) for key in keys}


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values[1:])


def _score(run: RunSummary) -> str:
    if run.metric is None or run.tuned is None:
        return ""
    base = "" if run.base is None else f" (base {run.base:.3f})"
    return f"{run.metric} {run.tuned:.3f}{base}"


def _cell(key: str, value: Any) -> str:
    """Write a value as its key's unit wants it."""
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return gibibytes(value)
    if key.endswith("_seconds"):
        return duration(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
