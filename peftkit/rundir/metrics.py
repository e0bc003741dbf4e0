"""metrics.jsonl, one JSON object a logged step: read, cut back to a step, and made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.rundir.paths import write_atomically


def cut_metrics(file: Path, *, step: int) -> None:
    """Drop what was logged after a step, which training will log again."""
    if file.exists():
        _write(file, [line for line in read_metrics(file) if line["step"] <= step])


def restore_metrics(file: Path, history: list[dict[str, Any]]) -> None:
    """Write the losses of a trainer's own history in the place of what was lost.

    Its steps lack the seconds and tokens that nobody else counted.
    """
    kept = [line for line in history if "loss" in line or "eval_loss" in line]
    _write(file, [{"step": line["step"], **line} for line in kept])


def note_kept(file: Path, *, step: int, kept_step: int, best_metric: float | None) -> None:
    """Note which checkpoint a training kept at its end, unless that was noted."""
    lines = read_metrics(file)
    if not any("kept_step" in line for line in lines):
        _write(file, [*lines, {"step": step, "kept_step": kept_step, "best_metric": best_metric}])


def _write(file: Path, lines: list[dict[str, Any]]) -> None:
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the logged lines; a last line cut short by a kill is left out.

    Raises:
        ArtefactError: another line is no JSON, or says nothing of a step.
    """
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ArtefactError(f"{file} cannot be read: {error.strerror}") from None
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                raise ArtefactError(f"{file}:{number} is not JSON") from None
            continue
        if not isinstance(content, dict) or not isinstance(content.get("step"), int):
            raise ArtefactError(f"{file}:{number} is no line of a step")
        found.append(content)
    return found
