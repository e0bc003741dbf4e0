"""Run the longest real batch once before step 1, so that memory runs out at second 5, not hour 5.

Nothing else changes: weights, random state and gradients are what they were, and the optimizer
that steps here is thrown away, so that the run goes on bit for bit as if it had not been probed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError
from peftkit.memory import step
from peftkit.memory.lengths import longest_rows
from peftkit.system.exhaustion import is_exhaustion

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

    from peftkit.plugins import Method


class OptimizerError(Exception):
    """Raised where the optimizer, and not the model, cannot take a step: its cause says why."""


def probe_longest_batch(trainer: Trainer, method: Method, *, device: str) -> int | None:
    """Train one step on the longest rows, and undo it.

    Args:
        device: `cpu`, `cuda` ..., whose random state is kept.

    Returns:
        the tokens of the longest row; None where only the trainer can compute its loss.

    Raises:
        OptimizerError: the optimizer raises anything but want of memory.
    """
    loss_of = None if method.loss() is None else method.loss_on(trainer.model.config)
    if loss_of is None:
        return None
    args, model = trainer.args, trainer.model
    rows: Any = trainer.train_dataset
    lengths = method.lengths(rows)
    chosen = longest_rows(lengths, args.per_device_train_batch_size)
    batch = trainer.data_collator([rows[index] for index in chosen])
    settings = step.StepSettings.of(args, device)
    was_training = model.training
    with _undone(model, device):
        model.train()
        step.set_checkpointing(model, args)
        trained = [p for p in model.parameters() if p.requires_grad]
        batch = trainer._prepare_inputs(batch)
        step.forward_backward(model, batch, loss_of, settings, _ignore)
        with _told_from_the_model():
            step.update(trained, step.make_optimizer(model, method), settings, _ignore)
    model.train(was_training)
    return max(lengths)


@contextmanager
def _told_from_the_model() -> Iterator[None]:
    try:
        yield
    except PeftkitError:
        raise
    except Exception as error:
        if is_exhaustion(error):
            raise
        raise OptimizerError from error


@contextmanager
def _undone(model: Any, device: str) -> Iterator[None]:
    """Put back what is trained, every buffer, and every generator's state, whatever happens."""
    import numpy as np
    import torch

    kept = [(p, _to_host(p)) for p in model.parameters() if p.requires_grad]
    kept += [(b, _to_host(b)) for b in model.buffers()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_device = None if device == "cpu" else torch.get_device_module(device).get_rng_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in kept:
                tensor.copy_(values)
        model.zero_grad(set_to_none=True)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_device is not None:
            torch.get_device_module(device).set_rng_state(on_device)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _ignore(_phase: str) -> None:
    pass
