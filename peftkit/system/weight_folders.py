"""Folders of weights, looked at before anything in them is believed: are they what was trained?

A folder that peftkit trained has a seal, `trained.json`, with every other file's size and sha256.
What is copied elsewhere takes it along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import check_safetensors, read_json, weight_files
from peftkit.system.foreign_fields import check_generation_fields, check_tokenizer_fields
from peftkit.system.weights_digest import digest_of

TRAINED = "trained.json"
"""Lists the files of a folder of trained weights; written last."""
_FREE = ("README.md", "base.json")
"""What changes beside trained weights: the card, and the record of bases that were allowed."""
_LARGE = 64 << 20
"""Bytes from which a digest is kept for a file's size and time of change."""


def check_base_folder(folder: Path) -> None:
    """Refuse a folder that is no base model, or whose weights are pickled, torn or elsewhere.

    Raises:
        ArtefactError: names the file and the way out.
    """
    if (folder / "adapter_config.json").is_file():
        raise ArtefactError(
            f"{folder} holds an adapter, not a base model",
            hint=f"name its base model under model.path, and `adapter: {{from: {folder}}}`",
        )
    if not (folder / "config.json").is_file():
        raise ArtefactError(
            f"{folder} has no config.json", hint="name a folder saved by transformers"
        )
    check_links(folder)
    check_companions(folder)
    check_trained(folder)
    for file in weight_files(folder):
        check_safetensors(file)


def check_companions(folder: Path) -> None:
    """Refuse a folder that says of generating or of its tokenizer what no program can follow.

    Raises:
        ArtefactError: names the field.
    """
    checks = {
        "generation_config.json": check_generation_fields,
        "tokenizer_config.json": check_tokenizer_fields,
    }
    for name, check in checks.items():
        if (folder / name).is_file():
            check(read_json(folder / name), str(folder / name))


def list_files(folder: Path) -> list[Path]:
    """List the files and links of a folder and of those within."""
    return sorted(file for file in folder.rglob("*") if file.is_symlink() or file.is_file())


def describe_file(file: Path) -> dict[str, Any]:
    """Return a file's `num_bytes` and `sha256`, which tell whether it is still the same."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"num_bytes": file.stat().st_size, "sha256": digest}


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Describe every file of a folder of trained weights that its seal covers."""
    return {
        name: describe_file(file)
        for file in list_files(folder)
        if (name := file.relative_to(folder).as_posix()) not in {*_FREE, TRAINED}
    }


def find_difference(file: Path | None, promised: Any, manifest: str) -> str | None:
    """Say how a file differs from what a manifest promises of it; None where it does not."""
    if file is None or not (file.is_symlink() or file.is_file()):
        return "is missing"
    if not isinstance(promised, Mapping):
        return f"is not in its {manifest}"
    if file.is_symlink():
        return "is a link"
    at = file.stat()
    if at.st_size != promised.get("num_bytes"):
        return f"has {at.st_size} bytes, not {promised.get('num_bytes')}"
    if _digest_at(file, (at.st_size, at.st_mtime_ns, at.st_ino)) != promised.get("sha256"):
        return "has another sha256 than when it was written"
    return None


@lru_cache(maxsize=1000)
def _digest_at(file: Path, stamp: tuple[int, int, int]) -> str:
    """Digest a file once while its size and time stay; a large one once for all processes."""
    return digest_of(file) if stamp[0] >= _LARGE else str(describe_file(file)["sha256"])


def find_trained_damage(folder: Path, seal: str | None = None) -> str | None:
    """Say what is wrong with a folder of trained weights; None when nothing is known to be.

    A folder without a seal is of another program, and anything may be in it.

    Args:
        seal: sha256 of the folder's own seal, where that was recorded elsewhere.
    """
    file = folder / TRAINED
    if not folder.is_dir():
        return "is missing"
    if not seal and not file.exists():
        return None
    if not file.is_file():
        return f"has no {TRAINED}, which is written last"
    try:
        promised = read_json(file).get("files")
    except ArtefactError:
        promised = None
    if not isinstance(promised, dict) or (seal and describe_file(file)["sha256"] != seal):
        return f"is damaged: {TRAINED} is not what was written"
    problems = (
        (name, find_difference(folder / name, promised[name], TRAINED)) for name in promised
    )
    return next((f"is damaged: {name} {problem}" for name, problem in problems if problem), None)


def check_trained(folder: Path, *, seal: str | None = None, hint: str = "") -> None:
    """Refuse trained weights that are not what was trained.

    Raises:
        ArtefactError: names the file.
    """
    problem = find_trained_damage(folder, seal)
    if problem:
        raise ArtefactError(
            f"{folder} {problem}",
            hint=hint or f"copy it again; or delete {folder / TRAINED}, if you changed it yourself",
        )


def check_links(folder: Path) -> None:
    """Refuse a folder with a file that is really somewhere else, which a copy would carry along.

    Raises:
        ArtefactError: names where the link leads.
    """
    try:
        files = [file for file in folder.iterdir() if file.is_symlink()]
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be read: {error.strerror}") from None
    for file in sorted(files):
        check_inside(file, folder)


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file that is really somewhere else.

    The Hub's cache is made of links from `snapshots/COMMIT/` to `blobs/` beside it, so that a
    snapshot's links may point anywhere in its repository's folder.

    Raises:
        ArtefactError: names where the link leads.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    real = file.resolve()
    if not real.is_relative_to(root):
        raise ArtefactError(
            f"{file} is a link out of its folder, to {real}",
            hint="copy the file itself into the folder",
        )
