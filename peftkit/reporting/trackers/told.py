"""What a tracker is told of a finished run, read from the run's own files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.rundir.paths import RunDir
from peftkit.rundir.samples import read_samples

MAX_SAMPLES = 100
MAX_CHARS = 2000
"""Longest text of a table's cell; the rest is in samples.jsonl."""
_COMPARED = ("peak_bytes", "train_seconds", "tokens_per_second", "num_steps", "num_trainable")


@dataclass(frozen=True)
class Told:
    """Hold what a tracker shows beside the curves."""

    numbers: Mapping[str, float]
    """`scores/tuned/rougeL`, `plan/peak_bytes`, `measured/peak_bytes` ..."""
    columns: Sequence[str]
    samples: Sequence[Sequence[str]]
    """Rows of scored samples, a cell for each of the columns."""
    recipe: str
    """The resolved recipe."""
    files: Sequence[Path]
    """Whole files to keep, where a tracker keeps some."""
    step: int


def told_of(run_dir: RunDir) -> Told:
    """Read what is to be told; a file that was not written is left out."""
    scores, plan, measured = (
        run_dir.read_if_there(file) for file in (run_dir.scores, run_dir.plan, run_dir.measured)
    )
    columns, samples = _samples(run_dir)
    resolved = run_dir.resolved
    files = (resolved, run_dir.scores, run_dir.plan, run_dir.measured, run_dir.report)
    return Told(
        numbers={**dict(_scores(scores)), **dict(_plan(plan)), **dict(_measured(measured))},
        columns=columns,
        samples=samples,
        recipe=resolved.read_text(encoding="utf-8") if resolved.exists() else "",
        files=tuple(file for file in files if file.exists()),
        step=int(measured.get("num_steps") or 0),
    )


def as_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table, for a tracker that knows no tables."""

    def line(cells: Sequence[str]) -> str:
        plain = (cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
        return f"| {' | '.join(plain)} |"

    return "\n".join([line(columns), "|---" * len(columns) + "|", *map(line, rows)])


def _scores(scores: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for who in ("base", "tuned"):
        yield from _numbers(f"scores/{who}", scores.get(who) or {})
    for name, found in (scores.get("baselines") or {}).items():
        yield from _numbers(f"scores/{name}", found)


def _plan(plan: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from _numbers("plan", {"peak_bytes": plan.get("peak_bytes")})
    for speed in (plan.get("speeds") or ())[:1]:
        yield from _numbers("plan", {"train_seconds": speed.get("run_seconds")})


def _measured(measured: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from _numbers("measured", {name: measured.get(name) for name in _COMPARED})


def _numbers(prefix: str, found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in found.items():
        if isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}/{name}", float(value)


def _samples(run_dir: RunDir) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    rows = read_samples(run_dir, MAX_SAMPLES)
    columns = [name for name in rows[0] if name != "scores"] if rows else []
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return columns, cells


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ..."
