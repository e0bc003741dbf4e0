"""What scoring is planned to take is what the real evaluation allocates."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_step

from peftkit.memory.evaluation import evaluation_peaks
from peftkit.memory.fake import storage_of
from peftkit.memory.fake_step import Rehearsed
from peftkit.memory.planned_config import planned_config
from peftkit.memory.runtime import Runtime
from peftkit.memory.simulate import hold_model
from peftkit.memory.trace import compile_trace
from peftkit.memory.tracker import Tracker
from peftkit.models.base import load_base
from peftkit.recipe.build import build
from peftkit.recipe.schema import EvaluateSection
from peftkit.scoring import at_once, generation, perplexity
from peftkit.scoring.generation import MAX_NEW_TOKENS

NONE = Runtime(0, "", 1)
ROWS, LENGTH, NUM_NEW = 6, 40, 40
NF4 = {"model.quantize": {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": ({**real_step.LLAMA, "num_hidden_layers": 4}, {}),
    "qwen3": (real_step.QWEN3, {}),
    "gpt2": (real_step.GPT2, {}),
    "gemma2": ({**real_step.GEMMA2, "num_hidden_layers": 4}, {}),
    "mistral": (real_step.MISTRAL, {}),
    "nf4": (real_step.LLAMA, NF4),
    "bfloat16": (real_step.LLAMA, {"model.dtype": "bfloat16"}),
    "beams": (real_step.LLAMA, {"evaluate.generation.num_beams": 3}),
}

QUICK = (("llama", "prompts"),)
SMALL = {**real_step.LLAMA, "num_hidden_layers": 1}
"""Enough where plans are compared with plans."""


def recipe_of(folder: Path, name: str) -> Any:
    config, changes = CASES[name]
    real_step.save_model(folder, config)
    generates = {"batch_size": ROWS, "generation": {"max_new_tokens": NUM_NEW}}
    return real_step.recipe_for(folder, evaluate={"split": "train", **generates}, **changes)


def planned(recipe: Any, *, length: int = LENGTH, runtime: Runtime = NONE) -> dict[str, Any]:
    built = build(recipe, real_step.CPU, is_here=False)
    rehearsed = Rehearsed(built, planned_config(recipe.model), device="cpu")
    peaks = evaluation_peaks(rehearsed, built, length=length, runtime=runtime)
    assert rehearsed.model.training, "the training step that follows is planned as such"
    return {peak.stage: peak for peak in peaks}


def real_peak(recipe: Any, run: Any) -> int:
    """Track what a real model allocates while it is scored, its own tensors included."""
    built = build(recipe, real_step.CPU)
    base = load_base(recipe.model, kind=built.method.kind, quantizer=built.quantizer)
    model = built.adapter.attach(base)
    tracker = Tracker(storage_of(built.quantizer))
    hold_model(tracker, model)
    tracker.enter("evaluate")
    with tracker:
        run(model.eval())
        trace = tracker.finish()
    return compile_trace(trace).peak(np.array(trace.num_bytes, np.int64))


SCORED = [
    pytest.param(
        name, length,
        marks=() if (name, decider) in QUICK else pytest.mark.slow,
        id=f"{name}-{decider}-decide",
    )
    for name, (length, decider) in itertools.product(CASES, ((40, "prompts"), (3, "answers")))
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(("name", "length"), SCORED)
def test_scoring_takes_what_is_planned(name: str, length: int, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    recipe = recipe_of(tmp_path, name)
    options = {**generation.NEUTRAL, **recipe.evaluate.generation}
    config = GenerationConfig(**options, eos_token_id=[999], pad_token_id=0)

    def answer(model: Any) -> None:
        prompts = [[7] * max(1, length - at) for at in range(ROWS)]
        answers = generation._generate(model, prompts, config, tokenizer=None)
        assert max(len(ids) for ids, _ in answers) == NUM_NEW

    rows = [{"input_ids": [7] * length, "labels": [7] * length}] * 40
    made = planned(recipe, length=length)
    stages = [made["prompts"].num_bytes, made["answers"].num_bytes]
    assert stages.index(max(stages)) == (length == 3)
    # Beside two megabytes the bookkeeping of a search weighs something.
    assert max(stages) == pytest.approx(
        real_peak(recipe, answer), rel=0.06 if length == 3 else 0.01
    )
    read = real_peak(recipe, lambda model: perplexity.token_loss(model, rows))
    assert made["rows"].num_bytes == pytest.approx(read, rel=0.01)


@pytest.mark.parametrize(
    "budget",
    [pytest.param(80, id="in-groups"), pytest.param(1, id="alone", marks=pytest.mark.slow)],
)
def test_prompts_that_are_read_in_groups_take_what_is_planned(
    budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GenerationConfig

    monkeypatch.setitem(at_once._TOKENS, "cpu", budget)
    recipe = recipe_of(tmp_path, "llama")
    options = {**generation.NEUTRAL, **recipe.evaluate.generation}
    config = GenerationConfig(**options, eos_token_id=[999], pad_token_id=0)
    made = planned(recipe)
    real = real_peak(
        recipe,
        lambda model: generation._generate(model, [[7] * LENGTH] * ROWS, config, tokenizer=None),
    )
    assert max(made["prompts"].num_bytes, made["answers"].num_bytes) == pytest.approx(
        real, rel=0.01
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_step.save_model(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def silent(small: Path) -> dict[str, Any]:
    """Plan what a recipe says nothing about."""
    return planned(real_step.recipe_for(small, evaluate={"split": "train"}))


def test_a_full_fine_tune_is_scored_beside_its_base(small: Path, silent: dict[str, Any]) -> None:
    beside = real_step.recipe_for(small, evaluate={"split": "train"}, adapter="full")
    both = silent["rows"].num_bytes + (small / "model.safetensors").stat().st_size
    assert planned(beside)["rows"].num_bytes == pytest.approx(both, rel=0.01)


def test_nothing_is_planned_where_nothing_is_scored(small: Path) -> None:
    assert planned(real_step.recipe_for(small)) == {}


def test_what_a_recipe_leaves_open_is_planned_as_it_is_scored(silent: dict[str, Any]) -> None:
    assert silent["prompts"].rows == EvaluateSection().batch_size
    assert silent["answers"].length == silent["prompts"].length + MAX_NEW_TOKENS


def test_running_text_is_read_and_not_answered(small: Path) -> None:
    text = {"data.task": {"text": {"text": "document"}}, "evaluate": {"split": "train"}}
    assert set(planned(real_step.recipe_for(small, **text))) == {"rows"}


def test_no_more_rows_are_planned_than_are_scored(small: Path) -> None:
    few = real_step.recipe_for(small, evaluate={"split": "train", "limit": 2})
    assert planned(few)["prompts"].rows == 2


def test_the_runtime_is_part_of_it(small: Path, silent: dict[str, Any]) -> None:
    recipe = real_step.recipe_for(small, evaluate={"split": "train"})
    beside = planned(recipe, runtime=Runtime(1 << 30, "", 1))
    assert silent
    for stage, peak in silent.items():
        assert beside[stage].num_bytes == peak.num_bytes + (1 << 30)


WRITTEN = 12
OTHERS = {
    "t5": (real_step.T5, real_step.SEQ2SEQ),
    "bart": (real_step.BART, real_step.SEQ2SEQ),
    "bert": (real_step.BERT, real_step.CLASSIFY),
    "classifier": (real_step.LLAMA, real_step.CLASSIFY),
}


def planned_other(folder: Path, name: str) -> tuple[Any, dict[str, int]]:
    """Save a model and plan its scoring; return the recipe, and stage -> bytes."""
    from peftkit.memory.lengths import fit_head

    config, changes = OTHERS[name]
    kind = real_step.kind_of(changes)
    real_step.save_model(folder, config, kind)
    generates = {"generation": {"max_new_tokens": NUM_NEW}} if kind.answers == "text" else {}
    section = {"split": "train", "batch_size": ROWS, **generates}
    recipe = real_step.recipe_for(folder, evaluate=section, **changes)
    built = build(recipe, real_step.CPU, is_here=False)
    native = fit_head(planned_config(recipe.model), kind, None)
    peaks = evaluation_peaks(
        Rehearsed(built, native, device="cpu"), built,
        length=LENGTH, target_length=WRITTEN, runtime=NONE,
    )  # fmt: skip
    return recipe, {peak.stage: peak.num_bytes for peak in peaks}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_scoring_an_encoder_decoder_takes_what_is_planned(name: str, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    recipe, made = planned_other(tmp_path, name)
    start = OTHERS[name][0]["decoder_start_token_id"]
    options = {**generation.NEUTRAL, **recipe.evaluate.generation}
    config = GenerationConfig(
        **options, eos_token_id=[999], pad_token_id=0, decoder_start_token_id=start
    )

    def answer(model: Any) -> None:
        sources = [[7] * (LENGTH - at) for at in range(ROWS)]
        answers = generation._generate(model, sources, config, tokenizer=None)
        assert max(len(ids) for ids, _ in answers) == NUM_NEW

    peak = max(made["prompts"], made["answers"])
    assert peak == pytest.approx(real_peak(recipe, answer), rel=0.03)
    rows = [{"input_ids": [7] * LENGTH, "labels": [7] * WRITTEN}] * 40
    read = real_peak(recipe, lambda model: perplexity.token_loss(model, rows))
    assert made["rows"] == pytest.approx(read, rel=0.01)


@pytest.mark.parametrize("name", ["bert", pytest.param("classifier", marks=pytest.mark.slow)])
def test_naming_labels_takes_what_is_planned(name: str, tmp_path: Path) -> None:
    from types import SimpleNamespace

    import torch

    from peftkit.scoring.classifier import classify

    def pad(rows: list[dict[str, list[int]]], **_: Any) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    recipe, made = planned_other(tmp_path, name)
    rows = [{"input_ids": [7] * LENGTH}] * (2 * ROWS)
    tokenizer = SimpleNamespace(pad=pad)
    read = real_peak(recipe, lambda model: classify(model, tokenizer, rows, batch_size=ROWS))
    assert made == {"rows": pytest.approx(read, rel=0.01)}
