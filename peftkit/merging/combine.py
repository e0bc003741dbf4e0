"""Combine several adapters of one base, into the base or into a new adapter: the verb."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.merging import folder as folders
from peftkit.merging.adapter import OpenedAdapter, open_adapter
from peftkit.merging.card import write_combined_card
from peftkit.merging.combination import combine_opened, deviation, without_copies
from peftkit.merging.inputs import Inputs, find_inputs
from peftkit.merging.layout import index_of
from peftkit.merging.method import WHERE, read_method
from peftkit.merging.new_adapter import relative_error, write_adapter
from peftkit.merging.output import is_done, seal, write_weights, writing_to
from peftkit.merging.plan import Plan, plan_merge
from peftkit.merging.quantized import settle_onto
from peftkit.merging.result import CombineResult, Onto, To
from peftkit.merging.weights_io import open_checkpoint
from peftkit.plugins import Merge
from peftkit.rundir.checkpoints import sync_tree
from peftkit.system.scratch import scratch_beside

VERIFY_UP_TO_BYTES = 1 << 28
"""Weights that are verified unless it is said otherwise: in float64, a copy for each adapter."""
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def combine(  # noqa: PLR0913
    sources: Sequence[Path],
    *,
    method: str | None,
    out: Path,
    to: To = "base",
    base: str | None = None,
    onto: Onto | None = None,
    verify: bool | None = None,
    allow_other_base: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CombineResult:
    """Write base + combined adapters as one model, or the combination as a new adapter.

    Args:
        sources: run directories or adapter folders, all of one base.
        method: YAML of one merge and its options, e.g. `{svd: {weights: [0.7, 0.3]}}`;
            None is refused with the list of them.
        out: a new or empty folder; into the base also what an interrupted merge left there.
        to: `base` for a whole model, `adapter` for a folder that plain peft loads.
        base: as for `merge`, for every adapter.
        onto: as for `merge`; several adapters go onto full-precision weights only.
        verify: whether to load the merged model and compare its logits with the base plus the
            combination of what peft merges; for models of up to 256 MiB when None.
        allow_other_base: combine although the base's weights are other ones than in training.
        progress: called with a line now and then.

    Raises:
        ArtefactError: adapters and base do not belong together, or cannot be combined.
        RecipeError: the method's options are wrong.
        ResourceError: the disk has not enough room.
        UsageError: the method does not suit these adapters, or `out` holds something else.
    """
    started = time.monotonic()
    if to == "adapter" and onto is not None:
        raise UsageError(f"--onto {onto} is for merging into the base", hint="leave it out")
    name, options, merge = read_method(method)
    inputs = _find_all(sources, base, allow_other_base)
    if len(merge.weights) != len(inputs):
        raise UsageError(
            f"{WHERE} has {len(merge.weights)} weights for {len(inputs)} adapters",
            hint="give one weight for each adapter, in their order",
        )
    if to == "base":
        _refuse_options(merge, name)
        _settle_onto(inputs, onto)
    task = _open_all(inputs, merge)
    result = CombineResult(
        out=out,
        to=to,
        sources=tuple(sources),
        base=str(inputs[0].base),
        method=name,
        options=options,
        deviation=deviation(task.opened, merge, task.config),
    )
    say = progress or (lambda _: None)
    if to == "base":
        result = _into_base(result, task, plan_merge(task.combined, task.config), say)
        if verify or (verify is None and result.num_bytes <= VERIFY_UP_TO_BYTES):
            result = _verified(result, task)
    else:
        result = _into_adapter(result, task)
    return replace(result, seconds=round(time.monotonic() - started, 3))


@dataclass(frozen=True)
class _Task:
    """Hold what is combined, and how."""

    inputs: Sequence[Inputs]
    opened: Sequence[OpenedAdapter]
    combined: OpenedAdapter
    merge: Merge
    config: Mapping[str, Any]
    """The base's `config.json`."""


def _open_all(inputs: Sequence[Inputs], merge: Merge) -> _Task:
    """Open every adapter on the one base, and combine them."""
    config = folders.model_config(inputs[0].base)
    checkpoint = open_checkpoint(inputs[0].base)
    opened = [
        without_copies(open_adapter(i.adapter, checkpoint, model_config=config))
        for i in inputs
        if i.adapter
    ]
    return _Task(inputs, opened, combine_opened(opened, merge, config), merge, config)


def other_bases(inputs: Sequence[Inputs]) -> list[str]:
    """Say which adapters were trained on other weights, where that was allowed."""
    return [one.other_base for one in inputs if one.other_base]


def _find_all(sources: Sequence[Path], base: str | None, allow_other_base: bool) -> list[Inputs]:
    """Find every adapter and the one base.

    Raises:
        UsageError: a source is a whole model or comes twice, or the bases differ.
    """
    found = [
        find_inputs(source, base, use="combine", allow_other_base=allow_other_base)
        for source in sources
    ]
    seen: dict[str, Path] = {}
    for one in found:
        if one.adapter is None:
            raise UsageError(
                f"{one.source} is a whole model, and adapters are combined",
                hint="name adapters or runs that trained one",
            )
        if one.base.resolve() != found[0].base.resolve():
            raise UsageError(
                f"{found[0].source} was trained on {found[0].base}, {one.source} on {one.base}",
                hint="if these are copies of one model, name it with --base",
            )
        digest = _digest(one.adapter)
        if digest in seen:
            raise UsageError(
                f"{seen[digest]} and {one.source} are the same adapter",
                hint="name it once, with the sum of the weights",
            )
        seen[digest] = one.source
    return found


def _digest(folder: Path) -> str:
    """Return the sha256 of an adapter's weights and config."""
    digest = hashlib.sha256()
    for name in _FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _refuse_options(merge: Merge, name: str) -> None:
    """Refuse to cut a rank that nothing asks to be cut."""
    bound = merge.compression
    if bound is not None and (bound.rank is not None or bound.clamp is not None):
        raise UsageError(
            f"{WHERE} {name}: svd_rank and svd_clamp shape a new adapter only",
            hint="leave them out, or add --to adapter and merge what it writes",
        )


def _settle_onto(inputs: Sequence[Inputs], onto: Onto | None) -> None:
    """Refuse quantized weights, onto which one adapter at a time is merged."""
    config = folders.model_config(inputs[0].base)
    for one in inputs:
        if settle_onto(one, config, onto) != "full":
            raise UsageError(
                f"--onto {onto}: several adapters are merged onto full-precision weights only",
                hint="make one adapter of them with --to adapter, and merge that",
            )


def _write_model(
    result: CombineResult,
    inputs: Sequence[Inputs],
    plan: Plan,
    identity: str,
    say: Callable[[str], None],
) -> None:
    """Write weights, side files, configuration and, last, the manifest."""
    out, base = result.out, inputs[0].base
    changed = write_weights(out, plan, identity, say)
    with writing_to(out):
        tokenizer, _ = _tokenizer_from(inputs)
        files = folders.write_side_files(
            out, base=base, adapter=tokenizer, index=index_of(plan.shards)
        )
        card = write_combined_card(result, config=plan.config, num_changed=len(changed))
        manifest = {
            "identity": identity,
            "source": " + ".join(str(i.source) for i in inputs),
            "base": str(base),
            "method": {result.method: dict(result.options)},
            "changed": changed,
        }
        shards = [shard.name for shard in plan.shards]
        seal(out, base, plan.config, [*shards, *files, card], manifest)


def _into_base(
    result: CombineResult, task: _Task, plan: Plan, say: Callable[[str], None]
) -> CombineResult:
    """Write the merged model, or what an interrupted merge left to write."""
    inputs = task.inputs
    out, base = result.out, inputs[0].base
    identity = _identity(result, inputs)
    folders.prepare_out(out, [base, *(i.adapter for i in inputs if i.adapter)])
    with folders.alone_in(out):
        if not is_done(out, identity):
            _write_model(result, inputs, plan, identity, say)
    manifest = folders.read_manifest(out) or {}
    return replace(
        result,
        changed=tuple(manifest["changed"]),
        num_bytes=sum(shard.num_bytes for shard in plan.shards),
        files=(*manifest["files"], folders.MANIFEST),
        notes=(
            *other_bases(inputs),
            *plan.notes,
            *_tokenizer_from(inputs)[1],
            *folders.notes_on_code(base),
        ),
    )


def _verified(result: CombineResult, task: _Task) -> CombineResult:
    """Add the proof to a result, or say why there is none.

    Raises:
        ArtefactError: nothing changed, or the logits are off by more than rounding.
    """
    from peftkit.merging.combined_reference import load_reference, why_no_reference
    from peftkit.merging.verify import verify_merge

    if not result.changed:
        raise ArtefactError(
            f"{result.out} equals its base: the combination changed no number",
            hint="are the adapters trained? --no-verify writes it anyway",
        )
    reason = why_no_reference(task.combined, task.opened, task.config)
    if reason is not None:
        return replace(result, notes=(*result.notes, f"Logits were not compared: {reason}."))
    written = open_checkpoint(result.out).tensors
    dtypes = sorted({written[name].dtype for name in result.changed})
    proof = verify_merge(
        result.out,
        task.inputs[0],
        task.config,
        dtypes=dtypes,
        reference=lambda: load_reference(task.inputs, task.opened, task.merge, task.config),
    )
    return replace(result, verification=proof)


def _identity(result: CombineResult, inputs: Sequence[Inputs]) -> str:
    """Name what goes in: method, adapters in order, and the base's files, sizes and times."""
    digest = hashlib.sha256(json.dumps([result.method, dict(result.options)]).encode())
    for one in inputs:
        digest.update(_digest(one.adapter or one.source).encode())
    for shard in open_checkpoint(inputs[0].base).shards:
        stat = shard.path.stat()
        digest.update(json.dumps([shard.path.name, stat.st_size, stat.st_mtime_ns]).encode())
        digest.update(shard.header)
    return digest.hexdigest()


def _tokenizer_from(inputs: Sequence[Inputs]) -> tuple[Path | None, tuple[str, ...]]:
    """Choose whose tokenizer is copied: the first adapter's that has one, said when they differ."""
    own = [i.adapter for i in inputs if i.adapter and (i.adapter / "tokenizer.json").is_file()]
    if not own:
        return None, ()
    kinds = {(folder / "tokenizer.json").read_bytes() for folder in own}
    note = f"The adapters' tokenizers differ; the one of {own[0]} was copied."
    return own[0], (note,) if len(kinds) > 1 else ()


def _into_adapter(result: CombineResult, task: _Task) -> CombineResult:
    """Write the new adapter beside its name, check that it opens, and rename it."""
    out = result.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"--out {out} is there already and no empty folder", hint="give a new folder"
        )
    with writing_to(out), scratch_beside(out) as scratch:
        partial = scratch / "adapter"
        partial.mkdir()
        losses = write_adapter(partial, task.combined, task.opened, task.merge, task.config)
        tokenizer, notes = _tokenizer_from(task.inputs)
        if tokenizer is not None:
            folders.copy_tokenizer(tokenizer, partial)
        worst = max(losses, key=lambda loss: loss.share, default=None)
        result = replace(
            result,
            changed=tuple(loss.module for loss in losses),
            rank=max((loss.rank for loss in losses), default=None),
            error=relative_error(losses),
            worst=None if worst is None else (worst.module, worst.share),
            notes=notes,
        )
        write_combined_card(replace(result, out=partial), config=task.config)
        sync_tree(partial)
        if out.is_dir():
            out.rmdir()  # checked to be empty: a rename does not go into a folder
        partial.rename(out)
    files = sorted(file.name for file in out.iterdir())
    num_bytes = (out / "adapter_model.safetensors").stat().st_size
    return replace(result, files=tuple(files), num_bytes=num_bytes)
