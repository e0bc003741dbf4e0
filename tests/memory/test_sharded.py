"""One of several processes holds its shard by the formula, and takes what real ones take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import real_processes
import real_step

from peftkit.errors import UsageError
from peftkit.memory.fake import PlanningError
from peftkit.memory.fake_step import Rehearsal, Rehearsed
from peftkit.memory.planned_config import planned_config
from peftkit.memory.planner import Plan, plan
from peftkit.memory.sharded import Sharded, stand_alone
from peftkit.memory.sharing import FSDP2, sharing_of
from peftkit.memory.terms import COLLECTIVES
from peftkit.planning.devices import of_size
from peftkit.plugins import SEQ_2_SEQ_LM, SEQUENCE_CLASSIFICATION, Point
from peftkit.recipe.build import build

GPU = of_size(24).as_machine()
FULL = {"adapter": "full"}
FSDP = {"method.sft.fsdp": True}
SHARDED_BF16 = {**FSDP, "model.dtype": "bfloat16", "method.sft.bf16": True}
REDUCED = {
    "method.sft.accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
STORED = {**NF4, "bnb_4bit_quant_storage": "float32"}
CELLS: dict[str, tuple[int, dict[str, Any]]] = {
    "ddp-lora": (2, {}),
    "ddp-full": (2, FULL),
    "ddp-full-accumulated": (2, {**FULL, "method.sft.gradient_accumulation_steps": 3}),
    "fsdp-lora": (2, FSDP),
    "fsdp-lora-3": (3, FSDP),
    "fsdp-lora-bf16": (2, SHARDED_BF16),
    "fsdp-lora-kept": (2, {**FSDP, "method.sft.fsdp_config": {"reshard_after_forward": False}}),
    "fsdp-full": (2, {**FULL, **FSDP}),
    "fsdp-full-3": (3, {**FULL, **FSDP}),
    "fsdp-full-bf16": (2, {**FULL, **SHARDED_BF16}),
    "fsdp-full-kept": (
        2, {**FULL, **FSDP, "method.sft.fsdp_config": {"reshard_after_forward": False}}
    ),
    "fsdp-full-checkpointed": (
        2, {**FULL, **FSDP, "method.sft.fsdp_config": {"activation_checkpointing": True}}
    ),
    "fsdp-full-reduced": (
        2, {**FULL, **FSDP, "method.sft.gradient_accumulation_steps": 3, **REDUCED}
    ),
    "fsdp-nf4": (2, {**FSDP, "model.quantize": {"bitsandbytes": NF4}}),
    "fsdp-nf4-stored": (2, {**FSDP, "model.quantize": {"bitsandbytes": STORED}}),
    "fsdp-full-accumulated": (2, {**FULL, **FSDP, "method.sft.gradient_accumulation_steps": 3}),
}  # fmt: skip


def recipe_of(folder: Path, changes: dict[str, Any], **config: Any) -> Any:
    """Write the recipe of a cell, decided for a GPU; `config` changes the model's."""
    real_step.save_model(folder, {**real_processes.LLAMA, **config})
    kept = {"method.sft.use_cpu": None, "method.sft.activation_checkpointing": False}
    kept["speed"] = real_step.NATIVE  # the real processes compute trl's loss
    return real_step.recipe_for(folder, **{**kept, **changes})


def rehearse(recipe: Any, num_processes: int) -> Rehearsal:
    """Rehearse what one process does, with the CPU's kernels that the real ones run."""
    built = build(recipe, GPU, is_here=False)
    sharing = sharing_of(built, built.method.config, num_processes)
    kind = Sharded if sharing.strategy == FSDP2 else Rehearsed
    rehearsed = kind(built, planned_config(recipe.model), device="cpu", sharing=sharing)
    return rehearsed.rehearse(Point(real_processes.ROWS, real_processes.LENGTH))


def planned_peaks(made: Rehearsal, length: int = real_processes.LENGTH) -> dict[str, int]:
    """Return a rehearsal's peaks as `real_processes.real_peaks` does."""
    live = made.footprint.live(real_processes.ROWS, length)
    peaks = live.phase_peaks()
    peaks.pop("load")
    most = int(live.by_term[COLLECTIVES].max())
    return {**peaks, "all": max(peaks.values()), COLLECTIVES: most}


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_a_process_takes_what_a_real_one_does(name: str, tmp_path: Path) -> None:
    num_processes, changes = CELLS[name]
    recipe = recipe_of(tmp_path, changes)
    planned = planned_peaks(rehearse(recipe, num_processes))
    real = real_processes.real_peaks(recipe.file, num_processes)
    assert planned["all"] == pytest.approx(real["all"], rel=1e-3)
    # What rings hold in real processes goes when the collector comes by.
    assert planned == pytest.approx(real, rel=2e-2)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seq2seq-lora": (real_step.T5, real_step.SEQ2SEQ),
    "classify-lora": (real_step.BERT, real_step.CLASSIFY),
    "classify-full": (real_step.BERT, {**real_step.CLASSIFY, **FULL}),
    "pretrain_bert-full": (real_step.BERT, {**real_step.MASKED_WORDS["pretrain_bert"], **FULL}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # torch tells of every view
@pytest.mark.parametrize("name", OTHERS)
def test_a_process_takes_what_a_real_one_does_by_other_methods(name: str, tmp_path: Path) -> None:
    config, changes = OTHERS[name]
    method = next(iter(changes["method"]))
    real_step.save_model(tmp_path, config, real_step.kind_of(changes))
    own = {f"method.{method}.use_cpu": None, f"method.{method}.fsdp": True}
    recipe = real_step.recipe_for(tmp_path, **{**changes, **own})
    built = build(recipe, GPU, is_here=False)
    sharing = sharing_of(built, built.method.config, 2)
    config_of_it = planned_config(recipe.model)
    target = real_step.NUM_WRITTEN if method == "seq2seq" else 0
    rehearsed = Sharded(built, config_of_it, device="cpu", sharing=sharing)
    made = rehearsed.rehearse(Point(2, 48, target_length=target))
    real = real_processes.real_peaks(recipe.file, 2)
    # What rings hold in real processes goes when the collector comes by.
    assert planned_peaks(made, 48)["all"] == pytest.approx(real["all"], rel=2e-2)


def _plan(folder: Path, num_processes: int, changes: dict[str, Any], **config: Any) -> Plan:
    recipe = recipe_of(folder, {**changes, "method.sft.optim": "adamw_torch"}, **config)
    return plan(recipe, lengths=[24, 24], machine=GPU, num_processes=num_processes)


def test_shards_have_as_many_rows_as_the_largest(tmp_path: Path) -> None:
    made = _plan(tmp_path, 3, {**FULL, **FSDP})
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    rows = [(-(-p.shape[0] // 3), p.numel() // p.shape[0]) for p in model.parameters()]
    shards = sum(-(-4 * first * rest // 512) * 512 for first, rest in rows)
    buffers = sum(-(-b.numel() * 4 // 512) * 512 for b in model.buffers())
    assert made.term_bytes("base") == shards + buffers
    # Two moments a weight, of the rows that a process really has, and its counts of steps.
    assert made.term_bytes("optimizer") == pytest.approx(2 * shards, rel=0.02)
    assert made.term_bytes(COLLECTIVES) > 0
    assert made.sharing.describe() == "3 processes under FSDP2"
    assert made.evaluation is None
    content = made.to_json()
    assert (content["num_processes"], content["strategy"]) == (3, "FSDP2")


def test_a_replica_has_its_gradients_twice(tmp_path: Path) -> None:
    alone, shared = (_plan(tmp_path, number, {}, num_hidden_layers=1) for number in (1, 2))
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    trained = sum(
        4 * (linear.in_features + linear.out_features) * 4
        for name, linear in model.named_modules()
        if hasattr(linear, "in_features") and "lm_head" not in name
    )
    assert shared.term_bytes(COLLECTIVES) == -(-trained // 512) * 512
    assert shared.peak_bytes - shared.term_bytes(COLLECTIVES) == alone.peak_bytes
    assert alone.term_bytes(COLLECTIVES) == 0


def test_what_real_processes_cannot_train_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {**FULL, **FSDP, "method.sft.optim": "adamw_8bit"})
    with pytest.raises(UsageError, match="optimizer_update_8bit_blockwise"):
        rehearse(recipe, 2)


def _t5(folder: Path, **changes: Any) -> Any:
    real_step.save_model(folder, real_step.T5, SEQ_2_SEQ_LM)
    cut = {"method.seq2seq.use_cpu": None, "method.seq2seq.fsdp": True}
    return real_step.recipe_for(folder, **{**real_step.SEQ2SEQ, **cut, **changes})


def test_shared_weights_that_are_trained_are_refused_as_the_run_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"encoder\.embed_tokens.* share a weight that is trained"):
        plan(_t5(tmp_path, **FULL), lengths=[24, 24], machine=GPU, num_processes=2)


def test_a_frozen_weight_that_many_read_is_planned_whole_in_each(tmp_path: Path) -> None:
    made = plan(_t5(tmp_path), lengths=[24, 24], machine=GPU, num_processes=2)
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    rows = {
        name: p.shape[0] if p is model.shared.weight else -(-p.shape[0] // 2)
        for name, p in model.named_parameters()
    }
    held = [4 * rows[name] * p[0].numel() for name, p in model.named_parameters()]
    assert made.term_bytes("base") == sum(-(-num // 512) * 512 for num in held)


def test_an_encoder_s_blocks_are_cut_and_not_its_embeddings(tmp_path: Path) -> None:
    """Its class names its embeddings beside its blocks, which accelerate would cut twice."""
    real_step.save_model(tmp_path, real_step.BERT, SEQUENCE_CLASSIFICATION)
    own = {"method.classify.use_cpu": None, "method.classify.fsdp": True}
    recipe = real_step.recipe_for(tmp_path, **{**real_step.CLASSIFY, **FULL, **own})
    made = plan(recipe, lengths=[24, 24], machine=GPU, num_processes=2)
    assert made.sharing.strategy == FSDP2
    assert made.term_bytes(COLLECTIVES) > 0


@pytest.mark.slow
def test_what_is_refused_fails_in_real_processes(tmp_path: Path) -> None:
    from torch.multiprocessing import ProcessRaisedException

    recipe = recipe_of(tmp_path, {**FULL, **FSDP, "method.sft.optim": "adamw_8bit"})
    with pytest.raises(ProcessRaisedException, match="got mixed"):
        real_processes.real_peaks(recipe.file, 2)


def test_a_made_up_group_leaves_nothing_behind() -> None:
    import torch.distributed as dist

    hook = sys.excepthook
    with stand_alone(4) as mesh:
        assert mesh.size() == dist.get_world_size() == 4
        with pytest.raises(PlanningError, match="belongs to a group"), stand_alone(2):
            pass
    assert not dist.is_initialized()
    assert sys.excepthook is hook
