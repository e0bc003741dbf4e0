"""A value that is read is assumed and counted; a shape that depends on one is not."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from peftkit.memory.assumed import AssumedValues


def test_values_are_assumed_and_counted() -> None:
    with FakeTensorMode(), AssumedValues() as assumed:
        assert torch.empty(()).item() == 1.0
        assert torch.empty((), dtype=torch.int64).item() == 1
        assert not bool(torch.empty(3).isinf().any())
    assert assumed.num_read == 3
    assert "3 values" in assumed.note


def test_shapes_are_not() -> None:
    with FakeTensorMode(), AssumedValues(), pytest.raises(DynamicOutputShapeException):
        torch.empty(3).nonzero()


def test_known_values_stay_known() -> None:
    with FakeTensorMode(), AssumedValues() as assumed:
        assert torch.tensor(5).item() == 5
    assert assumed.num_read == 0


def test_a_layer_that_is_dropped_by_lot_runs() -> None:
    """peft's LoHa and LoKr ask so on every call, also where nothing is dropped."""
    with FakeTensorMode(), AssumedValues() as assumed:
        assert torch.rand(1) > 0.0
        assert not torch.empty(1) > 0.0
    assert assumed.num_read == 2
