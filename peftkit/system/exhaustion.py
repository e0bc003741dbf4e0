"""Tell a full disk and exhausted memory from bugs, wherever the stack raises them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from peftkit.errors import PeftkitError, ResourceError, first_line

Found = TypeVar("Found")

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK_TEXTS = (
    # torch.save hides the errno, and says one of three things
    "PytorchStreamWriter failed",
    "inline_container.cc",
    "iostream error",
    "No space left on device",  # safetensors wraps it in an error of its own
    "Disk quota exceeded",
    "File too large",
)
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


@contextmanager
def exhaustion_explained(doing: str) -> Iterator[None]:
    """Turn a full disk or exhausted memory into a ResourceError.

    Args:
        doing: what was going on, e.g. `training`.

    Raises:
        ResourceError: says which of the two it was; anything else passes unchanged.
    """
    try:
        yield
    except PeftkitError:
        raise  # explained already
    except Exception as error:  # tokenizers and safetensors raise classes of their own, or none
        explained = _explain(error, doing)
        if explained is None:
            raise
        raise explained from error


def in_batches(
    order: Sequence[int],
    batch_size: int,
    run: Callable[[Sequence[int]], Sequence[Found]],
    refusal: Callable[[int], ResourceError],
) -> Iterator[list[tuple[int, Found]]]:
    """Run over rows in batches, in halves from where device memory runs out.

    Args:
        order: numbers of the rows.
        run: returns what it found for the first rows of a batch, one of them at least.
        refusal: of a row that does not fit by itself.

    Returns: batch by batch, each row's number with what was found for it.
    Raises:
        ResourceError: not even one row fits.
    """
    import torch

    start = 0
    while start < len(order):
        chosen = order[start : start + batch_size]
        try:
            found = run(chosen)
        except torch.OutOfMemoryError as error:
            if batch_size == 1:
                raise refusal(chosen[0]) from error
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
            batch_size //= 2
            continue
        yield list(zip(chosen, found, strict=False))
        start += len(found)


def is_exhaustion(error: BaseException) -> bool:
    """Tell whether an error is a full disk, or memory that ran out."""
    return isinstance(error, ResourceError) or _explain(error, "") is not None


def _explain(error: BaseException, doing: str) -> ResourceError | None:
    text = str(error)
    is_disk = isinstance(error, OSError) and error.errno in _DISK
    if is_disk or any(sign in text for sign in _DISK_TEXTS):
        return ResourceError(
            f"the disk is full while {doing}: {first_line(error)}",
            hint="free space and run the same command: it resumes from the last whole checkpoint",
        )
    if isinstance(error, MemoryError) or any(sign in text for sign in _MEMORY_TEXTS):
        return ResourceError(
            f"out of memory while {doing}: {first_line(error)}",
            hint="a smaller per_device_train_batch_size with more gradient_accumulation_steps,"
            " a smaller max_length, activation_checkpointing: true, or model.quantize",
        )
    return None
