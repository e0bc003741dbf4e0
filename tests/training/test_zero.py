"""What DeepSpeed's ZeRO wrote is read by the same engine; its runs are those of replicas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixture import losses, write_recipe

from peftkit.errors import UsageError
from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import RunDir
from peftkit.training.zero import (
    check_goes_on,
    cuts_weights,
    gathered,
    is_by_deepspeed,
    is_partitioned,
    settle_deepspeed,
)


def arguments(*, zero3: bool | None = None) -> Any:
    """Stand for arguments without DeepSpeed, or with its ZeRO-2 or ZeRO-3."""
    config = SimpleNamespace(is_zero3=lambda: zero3)
    plugin = SimpleNamespace(hf_ds_config=config, set_deepspeed_weakref=lambda: None)
    return SimpleNamespace(deepspeed_plugin=None if zero3 is None else plugin)


REPLICAS, ZERO2, ZERO3 = arguments(), arguments(zero3=False), arguments(zero3=True)


def written(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / "global_step4" / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return folder


TWO = ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
       "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt")  # fmt: skip


def test_states_are_read_by_the_engine_that_wrote_them(tmp_path: Path) -> None:
    check_goes_on(tmp_path, REPLICAS, num_processes=4)
    zero2 = written(tmp_path, *TWO)
    with pytest.raises(UsageError, match=r"as --engine zero2 -- --num_processes 2 wrote it"):
        check_goes_on(zero2, REPLICAS, num_processes=1)
    check_goes_on(zero2, ZERO2, num_processes=2)
    with pytest.raises(UsageError, match="zero2 -- --num_processes 2"):
        check_goes_on(zero2, ZERO2, num_processes=4)
    with pytest.raises(UsageError, match="zero2"):
        check_goes_on(zero2, ZERO3, num_processes=2)
    zero3 = written(zero2, "zero_pp_rank_0_mp_rank_00_model_states.pt")
    check_goes_on(zero3, ZERO3, num_processes=2)
    with pytest.raises(UsageError, match="zero3"):
        check_goes_on(zero3, ZERO2, num_processes=2)


def test_replicas_states_are_not_read_by_deepspeed(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_goes_on(tmp_path, ZERO2, num_processes=2)
    assert caught.value.hint == "go on with --engine ddp, or train anew with --out FOLDER"


def test_what_no_engine_has_cut_is_left_alone() -> None:
    layer = torch.nn.Linear(2, 2)
    assert not is_partitioned(layer)
    assert not is_by_deepspeed(REPLICAS)
    assert not cuts_weights(REPLICAS)
    with gathered(layer.weight) as weight:
        assert weight is layer.weight


def test_zero3_of_any_config_reads_one_layer_at_a_time(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    for args in (REPLICAS, ZERO2):
        settle_deepspeed(recipe, args)
    with pytest.raises(UsageError, match="gathers one layer's weights") as caught:
        settle_deepspeed(recipe, ZERO3)
    assert caught.value.hint
    settle_deepspeed(load_recipe(tiny_recipe, [caught.value.hint]), ZERO3)


def run(recipe: Path, out: Path, engine: str, *overrides: str) -> RunDir:
    done = subprocess.run(
        [sys.executable, "-m", "peftkit", "run", str(recipe), *overrides, "--out", str(out),
         "--launch", "accelerate", "--engine", engine, "--", "--num_processes", "2"],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return RunDir(out)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_zero_trains_what_replicas_do(tmp_path: Path, tiny_model: Path, adapter: str) -> None:
    pytest.importorskip("deepspeed")
    rows = tmp_path / "rows.jsonl"
    texts = [{"document": f"read file {n} " * (1 + n % 5), "summary": f"{n}"} for n in range(24)]
    rows.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    sft = {"max_steps": 5, "learning_rate": 1e-3, "per_device_train_batch_size": 2,
           "logging_steps": 1, "save_steps": 2, "use_cpu": True}  # fmt: skip
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft)
    other = ("adapter=full",) if adapter == "full" else ()
    runs = {engine: run(recipe, tmp_path / engine, engine, *other)
            for engine in ("ddp", "zero2", "zero3")}  # fmt: skip
    files = {engine: next(one.trained.glob("*model.safetensors")) for engine, one in runs.items()}
    plain = load_file(files["ddp"])
    for engine in ("zero2", "zero3"):
        assert losses(runs[engine]) == pytest.approx(losses(runs["ddp"]), abs=1e-4)
        cut = load_file(files[engine])
        assert cut.keys() == plain.keys()
        assert max(float((cut[key] - plain[key]).abs().max()) for key in cut) < 1e-3
