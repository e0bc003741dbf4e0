"""Every method over two processes, whole in each and in shards, beside the same in one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixture import losses, train
from two_processes import in_two_processes, several_runs

from peftkit.rundir.paths import RunDir

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NUM_STEPS = 5
_SHORT = (
    "data.splits={train: 'train[:ROWS]'}", "evaluate=false", "method.METHOD.max_steps=5",
    "method.METHOD.warmup_steps=0", "method.METHOD.per_device_train_batch_size=2",
    "method.METHOD.logging_steps=1", "method.METHOD.save_strategy=no",
    "method.METHOD.use_cpu=true",
)  # fmt: skip
_TEXTS = (
    "data.source={embedded: {name: docstring-summaries}}",
    "data.task={text: {text: document}}",
    "model.config.num_hidden_layers=2",
)
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sft": ("summarize-lora", "sft", ()),
    "sft-packed": ("summarize-lora", "sft", ("method.sft.packing=true",)),
    "sft-dora": ("summarize-dora", "sft", ()),
    "sft-full": ("summarize-full", "sft", ()),
    "sft-native": ("summarize-lora", "sft", ("speed={loss: native, unpad: off}",)),
    "sft-nf4": ("summarize-lora", "sft", (
        "model.dtype=bfloat16", "model.quantize={bitsandbytes: {load_in_4bit: true}}")),
    "seq2seq": ("translate-seq2seq-lora", "seq2seq", ()),
    "classify": ("classify-pairs-lora", "classify", ("adapter.lora.lora_dropout=0",)),
    "question_answering": ("answer-lora", "question_answering", ()),
    "dpo": ("dpo-lora", "dpo", ()),
    "kto": ("kto-lora", "kto", ()),
    "reward": ("reward-lora", "reward", ()),
    "vision_sft": ("vision-sft", "vision_sft", ("method.vision_sft.eval_strategy=no",)),
    "pretrain_lm": ("pretrain-lm", "pretrain_lm", (*_TEXTS, "method.pretrain_lm.muon=false")),
    "pretrain_bert": ("pretrain-bert", "pretrain_bert", (
        *_TEXTS, "method.pretrain_bert.muon=false")),
    "grpo": ("grpo-lora", "grpo", (
        "method.grpo.num_generations=2", "method.grpo.max_completion_length=8",
        "method.grpo.rewards=[similar_length]")),
}  # fmt: skip


BY_TOKENS = ("sft", "pretrain_lm")
"""Methods whose loss is a mean over a step's tokens: uneven batches are filled with blank rows."""
OWN_NUMBERS = {"grpo": None, "kto": None, "sft-nf4": 1e-2}
"""What comes out otherwise: answers are drawn in each process, trl's KTO takes its baseline from
the batches of all processes at once, and bfloat16 adds up another number where a batch has another
shape: rows of which nothing is trained fill the last one."""
IN_SHARDS = {
    "head": ("adapter.lora.modules_to_save=[lm_head]", "nothing"),
    "both": ("adapter.lora.modules_to_save=[embed_tokens, lm_head]", "nothing"),
    "added": ("model.add_tokens=[<a>, <b>]", "UsageError: .* share a weight that is trained"),
    "adalora": (
        "adapter={adalora: {r: 4, init_r: 6, total_step: 5, tinit: 1, tfinal: 1}}",
        "UsageError: .*this cannot be trained in shards: .* DTensor",
    ),
}
"""What is trained beside the layers of a LoRA, and how it ends."""


def run_of(name: str, *, sharded: bool) -> list[Any]:
    recipe, method, own = CASES[name]
    num_rows = "13" if method in BY_TOKENS else "96"  # no epoch of the latter ends in five steps
    overrides = [
        line.replace("METHOD", method).replace("ROWS", num_rows) for line in (*_SHORT, *own)
    ]
    if sharded:
        overrides.append(f"method.{method}.fsdp=true")
    return [f"{name}-{'fsdp2' if sharded else 'ddp'}", str(RECIPES / f"{recipe}.yaml"), overrides]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("two")
    runs = [run_of(name, sharded=sharded) for sharded in (False, True) for name in CASES]
    _, recipe, overrides = run_of("sft", sharded=True)
    runs.append(["planned", recipe, [*overrides, "memory.budget=8GiB"]])
    runs += [[name, recipe, [*overrides, more]] for name, (more, _) in IN_SHARDS.items()]
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    return folder, in_two_processes(folder, several_runs)[0]["several_runs"]


def weights(run_dir: RunDir) -> dict[str, torch.Tensor]:
    (file,) = run_dir.trained.glob("*model.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_does(
    ended: tuple[Path, dict[str, str]], tmp_path: Path, name: str, engine: str
) -> None:
    folder, how = ended
    assert how[f"{name}-{engine}"] == "nothing"
    _, method, _ = CASES[name]
    _, recipe, overrides = run_of(name, sharded=False)
    alone = train(
        Path(recipe), tmp_path / "alone", *overrides,
        f"method.{method}.gradient_accumulation_steps=2",
    )  # fmt: skip
    together = RunDir(folder / f"{name}-{engine}")
    apart = OWN_NUMBERS.get(f"{name}-{engine}", OWN_NUMBERS.get(name, 1e-4))
    if apart is None:
        assert len(losses(together)) == len(losses(alone)) == NUM_STEPS
        return
    assert losses(together) == pytest.approx(losses(alone), abs=apart)
    ours, theirs = weights(together), weights(alone)
    assert ours.keys() == theirs.keys()
    furthest = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    # AdamW's first steps are as long where a gradient is nothing but the noise of a sum's order.
    assert furthest < (apart if engine == "ddp" else 5e-3)


@pytest.mark.slow
def test_fifty_steps_of_uneven_rows_are_those_of_one_process(tmp_path: Path) -> None:
    """Two epochs, each of which ends with a batch that does not fill."""
    recipe = RECIPES / "summarize-lora.yaml"
    overrides = [
        *(line.replace("METHOD", "sft").replace("ROWS", "103") for line in _SHORT),
        "method.sft.max_steps=50", "adapter.lora.lora_dropout=0",
    ]  # fmt: skip
    (tmp_path / "runs.json").write_text(json.dumps([["two", str(recipe), overrides]]), "utf-8")
    assert in_two_processes(tmp_path, several_runs)[0]["several_runs"] == {"two": "nothing"}
    accumulated = "method.sft.gradient_accumulation_steps=2"
    alone, together = (
        train(recipe, tmp_path / "alone", *overrides, accumulated), RunDir(tmp_path / "two")
    )  # fmt: skip
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    assert len(losses(alone)) == 50
    ours, theirs = weights(together), weights(alone)
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_SHARDS)
def test_what_is_trained_in_shards_trains_as_in_one_process_or_is_refused(
    ended: tuple[Path, dict[str, str]], tmp_path: Path, name: str
) -> None:
    (folder, how), (more, wanted) = ended, IN_SHARDS[name]
    assert re.match(wanted, how[name], re.DOTALL)
    if wanted == "nothing":
        _, recipe, overrides = run_of("sft", sharded=False)
        accumulated = "method.sft.gradient_accumulation_steps=2"
        alone = train(Path(recipe), tmp_path / "alone", *overrides, more, accumulated)
        assert losses(RunDir(folder / name)) == pytest.approx(losses(alone), abs=1e-4)


@pytest.mark.slow
def test_a_run_in_shards_is_planned_before_it_starts(ended: tuple[Path, dict[str, str]]) -> None:
    folder, how = ended
    assert how["planned"] == "nothing"
    planned = json.loads((folder / "planned" / "plan.json").read_text("utf-8"))
    assert (planned["strategy"], planned["num_processes"]) == ("FSDP2", 2)
    assert "iB peak in" in (folder / "planned.0.txt").read_text("utf-8")
