"""A few layers tell the same story as all of them, and know themselves when they do not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import real_step
from transformers import AutoConfig

from peftkit.memory.batch import Point
from peftkit.memory.fake_step import Rehearsed
from peftkit.recipe.schema import ModelSection


class _Method:
    auto_class = "AutoModelForCausalLM"
    fuses_head = True

    def __init__(self, **options):
        from trl import SFTConfig

        self.config = SFTConfig(output_dir="x", use_cpu=True, report_to="none", **options)


def _rehearsed(config, *, device: str = "cpu", num_layers: int = 12, **options) -> Rehearsed:
    from peft import LoraConfig

    from peftkit.adapters.peft_types import Lora

    options = {"bf16": False, "activation_checkpointing": False, **options}
    sizes = {**config, "num_hidden_layers": num_layers}
    if "n_layer" in config:
        sizes = {**config, "n_layer": num_layers}
    built = SimpleNamespace(
        method=_Method(**options),
        recipe=SimpleNamespace(model=ModelSection(path="x", dtype="float32")),
        adapter=Lora(
            LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out="n_layer" in config)
        ),
        quantization_config=None,
    )
    kind = sizes.pop("model_type")
    return Rehearsed(built, AutoConfig.for_model(kind, **sizes), device=device)


def _deltas(rehearsed: Rehearsed, point: Point, times: int) -> list[int]:
    trace, program, _ = rehearsed._micro_batch(point, times=times)
    sizes = np.array(trace.num_bytes, np.int64)
    return np.diff(program.live(sizes).total, prepend=0).tolist()


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (real_step.LLAMA, {}),
        (real_step.LLAMA, {"bf16": True, "activation_checkpointing": True}),
        (real_step.GEMMA2, {}),
        (real_step.GPT2, {"activation_checkpointing": True}),
    ],
    ids=["llama", "llama-ck-bf16", "gemma2", "gpt2-ck"],
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


def test_a_second_size_is_of_the_same_kind() -> None:
    rehearsed = _rehearsed(real_step.MISTRAL, num_layers=4)
    for point in (Point(1, 16), Point(1, 48), Point(2, 16), Point(8, 48), Point(64, 100)):
        probe = rehearsed._probe(point)
        assert (probe.micro_batch == 1) == (point.micro_batch == 1)
        assert (probe.length >= 32) == (point.length >= 32), "on the same side of the window"
    rehearsed = _rehearsed({**real_step.LLAMA, "max_position_embeddings": 9000}, num_layers=4)
    for point in (Point(1, 16), Point(2, 48), Point(8, 1000)):
        fills_tile = rehearsed._probe(point).num_tokens > 4096
        assert fills_tile != (point.num_tokens > 4096), "the head's first tile tells them apart"


def test_scoring_on_a_gpu_takes_less_than_on_a_cpu() -> None:
    cpu, cuda = (_rehearsed(real_step.LLAMA, device=d, num_layers=1) for d in ("cpu", "cuda"))
    peaks = [r.rehearse(Point(2, 48)).footprint.live(2, 48).phase_peaks() for r in (cpu, cuda)]
    assert peaks[1]["loss"] < peaks[0]["loss"]
    assert peaks[1]["forward"] == peaks[0]["forward"]
