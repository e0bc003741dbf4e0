"""Values that a step reads from tensors, where fake tensors have none.

Imported once planning is sure: it subclasses a dispatch mode. An optimizer's constants and a few
adapters read a number back (`tensor.item()`). No shape of theirs depends on it, so 1 does as
well as any; the plan says that it was assumed. Where a shape does depend on a value (`nonzero`),
nothing is assumed and the plan is refused by the operator's name.

A yes or no asks whether something went wrong, and is answered no; but one drawn by lot decides
whether a layer runs at all (peft's `module_dropout`), and is answered yes, so that it runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode


class AssumedValues(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch is
    """Answer 1, or no, when a fake tensor without a known value is asked for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_read = 0
        # Weak, so that what is followed lives no longer than it would.
        self._drawn = weakref.ref(torch.empty(()))
        """The last number that was drawn, and below the last that was compared with a bound."""
        self._lot = self._drawn

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without torch's guard against compiling this: no step is compiled, every call pays."""
        return False

    @property
    def note(self) -> str:
        """Say what was assumed."""
        return f"aten._local_scalar_dense: {self.num_read} values were read, and taken for 1"

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run any operator, and answer for the one that reads a value."""
        if func is not torch.ops.aten._local_scalar_dense.default:
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.rand.default:
                self._drawn = weakref.ref(result)
            elif func is torch.ops.aten.gt.Scalar and args[0] is self._drawn():
                self._lot = weakref.ref(result)
            return result
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            self.num_read += 1
            dtype = args[0].dtype
            if dtype == torch.bool:
                return args[0] is self._lot()
            return 1.0 if dtype.is_floating_point else 1
