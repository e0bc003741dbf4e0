"""Wrappers are taken apart and put together as torch's own protocol says, one within another."""

from __future__ import annotations

import torch
from torch.testing._internal.two_tensor import TwoTensor

from peftkit.memory.wrapped import is_wrapper, parts_of, remake

INNER = TwoTensor(torch.zeros(2, 3), torch.ones(2, 3))
OUTER = torch.nn.Parameter(TwoTensor(INNER, torch.full((2, 3), 2.0)), requires_grad=False)


def test_only_what_follows_the_protocol_is_a_wrapper() -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    plain = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor)
    assert is_wrapper(type(OUTER))
    assert not any(map(is_wrapper, plain))


def test_parts_are_the_innermost_tensors() -> None:
    assert [float(part.mean()) for part in parts_of(OUTER)] == [0.0, 1.0, 2.0]
    plain = torch.zeros(1)
    assert [part is plain for part in parts_of(plain)] == [True]


def test_a_wrapper_is_made_again_around_other_parts() -> None:
    made = remake(OUTER, torch.ones_like)
    assert type(made) is TwoTensor
    assert type(made.a) is TwoTensor
    assert [float(part.mean()) for part in parts_of(made)] == [1.0, 1.0, 1.0]
    assert remake(torch.zeros(1), torch.ones_like).item() == 1.0
