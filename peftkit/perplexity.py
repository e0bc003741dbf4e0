"""Measure how well a causal language model expects tokens, within bounded memory.

Shapes: B rows, T tokens, K kept positions, V vocabulary, N trained tokens.
"""

# ruff: noqa: N803, N806 - shape suffixes

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.generation import evaluating, num_virtual_tokens
from peftkit.masks import IGNORED

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

Progress = Callable[[int, int], None]

LOGITS_BYTES = 256 * 2**20
"""Bound on one batch's logits in the model's dtype, and so on how many rows share a forward."""
MAX_ROWS = 32
"""Rows that share a forward at most."""
UPCAST_TOKENS = 256
"""Trained tokens whose logits are in float32 at the same time."""


@dataclass(frozen=True)
class TokenLoss:
    """Hold the summed negative log-likelihood of trained tokens."""

    nats: float
    num_tokens: int

    @property
    def perplexity(self) -> float | None:
        """Return exp of the mean; None without tokens or beyond what a float holds."""
        if not self.num_tokens or self.nats / self.num_tokens > 700:
            return None
        value = math.exp(self.nats / self.num_tokens)
        return value if math.isfinite(value) else None

    def bits_per_byte(self, num_bytes: int) -> float | None:
        """Spread the loss over the text's bytes, which no tokenizer changes."""
        if not num_bytes or not math.isfinite(self.nats):
            return None
        return self.nats / math.log(2) / num_bytes


def token_loss(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Mapping[str, Sequence[int]]],
    *,
    progress: Progress | None = None,
) -> TokenLoss:
    """Sum the loss over every trained token of rows of `input_ids` and `labels`.

    Each token counts once, whatever its row's length, as in the loss of a batch that holds all
    rows. Rows may not exceed the model's positions.
    """
    import torch

    scored = [row for row in rows if _num_trained(row)]
    order = sorted(range(len(scored)), key=lambda i: -len(scored[i]["input_ids"]))
    nats, num_tokens, done = 0.0, 0, 0
    with evaluating(model), torch.no_grad():
        for indices in _batches(order, scored, model):
            batch = [scored[i] for i in indices]
            nats += _batch_nats(model, batch)
            num_tokens += sum(map(_num_trained, batch))
            done += len(batch)
            if progress:
                progress(done, len(scored))
    return TokenLoss(nats, num_tokens)


def windows(
    row: Mapping[str, Sequence[int]], max_tokens: int | None
) -> Iterator[dict[str, list[int]]]:
    """Cut a long row into windows that overlap by one token, so that each is predicted once."""
    ids, labels = list(row["input_ids"]), list(row["labels"])
    if max_tokens is None or len(ids) <= max_tokens:
        yield {"input_ids": ids, "labels": labels}
        return
    for start in range(0, len(ids) - 1, max_tokens - 1):
        stop = start + max_tokens
        yield {"input_ids": ids[start:stop], "labels": labels[start:stop]}


def _num_trained(row: Mapping[str, Sequence[int]]) -> int:
    """Count the predicted tokens: the first of a row has nothing before it."""
    return sum(label != IGNORED for label in row["labels"][1:])


def _batches(
    order: Sequence[int],
    rows: Sequence[Mapping[str, Sequence[int]]],
    model: PreTrainedModel | PeftModel,
) -> Iterator[list[int]]:
    """Group rows of like length so that a batch's logits keep within `LOGITS_BYTES`."""
    vocab_size = model.get_input_embeddings().weight.shape[0]
    budget = max(1, LOGITS_BYTES // (vocab_size * model.dtype.itemsize))
    batch: list[int] = []
    kept: set[int] = set()
    for index in order:
        own = {at for at, label in enumerate(rows[index]["labels"]) if label != IGNORED}
        if batch and (len(kept | own) * (len(batch) + 1) > budget or len(batch) == MAX_ROWS):
            yield batch
            batch, kept = [], set()
        batch.append(index)
        kept |= own
    if batch:
        yield batch


def _batch_nats(
    model: PreTrainedModel | PeftModel, batch: Sequence[Mapping[str, Sequence[int]]]
) -> float:
    import torch

    width = max(len(row["input_ids"]) for row in batch)
    device = model.get_input_embeddings().weight.device

    def padded(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)

    input_ids_BT = padded([row["input_ids"] for row in batch], 0)
    labels_BT = padded([row["labels"] for row in batch], IGNORED)
    mask_BT = padded([[1] * len(row["input_ids"]) for row in batch], 0)
    # Position t predicts token t + 1
    kept_K = (labels_BT[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
    targets_BK = labels_BT[:, 1:][:, kept_K]
    logits_BKV = _logits(model, input_ids_BT, mask_BT, kept_K)
    trained_BK = targets_BK.to(logits_BKV.device) != IGNORED
    logits_NV = logits_BKV[trained_BK]
    targets_N = targets_BK.to(logits_BKV.device)[trained_BK]
    total = 0.0
    for start in range(0, len(targets_N), UPCAST_TOKENS):
        part = slice(start, start + UPCAST_TOKENS)
        losses = torch.nn.functional.cross_entropy(
            logits_NV[part].float(), targets_N[part], reduction="none"
        )
        total += float(losses.double().sum())
    return total


def _logits(
    model: PreTrainedModel | PeftModel, input_ids_BT: Tensor, mask_BT: Tensor, kept_K: Tensor
) -> Tensor:
    """Return logits_BKV at the kept positions, computing no others where the model can."""
    options: dict[str, Any] = {"input_ids": input_ids_BT, "attention_mask": mask_BT}
    native = model.get_base_model() if hasattr(model, "get_base_model") else model
    # A soft prompt moves positions inside peft, so its logits are picked afterwards
    can_keep = "logits_to_keep" in inspect.signature(native.forward).parameters
    if can_keep and not num_virtual_tokens(model):
        options["logits_to_keep"] = kept_K
    logits: Tensor = model(**options, use_cache=False).logits
    if "logits_to_keep" in options:
        return logits
    return logits[:, -input_ids_BT.shape[1] :][:, kept_K.to(logits.device)]
