"""Merge an adapter, or a run, into its base: the verb."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging import folder as folders
from peftkit.merging.adapter import open_adapter
from peftkit.merging.card import write_card
from peftkit.merging.inputs import Inputs, find_inputs
from peftkit.merging.layout import index_of
from peftkit.merging.output import is_done, seal, write_weights, writing_to
from peftkit.merging.plan import Plan, plan_copy, plan_merge
from peftkit.merging.quantized import settle_onto
from peftkit.merging.result import MergeResult, Onto
from peftkit.merging.weights_io import Checkpoint, open_checkpoint
from peftkit.merging.writer import Journal
from peftkit.system.checkpoint_files import read_json
from peftkit.system.scratch import scratch_beside

if TYPE_CHECKING:
    from peftkit.plugins.quantizer import Quantizer

VERIFY_UP_TO_BYTES = 1 << 30
"""Weights that are verified unless it is said otherwise: two models of this size in memory."""


def merge(  # noqa: PLR0913
    source: str | Path,
    *,
    out: str | Path,
    base: str | None = None,
    onto: Onto | None = None,
    verify: bool | None = None,
    allow_other_base: bool = False,
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
        allow_other_base: merge although the base's weights are other ones than in training.
        progress: called with a line now and then.

    Raises:
        ArtefactError: adapter and base do not belong together, a file is broken or pickled, the
            method cannot be merged, or the verification failed.
        ResourceError: the disk has not enough room; known before the first byte.
        UsageError: `out` holds something else, or `onto` must be said.
    """
    started, out = time.monotonic(), Path(out)
    inputs = find_inputs(Path(source), base, allow_other_base=allow_other_base)
    config = folders.model_config(inputs.base)
    chosen = settle_onto(inputs, config, onto)
    checkpoint = open_checkpoint(inputs.base)
    identity = _identity(inputs, checkpoint, chosen)
    task = _Task(out, inputs, chosen, identity, progress or (lambda _: None))
    folders.prepare_out(out, [inputs.base, *([inputs.adapter] if inputs.adapter else [])])
    is_plain = inputs.quantize is None and "quantization_config" not in config
    write = _merge_full if is_plain else _merge_quantized
    with folders.alone_in(out):
        result = write(task, checkpoint, config, verify=verify)
    return replace(result, seconds=round(time.monotonic() - started, 3))


@dataclass(frozen=True)
class _Task:
    """Hold what every step of one merge needs."""

    out: Path
    inputs: Inputs
    onto: Onto
    identity: str
    say: Callable[[str], None]


def _plan(inputs: Inputs, checkpoint: Checkpoint, config: dict[str, Any]) -> tuple[str, Plan]:
    """Return the method's name and what will be written."""
    if inputs.adapter is None:
        return "full", plan_copy(checkpoint, config)
    opened = open_adapter(inputs.adapter, checkpoint, model_config=config)
    return opened.method, plan_merge(opened, config)


def _write(task: _Task, plan: Plan) -> None:
    """Write weights, side files, configuration and, last, the manifest."""
    changed = write_weights(task.out, plan, task.identity, task.say)
    names = [shard.name for shard in plan.shards]
    _finish(task, names, plan.config, changed, index=index_of(plan.shards))


def _finish(
    task: _Task,
    weights: list[str],
    config: dict[str, Any],
    changed: list[str],
    *,
    index: dict[str, Any] | None,
) -> None:
    """Write everything that is not weights, the manifest last."""
    out, inputs = task.out, task.inputs
    method = _method(inputs)
    with writing_to(out):
        files = folders.write_side_files(out, base=inputs.base, adapter=inputs.adapter, index=index)
        card = write_card(
            out, inputs, method=method, onto=task.onto, config=config, num_changed=len(changed)
        )
        manifest = {
            "identity": task.identity,
            "source": str(inputs.source),
            "base": str(inputs.base),
            "method": method,
            "onto": task.onto,
            "changed": changed,
            **({"other_base": inputs.other_base} if inputs.other_base else {}),
        }
        seal(out, inputs.base, config, [*weights, *files, card], manifest)


def _describe(task: _Task, method: str, notes: tuple[str, ...]) -> MergeResult:
    """Say what a finished folder holds."""
    manifest = folders.read_manifest(task.out) or {}
    written = open_checkpoint(task.out)
    return MergeResult(
        out=task.out,
        source=task.inputs.source,
        base=str(task.inputs.base),
        method=method,
        onto=task.onto,
        changed=tuple(manifest["changed"]),
        num_tensors=len(written.tensors),
        num_bytes=written.num_bytes,
        files=(*manifest["files"], folders.MANIFEST),
        seconds=0.0,
        notes=(
            *([task.inputs.other_base] if task.inputs.other_base else []),
            *notes,
            *folders.notes_on_code(task.inputs.base),
        ),
    )


def _verified(
    result: MergeResult, inputs: Inputs, config: dict[str, Any], folder: Path
) -> MergeResult:
    """Add the proof to a result.

    Args:
        folder: what to load: the result, or what it was before it was quantized.

    Raises:
        ArtefactError: nothing changed, or the logits are not those of base + adapter.
    """
    from peftkit.merging.verify import verify_merge

    if inputs.adapter is not None and not result.changed:
        raise ArtefactError(
            f"{result.out} equals its base: merging {inputs.adapter} changed no number",
            hint="an adapter that was not trained changes nothing; --no-verify writes it anyway",
        )
    written = open_checkpoint(folder).tensors
    dtypes = sorted({written[name].dtype for name in result.changed})
    return replace(result, verification=verify_merge(folder, inputs, config, dtypes=dtypes))


def _merge_full(
    task: _Task, checkpoint: Checkpoint, config: dict[str, Any], *, verify: bool | None
) -> MergeResult:
    """Merge into the weights as they are stored."""
    method, plan = _plan(task.inputs, checkpoint, config)
    if not is_done(task.out, task.identity):
        _write(task, plan)
    result = _describe(task, method, plan.notes)
    if not _wants_proof(result, verify):
        return result
    return _verified(result, task.inputs, config, task.out)


def _merge_quantized(
    task: _Task, stored: Checkpoint, config: dict[str, Any], *, verify: bool | None
) -> MergeResult:
    """Merge onto a quantized base, and measure every way of doing it beside the one chosen."""
    from peftkit.merging import quantized
    from peftkit.merging.verify import compare_with_quantized

    inputs = task.inputs
    if task.onto == "full":
        result = _merge_full(task, stored, config, verify=verify)
        if inputs.adapter is None or not _wants_proof(result, verify):
            return result
    quantizer = quantized.quantizer_of(inputs, config)
    with scratch_beside(task.out) as work:
        base = quantized.write_dequantized(inputs.base, config, quantizer, work / "dequantized")
        seen_config = folders.model_config(base)
        opened = open_adapter(_adapter(inputs), open_checkpoint(base), model_config=seen_config)
        if task.onto != "full":
            plan = plan_merge(opened, seen_config)
            merged = task.out if task.onto == "dequantized" else work / "merged"
            if not is_done(task.out, task.identity):
                _write(replace(task, out=merged), plan)
                if task.onto == "requantized":
                    _requantize(task, merged, work, config, quantizer)
            result = _describe(task, opened.method, plan.notes)
            if merged.is_dir() and _wants_proof(result, verify):
                result = _verified(result, replace(inputs, base=base), seen_config, merged)
        full = None if "quantization_config" in config else stored
        result = replace(result, weight_errors=quantized.measure_errors(opened, full, quantizer))
        if _wants_proof(result, verify):
            error = compare_with_quantized(task.out, inputs, config, quantizer)
            result = replace(result, quantized_logits=error)
    return result


def _requantize(
    task: _Task, merged: Path, work: Path, config: dict[str, Any], quantizer: Quantizer | None
) -> None:
    """Quantize what was merged, and finish the output with it."""
    from peftkit.merging.quantized import write_requantized

    Journal.open(task.out, task.identity)
    names = write_requantized(merged, quantizer, config, task.out, work)
    changed = (folders.read_manifest(merged) or {})["changed"]
    _finish(task, names, folders.model_config(work / "requantized"), changed, index=None)


def _wants_proof(result: MergeResult, verify: bool | None) -> bool:
    return result.num_bytes <= VERIFY_UP_TO_BYTES if verify is None else verify


def _adapter(inputs: Inputs) -> Path:
    if inputs.adapter is None:
        raise ArtefactError(f"{inputs.source} is a whole model, which is not merged")
    return inputs.adapter


def _method(inputs: Inputs) -> str:
    if inputs.adapter is None:
        return "full"
    return str(read_json(inputs.adapter / "adapter_config.json").get("peft_type"))


def _identity(inputs: Inputs, checkpoint: Checkpoint, onto: Onto) -> str:
    """Name what goes into a merge: the adapter's bytes, the base's files, sizes and times."""
    digest = hashlib.sha256(onto.encode())
    for shard in checkpoint.shards:
        stat = shard.path.stat()
        digest.update(json.dumps([shard.path.name, stat.st_size, stat.st_mtime_ns]).encode())
        digest.update(shard.header)
    if inputs.adapter is not None:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            with (inputs.adapter / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
