"""The rows of one process, read by several: the same a step, in the same order."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from peftkit.system.process import Process
from peftkit.training.spread import FilledRows, OneOrder, seeded, spread


class Told(Process):
    """Be one of several processes, whose main one draws this order."""

    def agree(self, value: Any) -> Any:
        return value


def steps(order: Any, *, batch: int, accumulated: int, processes: int) -> list[list[int]]:
    """Return the rows that each optimizer step reads, as accelerate deals them out."""
    batches = BatchSampler(order, batch, drop_last=False)
    dealt = [
        list(batches) if processes == 1 else list(BatchSamplerShard(batches, processes, rank))
        for rank in range(processes)
    ]
    together = [list(chain(*batches)) for batches in zip(*dealt, strict=True)]
    return [
        list(chain(*together[at : at + accumulated])) for at in range(0, len(together), accumulated)
    ]


@given(
    num_rows=st.integers(1, 60), batch=st.integers(1, 5), accumulated=st.integers(1, 3),
    processes=st.sampled_from([2, 3, 4]),
)  # fmt: skip
def test_processes_read_in_a_step_what_one_would(
    num_rows: int, batch: int, accumulated: int, processes: int
) -> None:
    rows = range(num_rows)
    alone = steps(
        SequentialSampler(rows), batch=batch, accumulated=accumulated * processes, processes=1
    )
    blank = -num_rows % (batch * processes)
    order = OneOrder(SequentialSampler(rows), Told(0, processes), blank)
    dealt = steps(order, batch=batch, accumulated=accumulated, processes=processes)
    assert [[row for row in step if row < num_rows] for step in dealt] == alone
    assert sum(row >= num_rows for step in dealt for row in step) == blank


def test_beyond_the_rows_there_is_only_the_blank_one() -> None:
    filled = FilledRows([{"labels": [1]}, {"labels": [2]}], {"labels": [-100]})
    assert len(filled) == 2
    assert [row["labels"] for row in filled.__getitems__([1, 2, 7])] == [[2], [-100], [-100]]


def test_every_epoch_has_the_order_that_accelerate_would_draw() -> None:
    # As a resumed run reads it, whose loader hands no epoch on.
    order = OneOrder(seeded(RandomSampler(range(9)), 42), Told(0, 2), 1, lambda: 3)
    again = seeded(RandomSampler(range(9)), 42)
    again.set_epoch(3)
    assert list(order) == [*again, 9]
    OneOrder(SequentialSampler(range(3)), Told(0, 2), 0).set_epoch(1)  # which knows no epochs


@pytest.mark.parametrize("has_blank", [True, False])
def test_a_trainer_s_loaders_read_filled_rows_where_some_can_be_blank(has_blank: bool) -> None:
    class Stub:
        args, state = SimpleNamespace(data_seed=1), SimpleNamespace(epoch=None)
        made: tuple[Any, int] = ((), 0)

        def _get_dataloader(
            self, dataset: Any, description: str, batch_size: int, sampler_fn: Any = None
        ) -> tuple[Any, int]:
            assert (description, batch_size) == ("Training", 2)
            return dataset, len(sampler_fn(dataset))

    def blank_of(row: Any) -> Any:
        return {**row, "labels": [-100]} if has_blank else None

    trainer = spread(Stub, Told(1, 2), blank_of)()  # type: ignore[arg-type]
    rows = [{"labels": [number]} for number in range(5)]
    dataset, length = trainer._get_dataloader(rows, "Training", 2, RandomSampler)
    assert (len(dataset), length) == (5, 8 if has_blank else 5)
    assert isinstance(dataset, FilledRows) == has_blank
