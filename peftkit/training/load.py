"""Load what a run trains: the base with its adapter attached, or what was trained already."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import UsageError
from peftkit.preprocessing.class_labels import labels_of_config
from peftkit.system.checkpoint_files import read_json
from peftkit.system.exhaustion import exhaustion_explained
from peftkit.training.prepare import seed_of
from peftkit.training.processes import is_cut

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from peftkit.preprocessing.class_labels import Labels
    from peftkit.system.screen import Screen
    from peftkit.training.prepare import Job


def load_model(job: Job, screen: Screen) -> PreTrainedModel | PeftModel:
    """Load the base, or make a new model, and attach what is trained."""
    from transformers import set_seed

    from peftkit.adapters.base import count_parameters
    from peftkit.adapters.continued import brought_by
    from peftkit.recipe.blame import blamed

    earlier = Path(str(job.recipe.adapter.continue_from))
    with exhaustion_explained("reading the base model"):
        brought = None
        if job.built.adapter is None:
            with blamed(job.recipe, "adapter.from", "adapter"):
                check_same_labels(earlier, job.prepared.labels)
                brought = brought_by(earlier)
        set_seed(seed_of(job))  # a classifier's head is new
        base = load_base(job, brought)
        set_seed(seed_of(job))  # as SFTTrainer does before it attaches an adapter itself
        if job.built.adapter is not None:
            with blamed(job.recipe, "adapter"):
                model = job.built.adapter.attach(base)
        else:
            with blamed(job.recipe, "adapter.from", "adapter"):
                model = _attached(job, base, earlier, is_trainable=True)
    trainable, total = count_parameters(model, job.built.quantizer)
    screen.say(
        f"  model    {job.recipe.model.path or 'new'}: {trainable:,} of {total:,} parameters"
        f" trained ({trainable / total:.2%}) on {job.machine.name}"
    )
    check_fused(job, model, screen)
    _try_answers(job, model)
    return model


def _try_answers(job: Job, model: PreTrainedModel | PeftModel) -> None:
    """Let a model answer by the recipe's options of generation, which no check knows all about.

    Raises:
        UsageError: with what transformers says of them.
    """
    from peftkit.recipe.blame import blamed
    from peftkit.scoring.generation import check_answers

    section = job.recipe.evaluate
    is_asked = section is not None and section.generation and not is_cut(job.recipe)
    if section is not None and is_asked and job.built.method.kind.answers == "text":
        with blamed(job.recipe, "evaluate.generation", "evaluate"):
            check_answers(model, job.tokenizer, section.generation)


def check_fused(job: Job, model: PreTrainedModel | PeftModel, screen: Screen) -> None:
    """Say how many layers of an adapter compute by `peftkit.kernels`.

    Raises:
        UsageError: the recipe asks for all of them, and some cannot.
    """
    from peftkit.adapters.fused import fused_layers

    wanted = job.recipe.speed.fused_adapter
    num_fused, num_linear = fused_layers(model)
    if wanted == "off" or (not num_linear and wanted == "auto"):
        return
    if wanted == "on" and (num_fused < num_linear or not num_linear):
        place = job.recipe.place("speed.fused_adapter", "speed")
        raise UsageError(
            f"{place}: {num_linear - num_fused} of this adapter's {num_linear} linear layers cannot"
            " be fused: a quantizer packs their weights in its own way",
            hint="speed.fused_adapter=auto",
        )
    screen.say(f"  speed    {num_fused} of {num_linear} LoRA layers compute in one step")


def check_same_labels(path: Path, labels: Labels) -> None:
    """Refuse to go on with a classifier whose head was trained for other labels.

    Raises:
        UsageError: lists both.
    """
    from peftkit.adapters.continued import adapter_folder

    file = adapter_folder(path) / "config.json"
    if not labels.outputs or not file.is_file():
        return
    earlier = tuple(labels_of_config(read_json(file)).get("id2label", {}).values())
    if earlier != labels.outputs:
        raise UsageError(
            f"{path} was trained for the labels {', '.join(earlier)}, and these rows have"
            f" {', '.join(labels.outputs)}",
            hint="train a new adapter, or rows with those labels in that order",
        )


def load_base(job: Job, brought: Set[str] | None = None) -> PreTrainedModel:
    """Load the base's weights, or make random ones for `model.config`.

    Args:
        brought: as `peftkit.models.base.load_base` takes it.
    """
    from peftkit.models.base import load_base as load_from
    from peftkit.models.new_model import init_model
    from peftkit.recipe.blame import blamed

    section, kind = job.recipe.model, job.built.method.kind
    config_options = job.prepared.labels.model_options(job.tokenizer, kind)
    if section.config is not None:
        return init_model(
            section,
            kind=kind,
            seed=seed_of(job),
            tokenizer=job.tokenizer,
            config_options={
                **config_options,
                **job.built.method.new_model_options(job.tokenizer, section.config),
            },
        )
    with blamed(job.recipe, "model.path", "model"):
        return load_from(
            section,
            kind=kind,
            quantizer=job.built.quantizer,
            device=_device(job),
            config_options=config_options,
            brought=brought,
        )


def _device(job: Job) -> str:
    """Say where a base is read to: the host where it is cut into shards, which may be all that fit.

    A quantizer quantizes on the device.
    """
    is_read_to_host = is_cut(job.recipe) and job.built.quantizer is None
    return "cpu" if is_read_to_host else job.machine.device


def load_trained(job: Job, folder: Path) -> PreTrainedModel | PeftModel:
    """Load what was trained from an adapter's or a model's folder, to be used as it is."""
    if (folder / "adapter_config.json").is_file():
        return _with_adapter(job, folder, is_trainable=False)
    return _load_whole(job, folder)


def load_last(job: Job, checkpoint: Path, screen: Screen) -> PreTrainedModel | PeftModel:
    """Load the checkpoint that a training ended with, as the training would have left it."""
    if not (checkpoint / "adapter_config.json").is_file():
        return _load_whole(job, checkpoint)
    adapter = job.built.adapter
    if adapter is not None and adapter.has_own_checkpoints:
        model = load_model(job, screen)
        adapter.load_checkpoint(model, checkpoint)
        return model
    return _with_adapter(job, checkpoint, is_trainable=True)


def _with_adapter(job: Job, folder: Path, *, is_trainable: bool) -> PeftModel:
    from peftkit.adapters.continued import brought_by

    base = load_base(job, brought_by(folder))
    return _attached(job, base, folder, is_trainable=is_trainable)


def _attached(job: Job, base: PreTrainedModel, folder: Path, *, is_trainable: bool) -> PeftModel:
    """Attach an adapter that computes as in training, down to the last bit."""
    from peftkit.adapters.continued import load_adapter

    is_fused = job.recipe.speed.fused_adapter != "off"
    return load_adapter(base, folder, is_trainable=is_trainable, is_fused=is_fused)


def _load_whole(job: Job, folder: Path) -> PreTrainedModel | PeftModel:
    from peftkit.models.base import load_base as load_from

    whole = job.recipe.model.saved_in(folder)
    return load_from(whole, kind=job.built.method.kind, device=job.machine.device)
