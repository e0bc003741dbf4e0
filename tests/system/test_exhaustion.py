"""A full disk and exhausted memory are told apart from bugs."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from peftkit.errors import ResourceError
from peftkit.system.exhaustion import exhaustion_explained, in_batches


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full while saving"),
        (OSError(errno.EFBIG, "File too large"), "the disk is full while saving"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected"),
            "the disk is full",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory while saving"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "out of memory"),
        (MemoryError(), "out of memory while saving: MemoryError"),
        (Exception("No space left on device (os error 28)"), "the disk is full"),  # tokenizers
    ],
)
def test_exhaustion_is_explained(error: Exception, what: str) -> None:
    with pytest.raises(ResourceError) as caught, exhaustion_explained("saving"):
        raise error
    assert caught.value.message.startswith(what)
    assert caught.value.__cause__ is error


def test_a_bug_stays_a_bug() -> None:
    for error in (RuntimeError("size mismatch"), FileNotFoundError(2, "No such file"), KeyError()):
        with pytest.raises(type(error)), exhaustion_explained("saving"):
            raise error


def test_what_is_explained_already_passes_unchanged() -> None:
    first = ResourceError("the disk is full while training: No space left on device", hint="free")
    with pytest.raises(ResourceError) as caught, exhaustion_explained("running"):
        raise first
    assert caught.value is first


def test_batches_are_halved_until_they_fit_and_every_row_is_run_once() -> None:
    import torch

    sizes: list[int] = []

    def run(chosen):
        sizes.append(len(chosen))
        if len(chosen) > 3:
            raise torch.OutOfMemoryError
        return [index * 10 for index in chosen[:2]]  # the first two of three

    batches = list(in_batches([4, 2, 0, 1, 3], 7, run, lambda index: ResourceError(str(index))))
    assert [index for batch in batches for index, _ in batch] == [4, 2, 0, 1, 3]
    assert all(found == index * 10 for batch in batches for index, found in batch)
    assert sizes == [5, 3, 3, 1]


def test_a_row_that_does_not_fit_by_itself_is_named() -> None:
    import torch

    def run(chosen):
        raise torch.OutOfMemoryError

    with pytest.raises(ResourceError, match="row 8"):
        list(in_batches([8, 9], 2, run, lambda index: ResourceError(f"row {index}")))
