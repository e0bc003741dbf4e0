"""The batches that a method's collator would make, in shapes only.

Imported once planning is sure: it subclasses torch.Tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Point:
    """Say how large a micro-batch is, and in what layout its rows lie."""

    micro_batch: int
    length: int
    """Tokens a row, padding included."""
    layout: str = "full"
    """`full`: rows of one length; `padded`: rows of several lengths, so that attention needs a
    mask; `packed`: one row of all documents, with the mask that keeps them apart; `flat`: the
    same for a kernel that needs no mask."""
    target_length: int = 0
    """Tokens that an encoder-decoder writes for each row, padding included; `length` is what its
    encoder reads then."""

    @property
    def num_tokens(self) -> int:
        """Return the positions of one forward."""
        return self.micro_batch * self.length


class AllOnes(torch.Tensor):
    """A mask that masks nothing and says so when asked, where a fake tensor could not.

    transformers drops such a mask outside of tracing, and takes fake tensors for tracing. What
    is asked of a mask's values is answered here, everything else is done with the fake mask.
    """

    fake: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> AllOnes:
        """Wrap a fake mask."""
        made: AllOnes = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device("cpu")
        )
        made.fake = inner
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer for the values, or do the same with the mask inside."""
        name = getattr(func, "__name__", "")
        if name == "all":
            return True
        if name == "sum" and not kwargs and len(args) == 1:
            return args[0].numel()
        result = func(*_unwrap(args), **_unwrap(kwargs or {}))
        if name in ("to", "cat", "bool") and isinstance(result, torch.Tensor):
            return cls(result)
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch's stub has a disabled function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do the same with the mask inside."""
        return func(*_unwrap(args), **_unwrap(kwargs or {}))


def make_batch(
    auto_class: str, point: Point, *, has_mask: bool = True, has_types: bool = False
) -> dict[str, Any]:
    """Make the tensors of one micro-batch; call it inside fake mode.

    Args:
        auto_class: the transformers class whose forward takes them.
        has_mask: whether the collator makes an attention mask at all.
        has_types: whether tokens say which of two texts they are of.
    """
    rows, length = point.micro_batch, point.length
    if point.layout in ("packed", "flat"):
        return _flattened(point)
    ids = _integers(rows, length)
    batch: dict[str, Any] = {"input_ids": ids}
    if has_mask:
        ones = _integers(rows, length)
        batch["attention_mask"] = ones if point.layout == "padded" else AllOnes(ones)
    elif auto_class == "AutoModelForCausalLM":
        # Without a mask and a cache, transformers looks for rows packed into one, and takes fake
        # positions for such. A mask of no bytes that masks nothing is what it then leaves out.
        batch["attention_mask"] = AllOnes(_integers(1, 1).expand(rows, length))
    if has_types:
        batch["token_type_ids"] = _integers(rows, length)
    if auto_class == "AutoModelForSeq2SeqLM":
        written = point.target_length or length
        batch["labels"], batch["decoder_input_ids"] = (_integers(rows, written) for _ in range(2))
        # The collator makes none, which transformers can tell from a mask for real tensors only.
        batch["decoder_attention_mask"] = AllOnes(_integers(1, 1).expand(rows, written))
    elif auto_class == "AutoModelForSequenceClassification":
        batch["labels"] = _integers(rows)
    elif auto_class == "AutoModelForQuestionAnswering":
        batch["start_positions"], batch["end_positions"] = _integers(rows), _integers(rows)
    elif auto_class == "AutoModelForPreTraining":
        batch["labels"], batch["next_sentence_label"] = _integers(rows, length), _integers(rows)
    else:
        batch["labels"] = _integers(rows, length)
    return batch


def _flattened(point: Point) -> dict[str, Any]:
    """Make trl's padding-free batch: one row of all tokens, positions that start anew."""
    num = point.num_tokens
    batch: dict[str, Any] = {
        "input_ids": _integers(1, num),
        "labels": _integers(1, num),
        "position_ids": _integers(1, num),
        "seq_idx": torch.empty((1, num), dtype=torch.int32),
    }
    if point.layout == "flat":
        batch["attention_mask"] = AllOnes(_integers(1, num))
    return batch


def _integers(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64)


def _unwrap(values: Any) -> Any:
    if isinstance(values, AllOnes):
        return values.fake
    if isinstance(values, list | tuple):
        return type(values)(_unwrap(value) for value in values)
    if isinstance(values, dict):
        return {key: _unwrap(value) for key, value in values.items()}
    return values
