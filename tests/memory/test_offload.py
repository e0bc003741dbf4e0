"""What is offloaded, and when, is what upstream's own hooks do on real tensors.

Upstream's contexts need an accelerator. Here they get a device module without streams, and a mode
that stands for the way to the host: it labels what goes there, and copies what comes back.
"""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import real_step
import torch
from torch.overrides import TorchFunctionMode

from peftkit.memory import step
from peftkit.memory.fake import explained_operators
from peftkit.memory.fake_step import Rehearsed
from peftkit.memory.planned_config import planned_config
from peftkit.memory.simulate import Marks, hold_model
from peftkit.memory.trace import HOST, compile_trace
from peftkit.memory.tracker import Tracker
from peftkit.planning.devices import of_size
from peftkit.plugins import Point
from peftkit.plugins.losses import fused_loss
from peftkit.recipe.build import build

OFFLOADED = {"method.sft.activation_offloading": True}
KEPT = {**OFFLOADED, "method.sft.activation_checkpointing": False}
CHECKPOINTED = {"method.sft.activation_checkpointing": True}
MANY = {**real_step.LLAMA, "num_hidden_layers": 14}
ON_HOST = {**CHECKPOINTED, "method.sft.activation_checkpointing_kwargs": {"offload": True}}
CELLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": (real_step.LLAMA, KEPT),
    "full-gemma2-bfloat16": (
        real_step.GEMMA2,
        {"adapter": "full", "model.dtype": "bfloat16", "method.sft.bf16": True, **KEPT},
    ),
    "checkpointed": (MANY, {**CHECKPOINTED, **OFFLOADED}),
    "checkpoints-on-host": (real_step.LLAMA, ON_HOST),
    "both": (MANY, {"adapter": "full", **ON_HOST, **OFFLOADED}),
}
SIZE = (2, 48)


class HostBoundary(TorchFunctionMode):
    """Stand for the way between device and host, where both are the same memory."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.empty, torch.empty_like):
            self.tracker.label([result], HOST)
        return result.clone() if func is torch.Tensor.to else result


class Identity:
    """Number storages, so that one that takes another's place is known for another."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.watched: list[weakref.ref[Any]] = []

    def key(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self.numbers:
            self.numbers[address] = len(self.watched)
            forget = lambda _: self.numbers.pop(address)  # noqa: E731
            self.watched.append(weakref.ref(storage, forget))
        return self.numbers[address], tensor.storage_offset(), tensor.dtype


def _without_accelerator(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> None:
    """Let upstream's contexts be made, and run, on the CPU."""
    stream = SimpleNamespace(
        wait_event=lambda _: None, wait_stream=lambda _: None,
        record_event=lambda: None, synchronize=lambda: None,
    )  # fmt: skip
    module = SimpleNamespace(
        Stream=lambda: stream, current_stream=lambda: stream, empty_cache=lambda: None,
        stream=lambda _: HostBoundary(tracker),
    )  # fmt: skip
    cpu = SimpleNamespace(type="cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: cpu)
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(torch.cpu, "is_available", lambda: False)
    # Upstream knows tensors by address, and an address is used again: by chance, one that was
    # never offloaded would pass for one that was.
    monkeypatch.setattr("trl.models.activation_offloading._get_unique_tensor_key", Identity().key)
    theirs = torch.autograd.graph.save_on_cpu

    def save_on_cpu(**options: Any) -> Any:
        hooks = theirs(**options)

        def pack(tensor: torch.Tensor) -> Any:
            packed = hooks.pack_hook(tensor)
            tracker.label([packed[1]], HOST)
            return packed

        return torch.autograd.graph.saved_tensors_hooks(
            pack, lambda packed: hooks.unpack_hook(packed).clone()
        )

    monkeypatch.setattr("transformers.modeling_utils.save_on_cpu", save_on_cpu)


def _real(recipe: Any, built: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Run a real micro-batch under upstream's own hooks; return peaks by phase, and the host's."""
    from trl.models import get_act_offloading_ctx_manager
    from trl.trainer.utils import add_fused_lm_head

    from peftkit.models.base import load_base

    model = built.adapter.attach(load_base(recipe.model, kind=built.method.kind)).train()
    tracker, args = Tracker(), built.method.config
    _without_accelerator(monkeypatch, tracker)
    step.set_checkpointing(model, args)
    add_fused_lm_head(
        model.get_base_model() if hasattr(model, "peft_config") else model,
        outputs=("log_probs", "entropy", "is_top1"),
    )
    offloading: Any = contextlib.nullcontext()
    if args.activation_offloading:
        offloading = get_act_offloading_ctx_manager(model, use_pin_memory=False)
    hold_model(tracker, model)
    marks = Marks(model, tracker)
    with tracker, offloading:
        tracker.enter("forward")
        batch = real_step.token_batch(*SIZE)
        loss = step.forward_backward(
            model, batch, fused_loss, step.StepSettings.of(args, "cpu"), marks.enter
        )
        trace = tracker.finish()
        del batch, loss
    return _peaks(compile_trace(trace), trace)


def _peaks(program: Any, trace: Any) -> dict[str, int]:
    live = program.live(np.array(trace.num_bytes, np.int64))
    before = live.phase_peaks().pop("load")  # layers that stand for others have fewer weights
    peaks = {phase: peak - before for phase, peak in live.phase_peaks().items()}
    return {**peaks, "host": int(live.by_term[HOST].max())}


@pytest.mark.parametrize("name", CELLS)
def test_what_is_offloaded_is_what_upstreams_hooks_offload(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, changes = CELLS[name]
    real_step.save_model(tmp_path, config)
    recipe = real_step.recipe_for(
        tmp_path, **{"method.sft.use_cpu": None, "speed": real_step.NATIVE, **changes}
    )
    # Decided for a GPU, which can offload; followed with the CPU's kernels, which run below.
    built = build(recipe, of_size(24).as_machine(), is_here=False)
    rehearsed = Rehearsed(built, planned_config(recipe.model), device="cpu")
    with explained_operators():
        trace, _, repeats = rehearsed._micro_batch(Point(*SIZE), times=rehearsed._blocks()[0])
    fake = _peaks(compile_trace(trace, repeats), trace)
    real = _real(recipe, built, monkeypatch)
    assert real["host"] > 0
    assert fake == pytest.approx(real, rel=5e-3)
