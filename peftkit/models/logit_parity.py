"""Compare what two models say about the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.native import accepted_inputs, native_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

SENTENCES = (
    "Return the sum of two numbers, and raise an error when a value is missing.",
    "The file is read from disk into an array of 64-bit integers; rows are sorted by name.",
    "It's a test:  two spaces, a tab\tand\na new line, 3.14159 (or so), naïve café, 東京 🙂",
)
"""What is measured on where the run kept no text of its own."""


@dataclass(frozen=True)
class Difference:
    """Say how far one model's logits are from another's, over all tokens of all rows."""

    max_difference: float
    rms_difference: float
    relative_rms: float
    """RMS of the difference over the RMS of the reference."""
    num_agreeing: int
    """Positions whose most likely token is the same in both."""
    num_tokens: int

    def __str__(self) -> str:
        agreeing = f"{self.num_agreeing} of {self.num_tokens}"
        return (
            f"largest difference {self.max_difference:.3g}, most likely token equal at {agreeing}"
        )


def token_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    vocab_size: int,
    max_length: int = 48,
    num_rows: int = 6,
) -> list[list[int]]:
    """Turn texts into rows of 2 to `max_length` token ids, with one row of ids from everywhere.

    The last row steps through the whole vocabulary, so that a wrong row of an embedding shows.
    Rows end with the end token where the tokenizer ends texts with it.
    """
    texts = [text for text in texts if text.strip()] or list(SENTENCES)
    whole = [tokenizer(text).input_ids for text in texts[:num_rows]]
    # T5's and BART's classifiers read a text where it ends, so that a row keeps its end.
    end = [tokenizer.eos_token_id]
    end = end if all(ids[-1:] == end for ids in whole) else []
    rows = [ids if len(ids) <= max_length else ids[: max_length - len(end)] + end for ids in whole]
    rows = [row for row in rows if len(row) > 1]
    step = max(1, vocab_size // max_length)
    return [*rows, list(range(0, vocab_size, step))[: max_length - len(end)] + end]


def model_inputs(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Give a model its tokens, and a decoder behind an encoder the same ones."""
    inputs = {"input_ids": ids}
    is_encoder_decoder = bool(getattr(native_model(model).config, "is_encoder_decoder", False))
    if is_encoder_decoder and "decoder_input_ids" in accepted_inputs(model):
        inputs["decoder_input_ids"] = ids
    return inputs


def heads_of(output: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what a model's heads say; a bare body has its last hidden state."""
    import torch

    heads = [n for n, value in output.items() if n.endswith("logits") and torch.is_tensor(value)]
    return tuple(heads) or ("last_hidden_state",)


def head_outputs(model: Any, row: Sequence[int]) -> list[Tensor]:
    """Run one row of tokens, without padding; return [positions, width] of each head."""
    import torch

    native = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad():
        output = model(**model_inputs(model, torch.tensor([row], device=native.device)))
    values = [output[name] for name in heads_of(output)]
    return [value.reshape(-1, value.shape[-1]).float().cpu() for value in values]


def compare(references: Sequence[Tensor], others: Sequence[Tensor]) -> Difference:
    """Compare logits row by row, each of shape (tokens, vocabulary), in float64."""
    import torch

    largest = squares = reference_squares = 0.0
    agreeing = tokens = elements = 0
    for reference, other in zip(references, others, strict=True):
        a, b = reference.double(), other.double()
        gap = torch.nan_to_num((a - b).abs(), nan=float("inf"))
        largest = max(largest, float(gap.max()))
        squares += float((gap**2).sum())
        reference_squares += float((a**2).sum())
        agreeing += int((a.argmax(-1) == b.argmax(-1)).sum())
        tokens += a.shape[0]
        elements += a.numel()
    relative = (squares / reference_squares) ** 0.5 if reference_squares else squares
    return Difference(largest, (squares / elements) ** 0.5, relative, agreeing, tokens)
