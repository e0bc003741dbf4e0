"""Whether what a run left is still what it wrote, and what of it has to be made again.

What a training came to is described by three files that seal each other: `trained.json` every file
of the weights, `measured.json` that one and the metrics, `scores.json` the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir
from peftkit.system.weight_folders import (
    TRAINED,
    check_trained,
    describe_file,
    find_trained_damage,
)

_TRAINED, _METRICS, _SAMPLES = "trained_sha256", "metrics_sha256", "samples_sha256"


def seals_of_training(run_dir: RunDir) -> dict[str, str]:
    """Return what measured.json says of the weights and the metrics beside it."""
    files = {_TRAINED: run_dir.trained / TRAINED, _METRICS: run_dir.metrics}
    return {key: _sha256(file) for key, file in files.items() if file.is_file()}


def seal_of_samples(samples: Path) -> dict[str, str]:
    """Return what scores.json says of the samples beside it."""
    return {_SAMPLES: _sha256(samples)}


def check_weights(run_dir: RunDir) -> None:
    """Refuse a run without trained weights, or whose weights are not those that it trained.

    Raises:
        ArtefactError: says what is wrong, and what makes it again.
    """
    hint = f"peftkit run {run_dir.path}"
    if not run_dir.trained.is_dir():
        state = _read(run_dir, run_dir.status).get("state")
        raise ArtefactError(
            f"{run_dir.path} holds no trained weights yet (the run is {state or 'unfinished'})",
            hint=hint,
        )
    seal = _text(_read(run_dir, run_dir.measured), _TRAINED)
    again = f"{hint}: its last checkpoint, where it is whole, has them too"
    check_trained(run_dir.trained, seal=seal, hint=again)


def find_training_damage(run_dir: RunDir) -> str | None:
    """Say what is missing or damaged of what a training left; None where all is whole."""
    if problem := _find_fault(run_dir, run_dir.measured):
        return problem
    measured = _read(run_dir, run_dir.measured)
    problem = find_trained_damage(run_dir.trained, _text(measured, _TRAINED))
    if problem:
        return f"{run_dir.trained.name} {problem}"
    return _differs(run_dir.metrics, _text(measured, _METRICS))


def find_metrics_damage(run_dir: RunDir) -> str | None:
    """Say what is wrong with metrics.jsonl; None where it is what was written, or may be."""
    name = run_dir.metrics.name
    if not run_dir.metrics.is_file():
        return f"{name} is missing"
    try:
        if not read_metrics(run_dir.metrics):
            return f"{name} is empty"
    except ArtefactError:
        return f"{name} is damaged"
    return _differs(run_dir.metrics, _text(_read(run_dir, run_dir.measured), _METRICS))


def find_score_damage(run_dir: RunDir) -> str | None:
    """Say what is missing or damaged of a run's own scores; None where all is whole."""
    if problem := _find_fault(run_dir, run_dir.scores):
        return problem
    return _differs(run_dir.samples, _text(_read(run_dir, run_dir.scores), _SAMPLES))


def find_log_damage(run_dir: RunDir) -> str | None:
    """Say what is wrong with the metrics of a training that is over, or with scored samples."""
    seals = {run_dir.samples: _text(_read(run_dir, run_dir.scores), _SAMPLES)}
    if run_dir.trained.is_dir():  # one that goes on has metrics that nothing has sealed yet
        seals[run_dir.metrics] = _text(_read(run_dir, run_dir.measured), _METRICS)
    return next(filter(None, (_differs(file, seal) for file, seal in seals.items())), None)


def check_logs(run_dir: RunDir) -> None:
    """Refuse metrics and samples that are not what a training and its evaluation wrote.

    Raises:
        ArtefactError: names the file, and what makes it again.
    """
    problem = find_log_damage(run_dir)
    if problem:
        raise ArtefactError(f"{run_dir.path}: {problem}", hint=f"peftkit run {run_dir.path}")


def find_lost(run_dir: RunDir, *, is_scored: bool) -> Iterator[str]:
    """Say of everything that a finished run should have what is missing or damaged.

    Args:
        is_scored: whether its recipe asks for scores.
    """
    found = [find_training_damage(run_dir), find_score_damage(run_dir) if is_scored else None]
    found += [_find_fault(run_dir, file) for file in (run_dir.versions, run_dir.data)]
    yield from filter(None, found)
    if is_damaged(run_dir, run_dir.plan):
        yield f"{run_dir.plan.name} is damaged"
    try:
        if not run_dir.read_resolved():
            yield f"{run_dir.resolved.name} is missing"
    except ArtefactError:
        yield f"{run_dir.resolved.name} is damaged"
    if not _has(run_dir.recipe):
        yield f"{run_dir.recipe.name} is missing"
    if not _has(run_dir.trained / "README.md"):
        yield f"{run_dir.trained.name}/README.md is missing"
    if not _has(run_dir.report):
        yield f"{run_dir.report.name} is missing"


def is_damaged(run_dir: RunDir, file: Path) -> bool:
    """Tell whether one of a run's JSON files is there and not what was written."""
    try:
        run_dir.read_if_there(file)
    except ArtefactError:
        return True
    return False


def _find_fault(run_dir: RunDir, file: Path) -> str | None:
    """Say whether one of a run's JSON files is missing, or not what was written."""
    if not file.is_file():
        return f"{file.name} is missing"
    return f"{file.name} is damaged" if is_damaged(run_dir, file) else None


def _has(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and file.stat().st_size > 0


def _differs(file: Path, sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    if not file.is_file():
        return f"{file.name} is missing"
    return None if _sha256(file) == sha256 else f"{file.name} is damaged"


def _read(run_dir: RunDir, file: Path) -> Mapping[str, Any]:
    """Read one of a run's files; empty where it is missing or damaged."""
    try:
        return run_dir.read_if_there(file)
    except ArtefactError:
        return {}


def _text(content: Mapping[str, Any], key: str) -> str | None:
    found = content.get(key)
    return found if isinstance(found, str) else None


def _sha256(file: Path) -> str:
    return str(describe_file(file)["sha256"])
