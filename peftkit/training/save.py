"""Write what was trained in the plain format of PEFT or transformers."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING, Any

from peftkit.models.decoder_start import settle_start
from peftkit.plugins.native import is_adapted, native_model
from peftkit.reporting.model_card import Card, write_card
from peftkit.rundir.checkpoints import sync_tree
from peftkit.rundir.drift import recorded_drift
from peftkit.rundir.paths import write_json
from peftkit.system.weight_folders import TRAINED, describe_files
from peftkit.training.ends import settle_ends, with_taught_end
from peftkit.training.shards import uncut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from peftkit.recipe.schema import Recipe
    from peftkit.training.prepare import Job


def save_trained(
    job: Job, model: PreTrainedModel | PeftModel, weights: Mapping[str, Tensor] | None = None
) -> Path:
    """Write `adapter/`, or `model/` for a whole model: it is there whole or not at all.

    `adapter_config.json` names the base as plain PEFT needs it: a Hub id with its commit, or the
    folder that it was read from. A classifier's labels stand in a `config.json` beside it, which
    PEFT does not write.

    Args:
        weights: whole ones of a model that lies in shards; the model's own when absent.
    """
    is_adapter = is_adapted(model)
    folder = job.run_dir.adapter if is_adapter else job.run_dir.model
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if is_adapter:
        _pin_base(job, model)
    tokenizer = job.tokenizer
    if job.built.method.kind.answers == "text":
        settle_start(model, tokenizer)
        settle_ends(model, tokenizer)
        native_model(model).generation_config.save_pretrained(partial)
        if tokenizer.chat_template and any(one.prompt for one in job.prepared.examples["train"]):
            tokenizer = with_taught_end(tokenizer)
    # Rows of new tokens are trained one by one: PEFT would save all of the embedding beside them.
    own = {"save_embedding_layers": False} if is_adapter and job.recipe.model.changes_tokens else {}
    writer = model if is_adapter or weights is None else uncut(model)
    writer.save_pretrained(partial, state_dict=weights, **own)
    if is_adapter and job.built.method.kind.reads_rows:
        model.config.save_pretrained(partial)
    if job.built.method.processor is not None:
        job.built.method.processor.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if is_adapter:
        _record_base(job, partial)
    write_card(partial, _describe(job, is_adapter=is_adapter))
    write_json(partial / TRAINED, {"files": describe_files(partial)})
    sync_tree(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def write_run_card(job: Job) -> Path:
    """Write the model card again, now with the scores."""
    run_dir = job.run_dir
    scores = run_dir.read_json(run_dir.scores) if run_dir.scores.exists() else None
    card = _describe(job, is_adapter=run_dir.adapter.is_dir())
    return write_card(run_dir.trained, dataclasses.replace(card, scores=scores))


def _pin_base(job: Job, model: PeftModel) -> None:
    """Record the commit of a base from the Hub in the adapter's config."""
    from peftkit.models.load import resolve

    if job.recipe.model.path is None:
        return
    found = resolve(job.recipe.model)
    for config in model.peft_config.values():
        config.base_model_name_or_path = found.path_or_id
        config.revision = found.revision


def _record_base(job: Job, folder: Path) -> None:
    """Say beside an adapter which weights it belongs to: those that the run says, once here."""
    from peftkit.models.load import identify_base
    from peftkit.rundir.base_record import record_base

    if job.recipe.model.path is not None:
        record_base(folder, job.recipe.model.path, identify_base(job.recipe.model))


def _describe(job: Job, *, is_adapter: bool) -> Card:
    from peftkit.models.load import resolve

    recipe = job.recipe
    versions: dict[str, Any] = job.run_dir.read_json(job.run_dir.versions)
    found = resolve(recipe.model) if recipe.model.path is not None else None
    return Card(
        name=recipe.name,
        base_model=recipe.model.path or "random weights",
        is_on_hub=found is not None and not found.is_local,
        adapter=_adapter_name(job) if is_adapter else None,
        method=recipe.method.name,
        kind=job.built.method.kind,
        recipe=_with_overrides(recipe),
        fingerprint=job.prepared.fingerprint,
        packages=versions.get("packages", {}),
        dtype=recipe.model.dtype,
        quantization=_quantization(job),
        after_loading=_after_loading(job),
        drift=recorded_drift(job.run_dir),
    )


def _after_loading(job: Job) -> str:
    """Return the lines that a plain load of the base needs before the adapter."""
    from peftkit.models.load import load_config

    lines = job.built.quantizer.after_loading if job.built.quantizer else ""
    rows = 1 + max(job.built.adapter.new_tokens if job.built.adapter else (), default=-1)
    if rows > load_config(job.recipe.model).get_text_config().vocab_size:
        lines += f"base.resize_token_embeddings({rows})  # the tokens that were added\n"
    return lines


def _quantization(job: Job) -> tuple[str, dict[str, Any]] | None:
    """Return what the base was quantized with, as transformers takes it; None where it was not."""
    quantizer, quantize = job.built.quantizer, job.built.resolved["model"].get("quantize")
    if quantizer is None or not isinstance(quantizer.Config, str) or not quantize:
        return None
    (options,) = quantize.values()
    return quantizer.Config.rpartition(":")[2], dict(options)


def _adapter_name(job: Job) -> str:
    choice = job.recipe.adapter.choice
    return choice.name if choice is not None else "continued"


def _with_overrides(recipe: Recipe) -> str:
    """Return the recipe as it was written, and below it what the command line changed."""
    if not recipe.overrides:
        return recipe.text
    lines = "".join(f"#   {override}\n" for override in recipe.overrides)
    return f"{recipe.text.rstrip()}\n# changed on the command line:\n{lines}"
