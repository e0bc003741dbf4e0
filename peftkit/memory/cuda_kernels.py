"""Where CUDA's kernels allocate otherwise than the CPU's, which run the fake step.

Imported once planning is sure: it subclasses a function mode.

- Attention with dropout has a fused kernel on CUDA, which draws the mask again in backward; the
  CPU falls back to the product that keeps all probabilities (torch,
  aten/src/ATen/native/transformers/attention.cpp, `_fused_sdp_choice_cpp`).
- Dropout keeps a mask of one byte an element (`native_dropout`); the CPU keeps one of the input's
  dtype (aten/src/ATen/native/Dropout.cpp, `is_fused_kernel_acceptable`).
- Attention of rows without padding is one kernel for all of them on CUDA; on the CPU each row's
  output is copied into one (`peftkit.kernels.row_attention`).
- Autocast runs layer norms in float32 on CUDA, and in the input's dtype on the CPU (torch docs,
  "CUDA Ops that can autocast to float32"; they are on no list of the CPU's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def cuda_kernels(model: torch.nn.Module) -> Iterator[None]:
    """Run the model's steps in here as CUDA would, checkpointed layers included.

    Autograd leaves function modes out of what it calls, so that a layer which is run again in
    backward has to enter the mode by itself.
    """
    mode = CudaKernels()
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "_gradient_checkpointing_func")]
    given = [layer._gradient_checkpointing_func for layer in layers]
    for layer, checkpoint in zip(layers, given, strict=True):
        layer._gradient_checkpointing_func = partial(_checkpointed, checkpoint, mode)
    try:
        with mode:
            yield
    finally:
        for layer, checkpoint in zip(layers, given, strict=True):
            layer._gradient_checkpointing_func = checkpoint


def _checkpointed(checkpoint: Any, mode: TorchFunctionMode, forward: Any, *args: Any) -> Any:
    def in_mode(*inputs: Any) -> Any:
        with mode:
            return forward(*inputs)

    return checkpoint(in_mode, *args)


class CudaKernels(TorchFunctionMode):
    """Call the operators that a step on CUDA would, in as far as they allocate otherwise."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, or what stands for its CUDA kernel."""
        options = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention:
            options["dropout_p"] = 0.0
            return func(*args[:4], **options)
        if func is torch.cat and len(args[0]) == 1:
            return args[0][0]
        if func is functional.dropout:
            return _dropout(*args, **options)
        if func is functional.layer_norm and torch.is_autocast_enabled("cpu"):
            return func(*(_in_float32(value) for value in args), **_all_in_float32(options))
        return func(*args, **options)


def _dropout(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001 - in place, a mask is kept as well
) -> torch.Tensor:
    if not training or p == 0.0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value


def _all_in_float32(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _in_float32(value) for name, value in options.items()}
