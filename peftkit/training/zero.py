"""DeepSpeed's ZeRO-3: a model is read whole, cut while it trains, and made whole to be saved.

Where DeepSpeed's config asks for it, transformers cuts a model while it reads it. Then no adapter
can be attached, proved or initialised by its weights, and what is scored would meet at each layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from peftkit.errors import UsageError
from peftkit.plugins.speed import UPSTREAM, UPSTREAM_OVERRIDE

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import TrainingArguments

    from peftkit.recipe.schema import Recipe


def is_by_deepspeed(args: TrainingArguments) -> bool:
    """Tell whether DeepSpeed trains: the recipe's `deepspeed` or a launcher asked for it."""
    return getattr(args, "deepspeed_plugin", None) is not None


def cuts_weights(args: TrainingArguments) -> bool:
    """Tell whether the trainer of these arguments cuts weights by ZeRO-3."""
    return is_by_deepspeed(args) and args.deepspeed_plugin.hf_ds_config.is_zero3()


def settle_deepspeed(recipe: Recipe, args: TrainingArguments) -> None:
    """Let transformers read every model whole, which the arguments may have told it to cut.

    Raises:
        UsageError: ZeRO-3 is to gather one layer's weights at a time, and a step reads several.
    """
    if not is_by_deepspeed(args):
        return
    _read_whole()
    if cuts_weights(args) and recipe.speed != UPSTREAM:
        raise UsageError(
            f"{recipe.place('speed')}: DeepSpeed's config is of ZeRO-3, which gathers one layer's"
            " weights at a time, and peftkit's own way to compute a step reads several",
            hint=UPSTREAM_OVERRIDE,
        )


def _read_whole() -> None:
    from transformers.integrations import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


@contextmanager
def cut_while_training(args: TrainingArguments) -> Iterator[None]:
    """Let transformers know of DeepSpeed's config while its trainer is made and trains."""
    if not is_by_deepspeed(args):
        yield
        return
    args.deepspeed_plugin.set_deepspeed_weakref()
    try:
        yield
    finally:
        _read_whole()


def check_goes_on(checkpoint: Path, args: TrainingArguments, *, num_processes: int) -> None:
    """Refuse a checkpoint whose optimizer's state the engine of this run does not read.

    The others would go on with a new one, and say nothing.

    Raises:
        UsageError: names the engine and the number of processes that wrote it.
    """
    num_states = len(list(checkpoint.glob("global_step*/*_optim_states.pt")))
    is_cut = any(checkpoint.glob("global_step*/zero_pp_rank_*_model_states.pt"))
    if not num_states and not is_by_deepspeed(args):
        return
    own = is_by_deepspeed(args), cuts_weights(args)
    if (bool(num_states), is_cut) == own and num_states == num_processes:
        return
    engine = f"zero{3 if is_cut else 2}" if num_states else "ddp"
    written = f"--engine {engine}" + (f" -- --num_processes {num_states}" if num_states else "")
    raise UsageError(
        f"{checkpoint} holds the optimizer's state as {written} wrote it, and DeepSpeed's states"
        " are read by the same engine in as many processes",
        hint=f"go on with {written}, or train anew with --out FOLDER",
    )


def is_partitioned(model: nn.Module) -> bool:
    """Tell whether ZeRO-3 has cut a model's weights."""
    return any(hasattr(parameter, "ds_status") for parameter in model.parameters())


@contextmanager
def gathered(tensor: Tensor) -> Iterator[Tensor]:
    """Make a weight whole for a moment; an exchange, where it is cut."""
    if not hasattr(tensor, "ds_status"):
        yield tensor
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([tensor]):
        yield tensor
