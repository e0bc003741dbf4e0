"""A few layers tell the same story as all of them, and know themselves when they do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import preferences
import pytest
import real_step
import torch
from transformers import AutoConfig

from peftkit.memory import step
from peftkit.memory.fake import PlanningError
from peftkit.memory.fake_step import Rehearsed
from peftkit.memory.trace import compile_trace
from peftkit.methods.sft import SFT
from peftkit.plugins import Method, Point
from peftkit.plugins.quantizer import PLAIN
from peftkit.plugins.speed import Speed
from peftkit.recipe.schema import ModelSection


def _built(method: Method, *, is_conv: bool = False, **options: Any) -> Any:
    from peft import LoraConfig

    from peftkit.adapters.peft_types import Lora

    lora = LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=is_conv, **options)
    return SimpleNamespace(
        method=method,
        recipe=SimpleNamespace(
            model=ModelSection(path="x", dtype="float32"), method=SimpleNamespace(name="own")
        ),
        adapter=Lora(lora),
        quantizer=None,
    )


def _config(sizes: dict[str, Any], num_layers: int) -> Any:
    count = "n_layer" if "n_layer" in sizes else "num_hidden_layers"
    options = {**sizes, count: num_layers}
    return AutoConfig.for_model(options.pop("model_type"), **options)


NATIVE = Speed(loss="native", unpad="off")


def _rehearsed(
    config: dict[str, Any],
    *,
    device: str = "cpu",
    num_layers: int = 12,
    speed: Speed = NATIVE,
    **options: Any,
) -> Rehearsed:
    from trl import SFTConfig

    options = {"bf16": False, "activation_checkpointing": False, **options}
    method = SFT(SFTConfig(output_dir="x", use_cpu=True, report_to="none", **options))
    method.speed = speed
    built = _built(method, is_conv="n_layer" in config)
    return Rehearsed(built, _config(config, num_layers), device=device)


def _deltas(rehearsed: Rehearsed, point: Point, times: int) -> list[int]:
    trace, program, _ = rehearsed._micro_batch(point, times=times)
    sizes = np.array(trace.num_bytes, np.int64)
    return np.diff(program.live(sizes).total, prepend=0).tolist()


CHECKPOINTED = {"activation_checkpointing": True}


@pytest.mark.parametrize(
    ("config", "options"),
    [
        pytest.param(real_step.LLAMA, {}, id="llama"),
        *(
            pytest.param(config, options, id=name, marks=pytest.mark.slow)
            for name, config, options in (
                (
                    "llama-ck-bf16",
                    real_step.LLAMA,
                    {"bf16": True, "activation_checkpointing": True},
                ),
                ("gemma2", real_step.GEMMA2, {}),
                ("gpt2-ck", real_step.GPT2, CHECKPOINTED),
            )
        ),
    ],
)
def test_a_few_layers_stand_for_all(config, options) -> None:
    rehearsed = _rehearsed(config, num_layers=8, **options)
    point = Point(2, 48)
    assert _deltas(rehearsed, point, 1) == _deltas(rehearsed, point, 0)


def test_the_cost_does_not_grow_with_the_layers() -> None:
    rehearsed = _rehearsed(real_step.LLAMA, num_layers=40)
    trace, program, repeats = rehearsed._micro_batch(Point(2, 48), times=1)
    assert repeats[0].times == 38
    assert len(program.events) > 8 * sum(len(s.events) for s in trace.segments)


def test_scoring_on_a_gpu_takes_less_than_on_a_cpu() -> None:
    cpu, cuda = (_rehearsed(real_step.LLAMA, device=d, num_layers=1) for d in ("cpu", "cuda"))
    peaks = [r.rehearse(Point(2, 48)).footprint.live(2, 48).phase_peaks() for r in (cpu, cuda)]
    assert peaks[1]["loss"] < peaks[0]["loss"]
    assert peaks[1]["forward"] == peaks[0]["forward"]


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_method_with_rows_and_a_loss_of_its_own_takes_what_is_planned(
    is_checkpointed: bool,
) -> None:
    """A second forward, of the base, and twice the rows of a micro-batch."""
    from transformers import AutoModelForCausalLM

    method = preferences.Pairs(preferences.arguments(activation_checkpointing=is_checkpointed))
    built, config = _built(method), _config(real_step.LLAMA, 6)
    rows, length = 2, 48
    footprint = Rehearsed(built, config, device="cpu").rehearse(Point(rows, length)).footprint
    assert not footprint.growth.num_unexplained
    planned = footprint.live(rows, length)

    model = built.adapter.attach(AutoModelForCausalLM.from_config(config)).train()
    step.set_checkpointing(model, method.config)
    settings = step.StepSettings.of(method.config, "cpu")
    optimizer = step.make_optimizer(model, method)
    batch = real_step.token_batch(2 * rows, length)
    step.forward_backward(model, batch, method.loss(), settings, lambda _: None)
    step.update(model.parameters(), optimizer, settings, lambda _: None)
    trace = real_step.track_step(model, batch, method.loss(), optimizer, settings, storage=PLAIN)
    real = compile_trace(trace).live(np.array(trace.num_bytes, np.int64))
    assert int(planned.total.max()) == pytest.approx(int(real.total.max()), rel=5e-3)
    for phase in ("forward", "loss", "backward", "step"):
        found = planned.phase_peaks()[phase]
        assert found == pytest.approx(real.phase_peaks()[phase], rel=5e-3), phase


class Steady(preferences.Pairs):
    """A method whose trainer switches dropout off."""

    def prepare_model(self, model: Any) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0


def test_what_its_trainer_does_to_a_model_is_planned() -> None:
    config, point = _config(real_step.LLAMA, 4), Point(2, 48)

    def peak(method: type[Method], dropout: float) -> int:
        built = _built(method(preferences.arguments()), lora_dropout=dropout)
        footprint = Rehearsed(built, config, device="cpu").rehearse(point).footprint
        return footprint.peak(2, 48)

    assert peak(Steady, 0.5) == peak(preferences.Pairs, 0.0) < peak(preferences.Pairs, 0.5)


def test_a_second_forward_runs_over_few_layers_too() -> None:
    method = preferences.Pairs(preferences.arguments())
    rehearsed = Rehearsed(_built(method), _config(real_step.LLAMA, 12), device="cpu")
    assert _deltas(rehearsed, Point(2, 48), 1) == _deltas(rehearsed, Point(2, 48), 0)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (preferences.Unknown, "its loss is computed by its trainer alone"),
        (preferences.Generating, "it generates inside its step"),
    ],
)
def test_what_cannot_be_run_outside_of_a_trainer_is_unknown(
    method: type[Method], reason: str
) -> None:
    built = _built(method(preferences.arguments()))
    with pytest.raises(PlanningError, match=f"method.own takes is unknown: {reason}"):
        Rehearsed(built, _config(real_step.LLAMA, 4), device="cpu")


def test_muon_drops_gradients_that_it_is_given_again() -> None:
    """What makes the optimizer's state must leave the tracked step its gradients."""
    from peftkit.methods.pretrain_lm import PretrainLM, PretrainLMArguments

    args = PretrainLMArguments(output_dir="x", use_cpu=True, report_to="none", muon=True)
    built = _built(PretrainLM(args))
    built.adapter = None
    rehearsed = Rehearsed(built, _config(real_step.LLAMA, 2), device="cpu")
    update, _ = rehearsed._update(0)
    held = sum(
        num for num, term in zip(update.num_bytes, update.terms, strict=True) if term == "gradients"
    )
    assert held == sum(p.numel() * p.element_size() for p in rehearsed.model.parameters())


def test_a_base_that_is_stored_quantized_is_planned_so() -> None:
    """As the same base that the recipe quantizes."""
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig

    from peftkit.quantizers.bitsandbytes import BitsAndBytes

    options = {"use_cpu": True, "bf16": False, "activation_checkpointing": False}
    method = SFT(SFTConfig(output_dir="x", report_to="none", **options))

    def base_bytes(config: Any, quantizer: Any) -> int:
        built = _built(method)
        built.quantizer = quantizer
        return sum(t.nbytes for t in Rehearsed(built, config, device="cpu").fake.terms["base"])

    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    plain, stored = _config(real_step.LLAMA, 1), _config(real_step.LLAMA, 1)
    stored.quantization_config = {"quant_method": "bitsandbytes", **nf4}
    wanted = base_bytes(plain, BitsAndBytes(BitsAndBytesConfig(**nf4)))
    assert base_bytes(stored, None) == wanted < base_bytes(plain, None)
