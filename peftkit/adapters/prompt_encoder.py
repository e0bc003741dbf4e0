"""Prompts that an encoder computes: PEFT saves what it computed, and training needs the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.extra_state import read_resumed, read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import TrainerCallback


def encoder_keeper() -> TrainerCallback:
    """Return the callback that keeps the whole encoder in checkpoints and takes it up again."""
    from transformers import TrainerCallback

    class EncoderKeeper(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Keep every trained parameter."""

        def on_train_begin(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Put the parameters of the checkpoint into the model."""
            saved = read_resumed(args, state)
            if saved is not None:
                put_back(model, saved)

        def on_train_end(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Put the best encoder back where the trainer has loaded the best prompt."""
            if args.load_best_model_at_end and state.best_model_checkpoint is not None:
                put_back(model, read_state(Path(state.best_model_checkpoint)))

        def on_save(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Write them beside what PEFT saves."""
            trained = {
                name: parameter.detach().cpu()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
            write_state(args, state, trained)

    return EncoderKeeper()


def put_back(model: Any, trained: Mapping[str, Tensor]) -> None:
    """Copy saved parameters into a model that was attached the same way."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in trained.items():
            parameters[name].copy_(value)
