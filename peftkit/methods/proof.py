"""Whether a model computes the same on a faster way: tried on two rows before it is trained.

What a family does between its layers and its logits, and whether its attention heeds rows, is its
own code's affair. Instead of trusting a list of families, two short rows go both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import first_line
from peftkit.kernels.row_attention import attending
from peftkit.methods.trained_positions import FlatCollator
from peftkit.plugins.native import native_model
from peftkit.plugins.rows import IGNORED
from peftkit.plugins.speed import Way
from peftkit.plugins.trained_loss import TrainedLoss, head_of

if TYPE_CHECKING:
    import torch

LENGTHS = (5, 11)
"""Tokens of the rows that are tried."""
TRAINED = slice(1, None, 3)
"""Which of a row's tokens are: one in three, so that what is left out of a step is tried too."""


def disagreement(way: Way, model: Any, loss: TrainedLoss) -> str | None:
    """Say how a model's logits differ on this way from its own; None where they do not.

    The model, its random state and its attention are afterwards what they were.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    native = native_model(model)
    if way.scores_trained and isinstance(native.get_output_embeddings(), BaseTunerLayer):
        return "the head is adapted, and an adapter begins by changing nothing that could be seen"
    with _as_used(model, native):
        try:
            wanted = _own_logits(model, native)
            with attending(native, by_rows=way.by_rows):
                found = _logits(way, model, native, loss)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            return f"{type(native).__name__} cannot go this way: {first_line(error)}"
    import torch

    if found.shape != wanted.shape:
        return f"{type(native).__name__} reads other positions this way"
    tolerance = torch.finfo(native.dtype).eps ** 0.5
    distance = float((found - wanted).norm() / wanted.norm())
    if distance <= tolerance:
        return None
    return f"{type(native).__name__} computes other logits this way, by {distance:.1%}"


def _rows(native: Any) -> list[list[int]]:
    """Make two rows of tokens; which ones does not matter."""
    vocabulary = native.config.get_text_config().vocab_size
    return [[(7 * i + 3 * length + 1) % vocabulary for i in range(length)] for length in LENGTHS]


def _labels(row: list[int]) -> list[int]:
    trained = range(len(row))[TRAINED]
    return [token if at in trained else IGNORED for at, token in enumerate(row)]


def _own_logits(model: Any, native: Any) -> torch.Tensor:
    """Return the logits that trained tokens are predicted by, each row by itself."""
    import torch

    device = native.get_input_embeddings().weight.device
    found = []
    for row in _rows(native):
        ids = torch.tensor([row], device=device)
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, :-1]
        found.append(logits[TRAINED.start - 1 :: TRAINED.step])
    return torch.cat(found).float()


def _logits(way: Way, model: Any, native: Any, loss: TrainedLoss) -> torch.Tensor:
    import torch
    from torch.nn.functional import linear
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from peftkit.kernels.head_loss import bent

    device = native.get_input_embeddings().weight.device
    collate = FlatCollator(0) if way.by_rows else DataCollatorForLanguageModeling(0)
    batch = collate([{"input_ids": row, "labels": _labels(row)} for row in _rows(native)])
    batch = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
    chosen, _ = loss.read(model, native, batch)
    return bent(linear(chosen, *head_of(native)).float(), loss.scoring)


@contextmanager
def _as_used(model: Any, native: Any) -> Iterator[None]:
    """Switch dropout off while rows are tried, and put everything back.

    A packed base stays in training mode: for a CPU's evaluation its weights may be packed anew.
    """
    import torch

    was_training = model.training
    is_packed = getattr(native, "hf_quantizer", None) is not None
    state = torch.get_rng_state()
    if not is_packed:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        torch.set_rng_state(state)
