"""Merge an adapter, or a run, into its base: the verb."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merge import folder as folders
from peftkit.merge.adapter import open_adapter
from peftkit.merge.inputs import Inputs, find_inputs
from peftkit.merge.layout import index_of
from peftkit.merge.plan import Plan, plan_copy, plan_merge
from peftkit.merge.result import MergeResult, Onto
from peftkit.merge.weights_io import Checkpoint, open_checkpoint
from peftkit.merge.writer import (
    Journal,
    check_room,
    remove_journal,
    sync_folder,
    write_shard,
)
from peftkit.run_dir import write_json

VERIFY_UP_TO_BYTES = 1 << 30
"""Weights that are verified unless it is said otherwise: two models of this size in memory."""
_SIDE_BYTES = 32 << 20
"""Allowed for tokenizer, configuration and card."""


def merge(  # noqa: PLR0913
    source: Path,
    *,
    out: Path,
    base: str | None = None,
    onto: Onto | None = None,
    verify: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> MergeResult:
    """Write base + adapter as one model that plain transformers loads.

    Args:
        source: a run directory, an adapter folder, or a whole model's folder.
        out: a new or empty folder, or what an interrupted merge of the same inputs left, which
            is then continued.
        base: a folder, a Hub id, `ID@REVISION` or `embedded:NAME`; the one the run or the adapter
            names when None.
        onto: which weights of a quantized base take the change; must be said for a base that is
            or was quantized, and only then.
        verify: whether to load what was written and compare its logits with base + adapter; for
            models of up to 1 GiB when None.
        progress: called with a line now and then.

    Raises:
        ArtefactError: adapter and base do not belong together, a file is broken or pickled, the
            method cannot be merged, or the verification failed.
        ResourceError: the disk has not enough room; known before the first byte.
        UsageError: `out` holds something else, or `onto` must be said.
    """
    started = time.monotonic()
    say = progress or (lambda _: None)
    inputs = find_inputs(source, base)
    config = folders.model_config(inputs.base)
    checkpoint = open_checkpoint(inputs.base)
    method, plan = _plan(inputs, checkpoint, config)
    identity = _identity(inputs, checkpoint)
    names = [shard.name for shard in plan.shards]
    folders.prepare_out(out, [inputs.base, *([inputs.adapter] if inputs.adapter else [])], names)
    if not _is_done(out, identity):
        _write(out, inputs, plan, identity, say)
    return MergeResult(
        out=out,
        source=source,
        base=str(inputs.base),
        method=method,
        onto=onto or "full",
        changed=plan.changed,
        num_tensors=sum(len(shard.tensors) for shard in plan.shards),
        num_bytes=sum(shard.num_bytes for shard in plan.shards),
        files=tuple(folders.read_manifest(out)["files"]),  # type: ignore[index]
        seconds=round(time.monotonic() - started, 3),
        notes=plan.notes,
    )


def _plan(inputs: Inputs, checkpoint: Checkpoint, config: dict[str, Any]) -> tuple[str, Plan]:
    """Return the method's name and what will be written."""
    if inputs.adapter is None:
        return "full", plan_copy(checkpoint, config)
    opened = open_adapter(inputs.adapter, checkpoint, model_config=config)
    return opened.method, plan_merge(opened, config)


def _write(
    out: Path, inputs: Inputs, plan: Plan, identity: str, say: Callable[[str], None]
) -> None:
    """Write weights, side files, configuration and, last, the manifest."""
    check_room(out, plan.shards, _SIDE_BYTES)
    journal = Journal.open(out, identity)
    (out / folders.MANIFEST).unlink(missing_ok=True)
    for number, shard in enumerate(plan.shards, start=1):
        write_shard(out, shard, journal)
        say(f"  {shard.name} ({number} of {len(plan.shards)})")
    try:
        written = folders.write_side_files(
            out, base=inputs.base, adapter=inputs.adapter, index=index_of(plan.shards)
        )
        folders.write_config(out, inputs.base, plan.config)
        sync_folder(out)
        files = [shard.name for shard in plan.shards] + written + [folders.CONFIG]
        manifest = {
            "identity": identity,
            "source": str(inputs.source),
            "base": str(inputs.base),
            "changed": list(plan.changed),
            "files": {name: (out / name).stat().st_size for name in files},
        }
        write_json(out / folders.MANIFEST, manifest)
    except OSError as error:
        raise ResourceError(f"cannot write to {out}: {error.strerror}") from error
    remove_journal(out)


def _is_done(out: Path, identity: str) -> bool:
    manifest = folders.read_manifest(out)
    if manifest is None:
        return False
    if manifest.get("identity") != identity:
        raise ArtefactError(
            f"{out} holds a finished merge of other inputs ({manifest.get('source')})",
            hint="give another folder with --out",
        )
    return folders.is_complete(out)


def _identity(inputs: Inputs, checkpoint: Checkpoint) -> str:
    """Name what goes into a merge: the adapter's bytes, the base's files, sizes and times."""
    digest = hashlib.sha256()
    for shard in checkpoint.shards:
        stat = shard.path.stat()
        digest.update(json.dumps([shard.path.name, stat.st_size, stat.st_mtime_ns]).encode())
        digest.update(shard.header)
    if inputs.adapter is not None:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            with (inputs.adapter / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
