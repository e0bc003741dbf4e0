"""CUDA's dropout, attention and layer norm leave what their kernels do, not what the CPU's do."""

from __future__ import annotations

import pytest
import real_step
import torch
from torch.nn import functional

from peftkit.memory.cuda_kernels import CudaKernels
from peftkit.memory.planner import plan
from peftkit.memory.tracker import Tracker
from peftkit.plugins import Machine

CUDA = Machine("cuda", True, 24 << 30, 24 << 30, "a GPU")


def test_dropout_keeps_one_byte_an_element() -> None:
    x = torch.zeros(1000, requires_grad=True)
    tracker = Tracker()
    with tracker, CudaKernels():
        tracker.enter("forward")
        out = functional.dropout(x, 0.5, training=True)
    sizes = tracker.finish().num_bytes
    assert sorted(sizes) == [1000, 4000]
    assert out.shape == x.shape


def test_nothing_is_dropped_where_nothing_is() -> None:
    x = torch.zeros(10)
    with CudaKernels():
        assert functional.dropout(x, 0.0) is x
        assert functional.dropout(x, 0.5, training=False) is x


def test_autocast_normalises_in_float32() -> None:
    x, weight = torch.zeros(4, 8, dtype=torch.bfloat16), torch.ones(8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert functional.layer_norm(x, (8,), weight, weight).dtype == torch.bfloat16
        with CudaKernels():
            assert functional.layer_norm(x, (8,), weight, weight).dtype == torch.float32


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_in_attention_costs_no_memory(tmp_path, checkpointing: bool) -> None:
    def planned(share: float, device: Machine) -> int:
        config = {**real_step.GPT2, "n_layer": 1, "attn_pdrop": share}
        saved = real_step.save_model(tmp_path / str(share), config)
        options = {"use_cpu": None, "activation_checkpointing": checkpointing}
        changes = {f"method.sft.{key}": value for key, value in options.items()}
        recipe = real_step.recipe_for(saved, **{**changes, "adapter": "full"})
        return plan(recipe, lengths=[256], machine=device).peak_bytes

    assert planned(0.1, CUDA) == planned(0.0, CUDA)
    if not checkpointing:  # which hides them below the loss
        assert planned(0.1, real_step.CPU) > planned(0.0, real_step.CPU)
