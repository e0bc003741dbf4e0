"""A training whose numbers are none: how it is told, and weights looked at before a save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import DivergedError
from peftkit.rundir import checkpoints as resume
from peftkit.training.shards import local

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainingArguments

_NUM_TOKENS = 8


def diverged(
    method: str, checkpoints: Path, step: int, what: str, args: TrainingArguments
) -> DivergedError:
    """Make the error of a step that left no numbers.

    Args:
        what: was found.
        args: of the training, whose rate is the first suspect.
    """
    key = f"method.{method}.learning_rate"
    calmer = min(args.learning_rate / 10, 2e-4)
    return DivergedError(
        f"{key}: step {step}: {what} (learning_rate {args.learning_rate:g}, max_grad_norm"
        f" {args.max_grad_norm:g}); {kept_checkpoint(checkpoints)}",
        hint=f"{key}={calmer:g} and another --out; if that diverges too, look at the rows with"
        " `peftkit data`",
    )


def kept_checkpoint(checkpoints: Path) -> str:
    """Say which checkpoint there is."""
    sealed = resume.list_checkpoints(checkpoints)
    return f"{sealed[-1].path} is kept" if sealed else "no checkpoint was due before it"


def find_broken(model: nn.Module) -> str | None:
    """Say what of a model's trained weights is no number, or computes none; None where all is.

    Gradients and losses are looked at in every step, and speak of the weights before it. Weights of
    1e30 are numbers still, and nothing that they compute is one.
    """
    from peftkit.models.finite import describe, find_not_finite

    trained = [(name, local(p)) for name, p in model.named_parameters() if p.requires_grad]
    wrong = find_not_finite(trained)
    if wrong:
        return f"{describe(wrong, len(trained))} hold NaN or infinity after it"
    if not _computes(model):
        return "what the model computes with the weights after it is no number"
    return None


def _computes(model: Any) -> bool:
    """Tell whether a few tokens come out as numbers; of a model that takes no tokens, nothing."""
    from peftkit.models.logit_parity import head_outputs

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        outputs = head_outputs(model, range(1, 1 + _NUM_TOKENS))
    except Exception:  # its forward wants more than tokens: pictures, a fixed length, labels
        return True
    finally:
        for module, was_training in modes:
            module.training = was_training
    return all(not bool(one.isnan().any()) for one in outputs)
