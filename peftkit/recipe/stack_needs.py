"""What the stack says only once weights are read: a missing package, a device, a bad schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from peftkit.errors import ArtefactError, first_line
from peftkit.plugins import find
from peftkit.recipe.schema import Recipe
from peftkit.recipe.stated import Found
from peftkit.recipe.trackers import OPTION, TRACKERS, reported_to
from peftkit.system.patterns import check_pattern

_PACKAGES = {"use_liger_kernel": "liger_kernel", "deepspeed": "deepspeed"}
"""Option -> the package that it needs."""
_DEVICES = re.compile(r"(cuda|xpu|mps|npu)(:\d+)?")
_PLACES = ("auto", "balanced", "balanced_low_0", "sequential", "cpu")
"""What `device_map` says of no device."""


def find_needs(recipe: Recipe, config: Any, device: str) -> Found:
    """Find what this machine cannot do of a training, as (key, problem, what to do).

    Args:
        config: the method's native arguments; None where they were refused.
        device: that trains.
    """
    yield from _on_a_cpu(recipe, device)
    yield from _device_map(recipe, device)
    yield from _packages(recipe)
    yield from _best_metric(recipe)
    yield from _patterns(recipe)
    yield from _trackers(recipe)
    if config is not None:
        yield from _schedule(recipe, config)


def _at(recipe: Recipe, option: str) -> str:
    return f"method.{recipe.method.name}.{option}"


def _on_a_cpu(recipe: Recipe, device: str) -> Found:
    """Find what moves tensors to the host, where a CPU's are already."""
    options = recipe.method.options
    stated = {"activation_offloading": options.get("activation_offloading")}
    for key in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        nested = options.get(key)
        stated[f"{key}.offload"] = isinstance(nested, Mapping) and nested.get("offload")
    for key, value in stated.items():
        if value and device == "cpu":
            yield (
                _at(recipe, key),
                "needs an accelerator: it moves tensors to the host, where a CPU's are",
                f"delete it; {_at(recipe, 'activation_checkpointing')} saves memory on a CPU",
            )


def _device_map(recipe: Recipe, device: str) -> Found:
    wanted = recipe.model.device_map
    if wanted is None or wanted in _PLACES:
        return
    named = _DEVICES.fullmatch(wanted)
    if named is None:
        yield "model.device_map", f"{wanted!r} is no device", f"one of {', '.join(_PLACES)}, cuda:0"
    elif named[1] != device:
        yield (
            "model.device_map",
            f"{wanted} is asked for, and this run is on {device}",
            "delete it: a run takes the device that is there",
        )


def _packages(recipe: Recipe) -> Found:
    for option, package in _PACKAGES.items():
        if recipe.method.options.get(option) and find_spec(package) is None:
            yield (
                _at(recipe, option),
                f"needs the package {package}, which is missing",
                f"pip install {package.replace('_', '-')}, or delete it",
            )


def _trackers(recipe: Recipe) -> Found:
    """Make what the trainer would make of each tracker: its package may be broken in any way."""
    for name in reported_to(recipe.method.options):
        from transformers.integrations import get_reporting_integration_callbacks

        try:
            # First: a callback of MLflow's whose import failed complains once more when it goes.
            TRACKERS[name].import_all()
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except Exception as error:
            yield (
                _at(recipe, OPTION),
                f"{name} is installed, and fails: {type(error).__name__}: {first_line(error)}",
                f"pip install --force-reinstall {TRACKERS[name].install}, or write report_to: none",
            )


def _best_metric(recipe: Recipe) -> Found:
    """Find a metric that no evaluation of the method's trainer returns."""
    wanted = recipe.method.options.get("metric_for_best_model")
    known = find("methods", recipe.method.name).best_metrics
    if isinstance(wanted, str) and wanted.removeprefix("eval_") not in known:
        yield (
            _at(recipe, "metric_for_best_model"),
            f"an evaluation while it trains measures {', '.join(known)}, not {wanted}",
            f"write {known[0]}",
        )


def _patterns(recipe: Recipe) -> Found:
    """Find patterns of names that no model's names end."""
    choice = recipe.adapter.choice
    if choice is None:
        return
    for key, value in choice.options.items():
        is_pattern = key in ("target_modules", "exclude_modules") and isinstance(value, str)
        is_table = key in ("rank_pattern", "alpha_pattern") and isinstance(value, Mapping)
        for pattern in [value] if is_pattern else list(value) if is_table else []:
            try:
                check_pattern(str(pattern), key)
            except ArtefactError as error:
                yield f"adapter.{choice.name}.{key}", error.message, error.hint


def _schedule(recipe: Recipe, config: Any) -> Found:
    """Make the schedule of the learning rate for one weight: it says by itself what it lacks."""
    kind = getattr(config, "lr_scheduler_type", None)
    if kind is None:
        return
    import torch
    from transformers import get_scheduler

    rate = config.learning_rate
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    try:
        get_scheduler(
            kind,
            optimizer=optimizer,
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=config.lr_scheduler_kwargs or {},
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        text = re.sub(r"\s+", " ", str(error)).removesuffix(".")
        is_stated = bool(recipe.method.options.get("lr_scheduler_kwargs"))
        key = "lr_scheduler_kwargs" if is_stated else "lr_scheduler_type"
        lacks = re.search(r"argument: '(\w+)'|One of (\w+)", text)
        name = next(filter(None, lacks.groups()), "NAME") if lacks else "NAME"
        yield (
            _at(recipe, key),
            f"the schedule {getattr(kind, 'value', kind)} cannot be made: {text}",
            f"write {_at(recipe, 'lr_scheduler_kwargs')}: {{{name}: ...}}"
            if lacks
            else "mend the options, or choose another lr_scheduler_type",
        )
