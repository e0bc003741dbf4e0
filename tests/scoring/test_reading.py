"""Rows are read longest first, in halves where memory runs out, and come back in their order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from peftkit.errors import ResourceError
from peftkit.scoring.reading import longest_first

LENGTHS = [3, 9, 5, 7, 1]


def read_all(limit: int, **options: object) -> tuple[list[int], list[list[int]]]:
    """Read with a device that holds so many tokens; return what is found, and each batch's rows."""
    batches: list[list[int]] = []

    def read(chosen: Sequence[int]) -> list[int]:
        if sum(LENGTHS[i] for i in chosen) > limit:
            raise torch.OutOfMemoryError
        assert not torch.is_grad_enabled()
        batches.append(list(chosen))
        return [10 * i for i in chosen]

    model = torch.nn.Linear(1, 1)
    found = longest_first(model, LENGTHS, read, batch_size=4, **options)
    assert model.training
    return found, batches


@pytest.mark.parametrize("limit", [100, 13])
def test_what_is_found_is_in_the_rows_order(limit: int) -> None:
    seen: list[tuple[int, int]] = []
    found, batches = read_all(limit, progress=lambda *at: seen.append(at))
    assert found == [0, 10, 20, 30, 40]
    assert [i for batch in batches for i in batch] == [1, 3, 2, 0, 4]
    assert seen[-1] == (5, 5)


def test_a_row_that_does_not_fit_alone_is_refused_by_its_length() -> None:
    with pytest.raises(ResourceError, match="a window of 9 tokens does not fit"):
        read_all(8, called="window")
