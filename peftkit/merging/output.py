"""The folder that a merge writes: weights first, then everything beside them, the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merging import folder as folders
from peftkit.merging.plan import Plan
from peftkit.merging.writer import Journal, check_room, remove_journal, sync_folder, write_shard
from peftkit.rundir.paths import write_json
from peftkit.system.checkpoint_files import follow_umask

_SIDE_BYTES = 32 << 20
"""Allowed for tokenizer, configuration and card."""


def is_done(out: Path, identity: str) -> bool:
    """Tell whether a folder holds exactly this merge, finished.

    Raises:
        ArtefactError: it holds another one.
    """
    manifest = folders.read_manifest(out)
    if manifest is None:
        return False
    if manifest.get("identity") != identity:
        raise ArtefactError(
            f"{out} holds a finished merge of other inputs ({manifest.get('source')})",
            hint="give another folder with --out",
        )
    return folders.is_complete(out)


def write_weights(out: Path, plan: Plan, identity: str, say: Callable[[str], None]) -> list[str]:
    """Write every shard, or what an interrupted merge has left to write.

    Returns:
        The names of the tensors that came out different from the base's.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_room(out, plan.shards, _SIDE_BYTES)
    journal = Journal.open(out, identity)
    (out / folders.MANIFEST).unlink(missing_ok=True)
    for number, shard in enumerate(plan.shards, start=1):
        write_shard(out, shard, journal)
        say(f"  {shard.name} ({number} of {len(plan.shards)})")
    copied = {tensor.name for shard in plan.shards for tensor in shard.tensors if tensor.is_copied}
    return [name for name in plan.changed if name in copied or name in journal.changed]


def seal(
    out: Path,
    base: Path,
    config: Mapping[str, Any],
    files: Sequence[str],
    manifest: Mapping[str, Any],
) -> None:
    """Write the configuration and, last, the manifest of all files.

    Args:
        config: the result's `config.json`.
        files: names written so far.
    """
    folders.write_config(out, base, config)
    sync_folder(out)
    names = dict.fromkeys((*files, folders.CONFIG))
    for name in names:
        follow_umask(out / name)
    sizes = {name: (out / name).stat().st_size for name in names}
    write_json(out / folders.MANIFEST, {**manifest, "files": sizes})
    remove_journal(out)


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Name the folder when the system refuses to write into it.

    Raises:
        ResourceError: instead of the system's OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(f"cannot write to {out}: {error.strerror}") from error
