"""Load what a run trained: its recipe, its tokenizer, its base and its adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.plugins.native import trains_head
from peftkit.rundir.base_record import check_base
from peftkit.rundir.paths import RunDir
from peftkit.rundir.whole import check_weights
from peftkit.system.process import this_process

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.recipe.build import Built


@dataclass(frozen=True)
class TrainedRun:
    """Hold a finished run's recipe, built again on this machine, and its tokenizer."""

    run_dir: RunDir
    built: Built
    tokenizer: PreTrainedTokenizerBase
    device: str
    other_base: str = ""
    """What to say of a base whose weights are others than in training, if that was allowed."""


def open_run(
    run_dir: RunDir,
    overrides: Sequence[str] = (),
    *,
    use: str = "evaluate",
    base: str | None = None,
    allow_other_base: bool = False,
) -> TrainedRun:
    """Read a finished run's recipe and tokenizer; no weights yet.

    Args:
        use: what it is opened for, as a record says it; `evaluate` alone reads the data too.
        base: where the base lies now; where the run says when absent.
        allow_other_base: go on although the base's weights are other ones than in training.

    Raises:
        UsageError: the base's weights are other ones than in training.
        ArtefactError: the directory is not a run, the run has trained nothing yet, or the base
            of its adapter is not there.
    """
    if not run_dir.resolved.exists():
        raise _no_run(run_dir, use)
    check_weights(run_dir)
    from peftkit.models.load import identify_base
    from peftkit.models.reader import load_reader
    from peftkit.recipe.build import build
    from peftkit.rundir.trained_recipe import check_base_is_there, load_trained_recipe
    from peftkit.system.machine import describe_machine

    recipe = load_trained_recipe(run_dir, overrides, base=base, with_data=use == "evaluate")
    other_base = ""
    if run_dir.adapter.is_dir() and recipe.model.path is not None:
        check_base_is_there(recipe.model.path)
        identity = identify_base(recipe.model)
        other_base = check_base(run_dir.path, identity, use=use, allow_other=allow_other_base)
    machine = describe_machine()
    built = build(recipe, machine, trains=False)
    section = recipe.model
    if not run_dir.adapter.is_dir():  # the tokenizer of a whole model lies beside it, with all
        section = dataclasses.replace(section.saved_in(run_dir.model), chat_template=None)
    tokenizer = load_reader(section, recipe.file.parent, built.method)
    built.task.prepare_tokenizer(tokenizer)
    device = "cpu" if built.method.use_cpu else machine.device
    return TrainedRun(run_dir, built, tokenizer, device, other_base)


def _no_run(run_dir: RunDir, use: str) -> ArtefactError:
    """Say what was looked for, and name the run that may have been meant."""
    path, looked = run_dir.path, f"{run_dir.resolved.name} of a run"
    more = ""
    if use == "generate":
        looked += ", config.json of a model, adapter_config.json of an adapter"
        more = "; `generate` also asks a model or an adapter: a folder, embedded:NAME or OWNER/NAME"
    if path.exists():
        what = f"{path} is not a run directory: it has no {run_dir.resolved.name}"
        problem = f"{what} (looked for {looked})" if more else what
    else:
        problem = f"{path} is not there (looked for {looked})"
    around = [*path.parent.glob("*/"), *Path("runs").glob("*/")]
    runs = sorted({str(one) for one in around if RunDir(one).is_begun})
    meant = [one for one in runs if Path(one).name == path.name]
    near = meant or get_close_matches(str(path), runs, n=1, cutoff=0.5)
    if near:
        return ArtefactError(problem, hint=f"peftkit {use} {near[0]}{more}")
    return ArtefactError(problem, hint=f"`peftkit runs` lists the runs that exist{more}")


def load_base_of(
    built: Built,
    device: str,
    config_options: Mapping[str, Any] | None = None,
    brought: Set[str] | None = None,
) -> PreTrainedModel:
    """Load the base model that a recipe starts from.

    Args:
        config_options: what its configuration must say, e.g. a classifier's labels.
        brought: as `peftkit.models.base.load_base` takes it.

    Raises:
        UsageError: the recipe builds a new model, so there is none.
    """
    from peftkit.models.base import load_base

    with this_process().together():
        return load_base(
            built.recipe.model,
            kind=built.method.kind,
            quantizer=built.quantizer,
            device=device,
            config_options=config_options,
            brought=brought,
        )


def load_tuned(run: TrainedRun) -> PreTrainedModel | PeftModel:
    """Load the base with the run's adapter, or the run's whole model."""
    from peftkit.models.base import load_base

    if run.run_dir.adapter.is_dir():
        from peftkit.adapters.continued import brought_by, load_adapter

        adapter = run.run_dir.adapter
        labels = trained_labels(run.run_dir)
        base = load_base_of(run.built, run.device, labels, brought_by(adapter))
        # Computed as in training, down to the last bit: a run's scores are those of `evaluate`.
        is_fused = run.built.recipe.speed.fused_adapter != "off"
        return load_adapter(base, adapter, is_trainable=False, is_fused=is_fused)
    whole = run.built.recipe.model.saved_in(run.run_dir.model)
    return load_base(whole, kind=run.built.method.kind, device=run.device)


def trained_labels(run_dir: RunDir) -> dict[str, Any]:
    """Return what a trained classifier's configuration says of its labels; nothing for others."""
    from peftkit.preprocessing.class_labels import labels_of_config

    file = run_dir.adapter / "config.json"
    return labels_of_config(run_dir.read_if_there(file))


def load_untrained(run: TrainedRun) -> PreTrainedModel:
    """Load the base as it was before training.

    Raises:
        UsageError: it has a head that was new.
    """
    kind = run.built.method.kind
    if not kind.has_new_head:
        return load_base_of(run.built, run.device)
    if trains_head(load_tuned(run)):
        lack = "labels: its classification" if kind.answers == "labels" else "answers: its"
        raise UsageError(f"the base knows no {lack} head is new and untrained")
    labels = trained_labels(run.run_dir)
    return load_base_of(run.built, run.device, labels, brought=frozenset())
