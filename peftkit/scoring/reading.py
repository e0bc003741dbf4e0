"""Read rows with a model in batches that fit, rows of like length together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from peftkit.errors import ResourceError
from peftkit.scoring.generation import evaluating
from peftkit.scoring.shared import shared
from peftkit.system.exhaustion import in_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Found = TypeVar("Found")


def longest_first(  # noqa: PLR0913 - a model with what it reads, how, and how much at once
    model: PreTrainedModel | PeftModel,
    lengths: Sequence[int],
    read: Callable[[Sequence[int]], Sequence[Found]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
    called: str = "row",
) -> list[Found]:
    """Return what a model finds in each row, in the rows' order.

    Args:
        lengths: tokens of each row.
        read: returns what the model finds in the rows of these numbers; no gradients are kept.
        called: what a message calls a row.

    Raises:
        ResourceError: even one row does not fit into device memory.
    """
    import torch

    def refusal(index: int) -> ResourceError:
        return ResourceError(
            f"a {called} of {lengths[index]} tokens does not fit into device memory",
            hint="a smaller max_length",
        )

    def read_all(order: Sequence[int]) -> dict[int, Found]:
        found: dict[int, Found] = {}
        with evaluating(model), torch.no_grad():
            for batch in in_batches(order, batch_size, read, refusal):
                found.update(batch)
                if progress:
                    progress(len(found), len(order))
        return found

    found = shared(sorted(range(len(lengths)), key=lambda i: -lengths[i]), read_all)
    return [found[index] for index in range(len(lengths))]
