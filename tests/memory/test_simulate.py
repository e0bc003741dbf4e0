"""Phases and layers are marked where they begin."""

from __future__ import annotations

import pytest
import real_step
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peftkit.memory import step
from peftkit.memory.layers import find_stacks
from peftkit.memory.simulate import Kept, state_tensors, track_micro_batch
from peftkit.plugins.quantizer import PLAIN

SETTINGS = step.StepSettings(1, 1.0, None, "cpu")


@pytest.fixture
def model():
    options = {**real_step.LLAMA, "num_hidden_layers": 4}
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    return AutoModelForCausalLM.from_config(config).train()


def test_layers_run_forwards_and_backwards(model) -> None:
    stack = find_stacks(model)[0]
    batch = real_step.token_batch(2, 16)
    trace = track_micro_batch(
        model, lambda: dict(batch), step.model_loss, SETTINGS,
        kept=[Kept(stack, (0, 1, 2, 3))],
    )  # fmt: skip
    places = [(s.phase, s.layer and s.layer[1]) for s in trace.segments if s.events]
    order = dict.fromkeys(p for p in places if p[1] is not None and p[0] != "loss")
    assert list(order) == [
        *[("forward", layer) for layer in range(4)],
        *[("backward", layer) for layer in (3, 2, 1, 0)],
    ]
    assert not model.model._forward_hooks, "hooks are taken off again"


def test_a_whole_step_ends_with_no_gradients(model) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = real_step.token_batch(2, 16)
    trace = real_step.track_step(model, batch, step.model_loss, optimizer, SETTINGS, storage=PLAIN)
    phases = list(dict.fromkeys(s.phase for s in trace.segments if s.events))
    assert phases == ["load", "forward", "loss", "backward", "step"]
    assert all(p.grad is None for p in model.parameters())
    assert {"base", "adapter", "gradients"} & set(trace.terms) >= {"gradients"}


@pytest.mark.filterwarnings("ignore:Paged optimizers")
@pytest.mark.parametrize("bits", [8, 32])
def test_a_paged_optimizer_keeps_large_moments_out_of_the_device(bits: int) -> None:
    import bitsandbytes as bnb

    large, small = torch.nn.Linear(400, 400, bias=False), torch.nn.Linear(64, 64, bias=False)
    optimizer = bnb.optim.PagedAdamW([*large.parameters(), *small.parameters()], optim_bits=bits)
    for layer in (large, small):
        layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    moments = {id(optimizer.state[large.weight][name]) for name in ("state1", "state2")}
    here = {id(tensor) for tensor in state_tensors(optimizer)}
    assert {id(tensor) for tensor in state_tensors(optimizer, device="cuda")} == here - moments
    optimizer.is_paged = False
    assert {id(tensor) for tensor in state_tensors(optimizer, device="cuda")} == here
