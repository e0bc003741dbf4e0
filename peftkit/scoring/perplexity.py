"""Measure how well a language model expects tokens, within bounded memory.

Shapes: B rows, T tokens, S tokens of a target, K kept positions, V vocabulary, N trained tokens.
"""

# ruff: noqa: N803, N806 - shape suffixes

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.models.decoder_start import decoder_inputs
from peftkit.plugins.last_block import last_block_at
from peftkit.plugins.native import accepted_inputs, native_model, num_virtual_tokens
from peftkit.plugins.rows import IGNORED
from peftkit.plugins.trained_loss import trained_positions
from peftkit.scoring.at_once import tokens_at_once
from peftkit.scoring.generation import evaluating
from peftkit.scoring.shared import shared

if TYPE_CHECKING:
    import torch
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

    The labels of an encoder-decoder are a sequence of their own, which its decoder writes. Each
    token counts once, whatever its row's length, as in the loss of a batch that holds all rows.
    Rows may not exceed the model's positions.
    """

    is_apart = model.config.is_encoder_decoder
    # The first token of a row has nothing before it, and that of a target has the source.
    first = 0 if is_apart else 1
    scored = [row for row in rows if _num_trained(row, first)]
    nats = row_nats(model, scored, progress=progress)
    return TokenLoss(math.fsum(nats), sum(_num_trained(row, first) for row in scored))


def row_nats(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Mapping[str, Sequence[int]]],
    *,
    progress: Progress | None = None,
) -> list[float]:
    """Return the loss of each row, summed over its trained tokens; see `token_loss`."""
    import torch

    batch_nats = _target_nats if model.config.is_encoder_decoder else _batch_nats
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))

    def read(order: Sequence[int]) -> dict[int, float]:
        found: dict[int, float] = {}
        with evaluating(model), torch.no_grad():
            for indices in _batches(order, rows, model):
                nats = batch_nats(model, [rows[i] for i in indices])
                found.update(zip(indices, nats, strict=True))
                if progress:
                    progress(len(found), len(order))
        return found

    found = shared(order, read)
    return [found[index] for index in range(len(rows))]


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


def _num_trained(row: Mapping[str, Sequence[int]], first: int) -> int:
    return sum(label != IGNORED for label in row["labels"][first:])


def _batches(
    order: Sequence[int],
    rows: Sequence[Mapping[str, Sequence[int]]],
    model: PreTrainedModel | PeftModel,
) -> Iterator[list[int]]:
    """Group rows of like length, the longest first, within `LOGITS_BYTES` and tokens at once."""
    embedding = model.get_input_embeddings().weight
    budget = max(1, LOGITS_BYTES // (embedding.shape[0] * model.dtype.itemsize))
    at_once = tokens_at_once(embedding.device.type)
    batch: list[int] = []
    kept: set[int] = set()
    for index in order:
        own = {at for at, label in enumerate(rows[index]["labels"]) if label != IGNORED}
        longest = len(rows[(batch or [index])[0]]["input_ids"])
        is_full = len(batch) == MAX_ROWS or (
            at_once is not None and longest * (len(batch) + 1) > at_once
        )
        if batch and (is_full or len(kept | own) * (len(batch) + 1) > budget):
            yield batch
            batch, kept = [], set()
        batch.append(index)
        kept |= own
    if batch:
        yield batch


def _batch_nats(
    model: PreTrainedModel | PeftModel, batch: Sequence[Mapping[str, Sequence[int]]]
) -> list[float]:
    input_ids_BT, mask_BT = _padded_inputs(model, batch)
    labels_BT = _padded([row["labels"] for row in batch], IGNORED, input_ids_BT.device)
    # Position t predicts token t + 1
    kept_K = (labels_BT[:, 1:] != IGNORED).any(dim=0).nonzero().squeeze(1)
    targets_BK = labels_BT[:, 1:][:, kept_K]
    if num_virtual_tokens(model):  # which move positions inside peft
        logits_BKV = _logits(model, input_ids_BT, mask_BT, kept_K)
    else:
        at = trained_positions(labels_BT)[0]
        with last_block_at(native_model(model), at, labels_BT.shape):
            logits_BKV = _logits(model, input_ids_BT, mask_BT, kept_K)
    return _nats(logits_BKV, targets_BK)


def _target_nats(
    model: PreTrainedModel | PeftModel, batch: Sequence[Mapping[str, Sequence[int]]]
) -> list[float]:
    input_ids_BT, mask_BT = _padded_inputs(model, batch)
    labels_BS = _padded([row["labels"] for row in batch], IGNORED, input_ids_BT.device)
    outputs = model(
        input_ids=input_ids_BT,
        attention_mask=mask_BT,
        decoder_input_ids=decoder_inputs(model, labels_BS),
        use_cache=False,
    )
    # A soft prompt in front of the decoder has logits too
    return _nats(outputs.logits[:, -labels_BS.shape[1] :], labels_BS)


def _padded_inputs(
    model: PreTrainedModel | PeftModel, batch: Sequence[Mapping[str, Sequence[int]]]
) -> tuple[Tensor, Tensor]:
    device = model.get_input_embeddings().weight.device
    ids = [row["input_ids"] for row in batch]
    return _padded(ids, 0, device), _padded([[1] * len(row) for row in ids], 0, device)


def _padded(values: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    import torch

    width = max(map(len, values))
    return torch.tensor([[*v, *[fill] * (width - len(v))] for v in values], device=device)


def _nats(logits_BKV: Tensor, targets_BK: Tensor) -> list[float]:
    """Sum each row's loss in float64."""
    import torch

    targets_BK = targets_BK.to(logits_BKV.device)
    trained_BK = targets_BK != IGNORED
    rows_N = trained_BK.nonzero()[:, 0].cpu()
    logits_NV, targets_N = logits_BKV[trained_BK], targets_BK[trained_BK]
    totals_B = torch.zeros(len(targets_BK), dtype=torch.float64)
    for start in range(0, len(targets_N), UPCAST_TOKENS):
        part = slice(start, start + UPCAST_TOKENS)
        losses = torch.nn.functional.cross_entropy(
            logits_NV[part].float(), targets_N[part], reduction="none"
        )
        totals_B.index_add_(0, rows_N[part], losses.double().cpu())
    return [float(total) for total in totals_B]


def _logits(
    model: PreTrainedModel | PeftModel, input_ids_BT: Tensor, mask_BT: Tensor, kept_K: Tensor
) -> Tensor:
    """Return logits_BKV at the kept positions, computing no others where the model can."""
    options: dict[str, Any] = {"input_ids": input_ids_BT, "attention_mask": mask_BT}
    # A soft prompt moves positions inside peft, so its logits are picked afterwards
    can_keep = "logits_to_keep" in accepted_inputs(model)
    if can_keep and not num_virtual_tokens(model):
        options["logits_to_keep"] = kept_K
    logits: Tensor = model(**options, use_cache=False).logits
    if "logits_to_keep" in options:
        return logits
    return logits[:, -input_ids_BT.shape[1] :][:, kept_K.to(logits.device)]
