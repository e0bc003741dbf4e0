"""Complete checkpoints, which of them a run resumes from, and whether it is the same run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.rundir.paths import write_json
from peftkit.system.checkpoint_files import follow_umask

MANIFEST = "manifest.json"
_DONE = "step-"
_NATIVE = "checkpoint-"
"""transformers' prefix: a folder of that name is one that was never sealed."""
_NOT_KEPT = ("training_args.bin", "README.md")
"""A pickle that nothing needs, and a model card of no model."""


@dataclass(frozen=True)
class Checkpoint:
    """Name a complete checkpoint."""

    path: Path
    step: int


def seal(folder: Path, *, step: int, identity: str) -> Checkpoint:
    """Turn what transformers wrote into a complete checkpoint `step-N`: manifest last, then rename.

    Args:
        folder: `checkpoints/checkpoint-N`.
        identity: of the run, so that a checkpoint copied from another one is never resumed.
    """
    for name in _NOT_KEPT:
        (folder / name).unlink(missing_ok=True)
    files = {}
    for file in _files(folder):
        follow_umask(file)
        sync(file)
        files[file.relative_to(folder).as_posix()] = describe_file(file)
    write_json(folder / MANIFEST, {"identity": identity, "step": step, "files": files})
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


def find_checkpoint(checkpoints: Path, *, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that is whole.

    Returns: it, or None; and a line for each newer one that was passed over, saying why.
    """
    notes = [
        f"ignored {folder.name}: the run ended while it was written"
        for folder in sorted(checkpoints.glob(f"{_NATIVE}*"))
    ]
    for checkpoint in reversed(list_checkpoints(checkpoints)):
        problem = find_damage(checkpoint.path, identity=identity)
        if problem is None:
            return checkpoint, notes
        notes.append(f"ignored {checkpoint.path.name}: {problem}")
    return None, notes


def is_last(checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint is the end of its training, so that there is nothing to resume."""
    state = json.loads((checkpoint.path / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


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
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: Mapping[str, Mapping[str, Any]] = manifest["files"]
        of_run = manifest["identity"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}, which is written last"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read: {error!r}"
    if of_run != identity:
        return "it belongs to another run"
    present = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    present.pop(MANIFEST, None)
    for name in sorted(set(files) | set(present)):
        problem = _compare(present.get(name), files.get(name))
        if problem is not None:
            return f"{name} {problem}"
    return None


def _compare(file: Path | None, promised: Mapping[str, Any] | None) -> str | None:
    """Say how a file differs from what its manifest promises."""
    if file is None:
        return "is missing"
    if promised is None:
        return f"is not in its {MANIFEST}"
    if file.is_symlink():
        return "is a link"
    num_bytes = file.stat().st_size
    if num_bytes != promised.get("num_bytes"):
        return f"has {num_bytes} bytes, not {promised.get('num_bytes')}"
    if describe_file(file)["sha256"] != promised.get("sha256"):
        return "has another sha256 than when it was written"
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


def cut_metrics(file: Path, *, step: int) -> None:
    """Drop what was logged after a step, which training will log again."""
    from peftkit.rundir.paths import write_atomically

    if not file.exists():
        return
    kept = [line for line in read_metrics(file) if line.get("step", 0) <= step]
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the logged lines; a last line cut short by a kill is left out.

    Raises:
        ArtefactError: another line is not JSON.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ArtefactError(f"{file}:{number} is not JSON") from None
    return found


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


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_symlink() or file.is_file())


def describe_file(file: Path) -> dict[str, Any]:
    """Return a file's `num_bytes` and `sha256`, which tell whether it is still the same."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"num_bytes": file.stat().st_size, "sha256": digest}


def sync_tree(folder: Path) -> None:
    """Wait until every file of a folder is on the disk, the folder's own entries last.

    Each may be read by whom the umask lets.
    """
    for file in _files(folder):
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
