"""The plan's peak is the real step's, byte for byte, and replays hold at other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import real_step

from peftkit.memory.fake import PlanningError
from peftkit.memory.planner import plan, plan_run
from peftkit.methods.sft import SFT
from peftkit.plugins import IGNORED, SEQ_2_SEQ_LM

NF4 = {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
DOUBLE = {"bitsandbytes": {**NF4["bitsandbytes"], "bnb_4bit_use_double_quant": True}}
FP4 = {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}}
INT8 = {"bitsandbytes": {"load_in_8bit": True}}
CHECKPOINTED = {"method.sft.activation_checkpointing": True}
SOME = ["q_proj", "v_proj"]
PRETRAIN = {
    "adapter": "full",
    "method": {
        "pretrain_lm": {"per_device_train_batch_size": 2, "max_length": 48, "use_cpu": True}
    },
    "data.task": {"text": {"text": "document"}},
}

QUICK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": (real_step.LLAMA, {}),
    "full-checkpointed": (real_step.LLAMA, {"adapter": "full", **CHECKPOINTED}),
    "nf4-double": (real_step.LLAMA, {"model.quantize": DOUBLE}),
    "logits": (real_step.LLAMA, PRETRAIN),
    "logits-layer-types": ({**real_step.QWEN3, "num_hidden_layers": 8}, PRETRAIN),
    "bert": (real_step.BERT, real_step.CLASSIFY),
    "bert-pretrained": (real_step.BERT, real_step.MASKED_WORDS["pretrain_bert"]),
}
SLOW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma2-bf16": (real_step.GEMMA2, {"model.dtype": "bfloat16", "method.sft.bf16": True}),
    "bert-questions": (real_step.BERT, real_step.QUESTIONS),
    "accumulated": (real_step.LLAMA, {"method.sft.gradient_accumulation_steps": 3}),
    "lora-checkpointed": (real_step.LLAMA, CHECKPOINTED),
    "full": (real_step.LLAMA, {"adapter": "full"}),
    "full-foreach": (real_step.LLAMA, {"adapter": "full", "method.sft.optim": "adamw_torch"}),
    "full-8bit": (real_step.LLAMA, {"adapter": "full", "method.sft.optim": "adamw_8bit"}),
    "adafactor": (real_step.LLAMA, {"adapter": "full", "method.sft.optim": "adafactor"}),
    "sgd": (real_step.LLAMA, {"method.sft.optim": "sgd"}),
    "lion": (real_step.LLAMA, {"method.sft.optim": "lion_32bit"}),
    "bf16-weights": (real_step.LLAMA, {"model.dtype": "bfloat16"}),
    "every-second": (
        real_step.LLAMA,
        {**CHECKPOINTED, "method.sft.activation_checkpointing_kwargs": {"every_n_layers": 2}},
    ),
    "selective": (
        real_step.LLAMA,
        {
            **CHECKPOINTED,
            "method.sft.activation_checkpointing_kwargs": {"selective": True},
        },
    ),
    "full-accumulated": (
        real_step.LLAMA, {"adapter": "full", "method.sft.gradient_accumulation_steps": 3}
    ),
    "nf4": (real_step.LLAMA, {"model.quantize": NF4}),
    "nf4-checkpointed": (real_step.LLAMA, {"model.quantize": NF4, **CHECKPOINTED}),
    "fp4": (real_step.LLAMA, {"model.quantize": FP4}),
    "int8": (real_step.LLAMA, {"model.quantize": INT8}),
    "qwen2": (real_step.QWEN2, {}),
    "qwen3-checkpointed": (real_step.QWEN3, CHECKPOINTED),
    "mistral": (real_step.MISTRAL, {}),
    "phi3": (real_step.PHI3, {}),
    "gemma2-checkpointed": (real_step.GEMMA2, CHECKPOINTED),
    "gpt2": (real_step.GPT2, {}),
    "gpt2-full": (real_step.GPT2, {"adapter": "full"}),
    "gpt2-checkpointed": (real_step.GPT2, CHECKPOINTED),
    "logits-checkpointed": (
        real_step.LLAMA,
        {**PRETRAIN, "method.pretrain_lm.activation_checkpointing": True},
    ),
    "t5": (real_step.T5, real_step.SEQ2SEQ),
    "t5-smoothed": (
        real_step.T5, {**real_step.SEQ2SEQ, "method.seq2seq.label_smoothing_factor": 0.1}
    ),
    "logits-muon": (real_step.LLAMA, {**PRETRAIN, "method.pretrain_lm.muon": True}),
    "logits-smoothed": (
        real_step.LLAMA, {**PRETRAIN, "method.pretrain_lm.label_smoothing_factor": 0.1}
    ),
    "t5-full": (real_step.T5, {**real_step.SEQ2SEQ, "adapter": "full"}),
    "t5-checkpointed": (
        real_step.T5,
        {**real_step.SEQ2SEQ, "method.seq2seq.activation_checkpointing": True},
    ),
    "t5-nf4": (real_step.T5, {**real_step.SEQ2SEQ, "model.quantize": NF4}),
    "t5-ia3": (real_step.T5, {**real_step.SEQ2SEQ, "adapter": {"ia3": {}}}),
    "bart": (real_step.BART, real_step.SEQ2SEQ),
    "bart-full": (real_step.BART, {**real_step.SEQ2SEQ, "adapter": "full"}),
    "bart-checkpointed": (
        real_step.BART,
        {**real_step.SEQ2SEQ, "method.seq2seq.activation_checkpointing": True},
    ),
    "bert-full": (real_step.BERT, {**real_step.CLASSIFY, "adapter": "full"}),
    "bert-checkpointed": (
        real_step.BERT,
        {**real_step.CLASSIFY, "method.classify.activation_checkpointing": True},
    ),
    "bert-questions-full": (real_step.BERT, {**real_step.QUESTIONS, "adapter": "full"}),
    "bert-questions-checkpointed": (
        real_step.BERT,
        {**real_step.QUESTIONS, "method.question_answering.activation_checkpointing": True},
    ),
    "bert-questions-nf4": (real_step.BERT, {**real_step.QUESTIONS, "model.quantize": NF4}),
    "bert-pretrained-muon": (
        real_step.BERT,
        {**real_step.MASKED_WORDS["pretrain_bert"], "method.pretrain_bert.muon": True},
    ),
    "bert-pretrained-lora": (
        real_step.BERT,
        {**real_step.MASKED_WORDS["pretrain_bert"],
         "adapter": {"lora": {"r": 4, "target_modules": ["query", "value"]}}},
    ),
    "bert-pretrained-checkpointed": (
        real_step.BERT,
        {**real_step.MASKED_WORDS["pretrain_bert"],
         "method.pretrain_bert.activation_checkpointing": True},
    ),
    "roberta-masked": (real_step.ROBERTA, real_step.MASKED_WORDS["pretrain_mlm"]),
    "bert-nf4": (real_step.BERT, {**real_step.CLASSIFY, "model.quantize": NF4}),
    "llama-classifier": (real_step.LLAMA, real_step.CLASSIFY),
    "llama-classifier-nf4": (real_step.LLAMA, {**real_step.CLASSIFY, "model.quantize": NF4}),
    "new rows of a tied head": (
        real_step.QWEN2,
        {"adapter": {"lora": {"target_modules": SOME, "trainable_token_indices": [998, 999]}}},
    ),
    **{
        name: (real_step.LLAMA, {"adapter": adapter})
        for name, adapter in {
            "dora": {"lora": {"use_dora": True, "target_modules": "all-linear"}},
            "adalora": {"adalora": {"total_step": 100}},
            "boft": {"boft": {"target_modules": SOME}},
            "c3a": {"c3a": {"block_size": 16, "target_modules": SOME}},
            "fourierft": {"fourierft": {"n_frequency": 100, "target_modules": SOME}},
            "hra": {"hra": {"target_modules": SOME}},
            "new rows": {
                "lora": {
                    "target_modules": SOME,
                    "trainable_token_indices": {"embed_tokens": [998, 999], "lm_head": [998, 999]},
                }
            },
            "ia3": {"ia3": {"target_modules": SOME, "feedforward_modules": []}},
            "ln_tuning": {"ln_tuning": {}},
            "loha": {"loha": {"target_modules": SOME}},
            "lokr": {"lokr": {"target_modules": SOME}},
            "miss": {"miss": {"target_modules": SOME}},
            "oft": {"oft": {"target_modules": SOME}},
            "p_tuning": {"p_tuning": {"num_virtual_tokens": 5}},
            "prefix_tuning": {"prefix_tuning": {"num_virtual_tokens": 5}},
            "prompt_tuning": {"prompt_tuning": {"num_virtual_tokens": 5}},
            "randlora": {"randlora": {"target_modules": SOME}},
            "road": {"road": {"group_size": 16, "target_modules": SOME}},
            "trainable_tokens": {"trainable_tokens": {"token_indices": [1, 2, 3]}},
            "vblora": {"vblora": {"vector_length": 16, "target_modules": SOME}},
            "vera": {"vera": {"target_modules": SOME}},
        }.items()
    },
}  # fmt: skip


def _without_runtime(made) -> int:
    return made.peak_bytes - made.term_bytes("runtime")


def _compare(
    folder: Path,
    config: dict[str, Any],
    changes: dict[str, Any],
    *,
    padded: bool = False,
    num_prompt: int = 0,
) -> None:
    real_step.save_model(folder, config, real_step.kind_of(changes))
    recipe = real_step.recipe_for(folder, **changes)
    rows, lengths = real_step.batch_of(recipe, padded=padded)
    if num_prompt:
        rows["labels"][:, :num_prompt] = IGNORED
        lengths.trained = [length - num_prompt for length in lengths]
    made = plan(recipe, lengths=lengths, machine=real_step.CPU)
    real = real_step.real_peaks(recipe, rows)
    assert _without_runtime(made) == pytest.approx(real["all"], rel=5e-3)
    runtime = made.peak_bytes - _without_runtime(made)
    for phase in ("forward", "loss", "backward", "step"):
        assert made.phase_bytes[phase] - runtime == pytest.approx(real[phase], rel=5e-3), phase
    assert sum(term.num_bytes for term in made.terms) == made.peak_bytes


@pytest.mark.parametrize("name", QUICK)
def test_the_fake_steps_peak_is_the_real_ones(name: str, tmp_path: Path) -> None:
    _compare(tmp_path, *QUICK[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set", "ignore:Setting boft_n_butterfly")
@pytest.mark.parametrize("name", SLOW)
def test_the_fake_steps_peak_is_the_real_ones_everywhere(name: str, tmp_path: Path) -> None:
    _compare(tmp_path, *SLOW[name])


@pytest.mark.parametrize("changes", [{}, {"adapter": "full"}], ids=["lora", "full"])
def test_a_last_block_that_computes_few_positions(changes: dict, tmp_path: Path) -> None:
    _compare(tmp_path, real_step.LLAMA, changes, num_prompt=40)


def test_a_4_bit_base_is_planned_in_the_dtype_that_it_computes_in(tmp_path: Path) -> None:
    small = {**real_step.LLAMA, "num_hidden_layers": 1}
    real_step.save_model(tmp_path, small)

    def planned(**options: str):
        quantize = {"bitsandbytes": {"load_in_4bit": True, **options}}
        changes = {"model.dtype": "bfloat16", "model.quantize": quantize}
        recipe = real_step.recipe_for(tmp_path, **changes)
        return plan(recipe, machine=real_step.CPU)

    decided = planned()
    stated = planned(bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
    assert _without_runtime(decided) == _without_runtime(stated)
    assert decided.work == stated.work
    wider = planned(bnb_4bit_compute_dtype="float32")
    assert wider.work["forward"].moved_bytes > decided.work["forward"].moved_bytes


def test_a_step_that_cannot_be_run_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SFT, "unplanned", "it generates inside its step")
    recipe = real_step.recipe_for(tmp_path)  # of a folder without a model, which is not asked for
    with pytest.raises(PlanningError, match=r"method\.sft takes is unknown: it generates inside"):
        plan(recipe, machine=real_step.CPU)
    made, reason = plan_run(recipe, real_step.CPU, [48])
    assert made is None
    assert "it generates inside its step" in str(reason)


def test_an_evaluator_that_is_not_known_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step.save_model(tmp_path, real_step.LLAMA)
    recipe = real_step.recipe_for(tmp_path, evaluate={"split": "train"})
    assert plan(recipe, lengths=[8], machine=real_step.CPU).evaluation is not None
    monkeypatch.setattr(SFT, "has_evaluator", True)
    made = plan(recipe, lengths=[8], machine=real_step.CPU)
    assert made.evaluation is None
    assert made.unknown == ("scoring after training, which method.sft does in a way of its own",)


def test_padding_needs_a_mask(tmp_path: Path) -> None:
    _compare(tmp_path, real_step.LLAMA, {"speed": {"unpad": "off"}}, padded=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "bart", "bert", "llama-classifier"])
def test_padding_needs_a_mask_everywhere(name: str, tmp_path: Path) -> None:
    _compare(tmp_path, *{**QUICK, **SLOW}[name], padded=True)


@pytest.mark.slow
def test_more_sources_of_other_lengths_are_what_another_plan_says(tmp_path: Path) -> None:
    real_step.save_model(tmp_path, real_step.BART, SEQ_2_SEQ_LM)
    recipe = real_step.recipe_for(tmp_path, **real_step.SEQ2SEQ)
    _, lengths = real_step.batch_of(recipe)
    first = plan(recipe, lengths=lengths, machine=real_step.CPU)
    changes = {**real_step.SEQ2SEQ, "method.seq2seq.per_device_train_batch_size": 3}
    longer = type(lengths)([301])
    longer.longest_target = real_step.NUM_WRITTEN
    other = plan(real_step.recipe_for(tmp_path, **changes), lengths=longer, machine=real_step.CPU)
    runtime = first.peak_bytes - _without_runtime(first)
    assert first.bytes_at(micro_batch=3, length=301) - runtime == _without_runtime(other)


def _compare_replays(folder: Path, *sizes: tuple[int, int]) -> None:
    real_step.save_model(folder, real_step.LLAMA)
    first = plan(real_step.recipe_for(folder), lengths=[48], machine=real_step.CPU)
    runtime = first.peak_bytes - _without_runtime(first)
    for rows, length in sizes:
        changes = {"method.sft.per_device_train_batch_size": rows}
        other = plan(
            real_step.recipe_for(folder, **changes), lengths=[length], machine=real_step.CPU
        )
        replayed = first.bytes_at(micro_batch=rows, length=length) - runtime
        assert replayed == _without_runtime(other), (rows, length)


def test_a_replay_is_what_another_plan_says(tmp_path: Path) -> None:
    _compare_replays(tmp_path, (1, 48), (7, 801))


@pytest.mark.slow
def test_a_replay_is_what_another_plan_says_at_more_sizes(tmp_path: Path) -> None:
    _compare_replays(tmp_path, (3, 48), (2, 300), (1, 801))


def test_the_largest_batch_fits_and_the_next_does_not(tmp_path: Path) -> None:
    real_step.save_model(tmp_path, real_step.LLAMA)
    made = plan(real_step.recipe_for(tmp_path), lengths=[48], machine=real_step.CPU)
    limit = made.peak_bytes * 3
    rows, tokens = made.largest_micro_batch(limit), made.longest_length(limit)
    assert made.bytes_at(micro_batch=rows, length=48) <= limit
    assert made.bytes_at(micro_batch=rows + 1, length=48) > limit
    assert made.bytes_at(micro_batch=2, length=tokens) <= limit
    assert made.bytes_at(micro_batch=2, length=tokens + 1) > limit
    verdict = made.verdict("tiny", 1000)
    assert (verdict.fits, verdict.max_micro_batch, verdict.max_length) == (False, 0, 0)
    assert verdict.headroom_bytes == 1000 - made.peak_bytes
    content = made.to_json([verdict])
    assert {"schema_version", "peak_bytes", "peak_phase", "terms", "devices", "seconds"} <= set(
        content
    )
    assert content["devices"][0]["max_micro_batch"] == 0
    assert {"name", "num_bytes", "phase", "formula", "exact"} == set(content["terms"][0])
