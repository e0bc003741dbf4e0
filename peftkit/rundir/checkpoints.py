"""Complete checkpoints, which of them a run resumes from, and whether it is the same run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, PeftkitError, first_line
from peftkit.rundir.paths import write_json
from peftkit.system.checkpoint_files import follow_umask, read_json
from peftkit.system.exhaustion import is_exhaustion
from peftkit.system.weight_folders import describe_file, find_difference, list_files

MANIFEST = "manifest.json"
_DONE = "step-"
_NATIVE = "checkpoint-"
"""transformers' prefix: a folder of that name is one that was never sealed."""
_STATE = "trainer_state.json"
_NOT_KEPT = ("training_args.bin", "README.md")
"""A pickle that nothing needs, and a model card of no model."""


class UnloadableError(ArtefactError):
    """Raised when a checkpoint is whole, and its reader fails all the same; take an older one."""


@dataclass(frozen=True)
class Checkpoint:
    """Name a complete checkpoint."""

    path: Path
    step: int


def seal(folder: Path, *, step: int, identity: str, told: str | None = None) -> Checkpoint:
    """Turn what transformers wrote into a complete checkpoint `step-N`: manifest last, then rename.

    Args:
        folder: `checkpoints/checkpoint-N`.
        identity: of the run, so that a checkpoint copied from another one is never resumed.
        told: of the recipe and rows that trained it, where they were allowed to change.
    """
    for name in _NOT_KEPT:
        (folder / name).unlink(missing_ok=True)
    files = {}
    for file in list_files(folder):
        follow_umask(file)
        sync(file)
        files[file.relative_to(folder).as_posix()] = describe_file(file)
    changed = {"told": told} if told and told != identity else {}
    write_json(folder / MANIFEST, {"identity": identity, **changed, "step": step, "files": files})
    sync(folder)
    sealed = sealed_folder(folder.parent, step)
    if sealed.exists():
        shutil.rmtree(sealed)
    folder.rename(sealed)
    sync(sealed.parent)
    return Checkpoint(sealed, step)


def unsealed_folder(checkpoints: Path, step: int) -> Path:
    """Return where transformers writes a step's checkpoint."""
    return checkpoints / f"{_NATIVE}{step}"


def sealed_folder(checkpoints: Path, step: int) -> Path:
    """Return where a step's checkpoint stays."""
    return checkpoints / f"{_DONE}{step}"


def find_checkpoint(
    checkpoints: Path, *, identity: str, below: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that is whole.

    Args:
        below: only earlier ones, since that step's could not be loaded.

    Returns: it, or None; and a line for each newer one that was passed over, saying why.
    """
    notes = [
        f"ignored {folder.name}: the run ended while it was written"
        for folder in sorted(checkpoints.glob(f"{_NATIVE}*"))
    ]
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        if below is not None and checkpoint.step >= below:
            continue
        problem = find_damage(checkpoint.path, identity=identity)
        if problem is None:
            return checkpoint, notes
        notes.append(f"ignored {checkpoint.path.name}: {problem}")
    return None, notes


def identity_of(folder: Path) -> str | None:
    """Return the identity of the run that a checkpoint says it belongs to."""
    try:
        found = read_json(folder / MANIFEST).get("identity")
    except ArtefactError:
        return None
    return found if isinstance(found, str) else None


def read_progress(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the steps that a checkpoint's trainer had taken, and those that it was to take.

    Raises:
        ArtefactError: its state cannot be read, or is another step's.
    """
    file = checkpoint.path / _STATE
    state = read_json(file)
    step, total = state.get("global_step"), state.get("max_steps")
    if step != checkpoint.step or not isinstance(total, int) or not isinstance(step, int):
        raise ArtefactError(f"{file} is of step {step} of {total}, not of step {checkpoint.step}")
    return step, total


def history_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return what a checkpoint's trainer had logged, as far as it is a log."""
    found = read_json(checkpoint.path / _STATE).get("log_history")
    lines = found if isinstance(found, list) else []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def is_last(checkpoint: Checkpoint, told: str) -> bool:
    """Tell whether a checkpoint is the end of its training, so that there is nothing to resume.

    Args:
        told: of the recipe and rows that train now; others may have had another end.
    """
    manifest = read_json(checkpoint.path / MANIFEST)
    if manifest.get("told", manifest.get("identity")) != told:
        return False
    step, total = read_progress(checkpoint)
    return step >= total or _has_lost_patience(checkpoint)


def _has_lost_patience(checkpoint: Checkpoint) -> bool:
    """Tell whether early stopping ended the training here, as its callback's own state says."""
    found = read_json(checkpoint.path / _STATE).get("stateful_callbacks")
    callback = found.get("Patience") if isinstance(found, dict) else None
    try:
        counted = callback["attributes"]["early_stopping_patience_counter"]  # type: ignore[index]
        return bool(counted >= callback["args"]["early_stopping_patience"])  # type: ignore[index]
    except (TypeError, KeyError):
        return False


def best_of(checkpoint: Checkpoint) -> tuple[Checkpoint, float | None] | None:
    """Return the best checkpoint up to this one with its metric; None where nothing was compared.

    Its state says where that lay; the run may have been moved since, all checkpoints together.
    """
    state = read_json(checkpoint.path / _STATE)
    best, metric = state.get("best_model_checkpoint"), state.get("best_metric")
    name = Path(best).name if isinstance(best, str) else ""
    number = name.removeprefix(_DONE if name.startswith(_DONE) else _NATIVE)
    if not number.isdecimal():
        return None
    folder = sealed_folder(checkpoint.path.parent, int(number))
    return Checkpoint(folder, int(number)), metric if isinstance(metric, float | int) else None


def check_best(checkpoint: Checkpoint, *, identity: str) -> None:
    """Refuse to go on from a checkpoint whose best is lost: an older one finds it again.

    Raises:
        UnloadableError: says what is wrong with the best.
    """
    found = best_of(checkpoint)
    if found is None or found[0].step == checkpoint.step:
        return
    problem = find_damage(found[0].path, identity=identity)
    if problem is not None:
        raise UnloadableError(
            f"{checkpoint.path.name}: the best checkpoint up to it, {found[0].path.name}, cannot be"
            f" kept: {problem}"
        )


@contextmanager
def loading(
    checkpoint: Checkpoint | None, is_loaded: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Tell a checkpoint that cannot be loaded from whatever fails later.

    Args:
        checkpoint: that is resumed; nothing is changed where there is none.
        is_loaded: whether the failure came after it.

    Raises:
        UnloadableError: names the checkpoint and what was raised.
    """
    try:
        yield
    except Exception as error:
        is_other = isinstance(error, PeftkitError) and not isinstance(error, ArtefactError)
        if checkpoint is None or is_other or is_loaded() or is_exhaustion(error):
            raise
        raise UnloadableError(
            f"{checkpoint.path} cannot be loaded: {type(error).__name__}: {first_line(error)}"
        ) from error


def list_checkpoints(checkpoints: Path) -> list[Checkpoint]:
    """List the `step-N` folders by step, whole or not."""
    found = [
        Checkpoint(folder, int(folder.name.removeprefix(_DONE)))
        for folder in checkpoints.glob(f"{_DONE}*")
        if folder.name.removeprefix(_DONE).isdecimal() and folder.is_dir()
    ]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def find_damage(folder: Path, *, identity: str) -> str | None:
    """Say what is wrong with a checkpoint, every byte of which is read; None when nothing is."""
    if not (folder / MANIFEST).exists():
        return f"it has no {MANIFEST}, which is written last"
    try:
        manifest = read_json(folder / MANIFEST)
    except ArtefactError as error:
        return f"its {MANIFEST} cannot be read: {error.message}"
    if manifest.get("identity") != identity:
        return "it belongs to another run"
    if manifest.get("step") != int(folder.name.removeprefix(_DONE)):
        return f"its {MANIFEST} is that of step {manifest.get('step')}"
    problem = _find_difference(folder, manifest.get("files"))
    return problem or _find_broken_state(folder, manifest["step"])


def _find_broken_state(folder: Path, step: int) -> str | None:
    try:
        read_progress(Checkpoint(folder, step))
    except ArtefactError as error:
        return f"its {_STATE} is none of a training: {error.message}"
    return None


def _find_difference(folder: Path, files: Any) -> str | None:
    """Say how a checkpoint's files differ from those that its manifest lists."""
    if not isinstance(files, dict) or not files:
        return f"its {MANIFEST} lists no files"
    present = {file.relative_to(folder).as_posix(): file for file in list_files(folder)}
    present.pop(MANIFEST, None)
    for name in sorted(set(files) | set(present)):
        problem = find_difference(present.get(name), files.get(name), MANIFEST)
        if problem is not None:
            return f"{name} {problem}"
    return None


def prune(checkpoints: Path, *, keep: int | None, also: Path | None = None) -> None:
    """Delete all but the newest checkpoints, and folders that were never completed.

    Args:
        keep: how many stay; None keeps all.
        also: one that stays whatever its age: the best so far.
    """
    for folder in checkpoints.glob(f"{_NATIVE}*"):
        shutil.rmtree(folder, ignore_errors=True)
    if keep is None:
        return
    for checkpoint in list_checkpoints(checkpoints)[:-keep]:
        if checkpoint.path != also:
            # The manifest goes first: a deletion that is cut short must not look complete.
            (checkpoint.path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(checkpoint.path, ignore_errors=True)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare two resolved recipes: dotted key -> (old, new); a missing key counts as None."""
    before, after = dict(flatten(old)), dict(flatten(new))
    keys = [*before, *(key for key in after if key not in before)]
    return {
        key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each value of a resolved recipe with its dotted key; decisions are in the values."""
    for key, value in tree.items():
        if prefix == "" and key == "decisions":
            continue
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def sync_tree(folder: Path) -> None:
    """Wait until every file of a folder is on the disk, the folder's own entries last.

    Each may be read by whom the umask lets.
    """
    for file in list_files(folder):
        follow_umask(file)
        sync(file)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
