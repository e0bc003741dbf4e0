"""Adapters whose training is more than PEFT's file resume to the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from resume_fixture import assert_resumes_exactly
from safetensors.torch import load_file
from training_fixture import train, write_recipe

from peftkit.adapters.extra_state import FILE, read_resumed, read_state, write_state

ADAPTERS = {
    "adalora": {"total_step": 4, "tinit": 0, "tfinal": 1, "init_r": 6, "target_r": 2},
    "p_tuning": {"num_virtual_tokens": 4},
    "adamss": {
        "use_asa": True, "init_warmup": 0, "final_warmup": 4, "mask_interval": 2,
        "asa_target_subspaces": 4, "num_subspaces": 3, "r": 8, "subspace_rank": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_resumed_run_is_the_whole_run(name: str, tiny_model: Path, tmp_path: Path) -> None:
    whole = assert_resumes_exactly(tiny_model, {name: ADAPTERS[name]}, tmp_path)
    assert (whole.checkpoints / "step-2" / FILE).exists()


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_best_checkpoint_is_saved_as_it_was(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))
    recipe = write_recipe(
        tmp_path / "r.json",
        tiny_model,
        rows,
        # The loss falls, and the highest counts as the best: that of the first checkpoint.
        sft={"learning_rate": 1e-2, "greater_is_better": True, "max_steps": 4,
             "per_device_train_batch_size": 2, "max_length": 128, "eval_strategy": "steps",
             "eval_steps": 1, "save_steps": 1,
             "load_best_model_at_end": True, "save_total_limit": 4},
        adapter={name: ADAPTERS[name]},
        data={"source": {"json": {"files": {"train": str(rows), "validation": str(rows)}}},
              "splits": {"train": "train", "validation": "validation"},
              "task": {"summarize": {}}},
    )  # fmt: skip
    run_dir = train(recipe, tmp_path / "run")
    best = run_dir.checkpoints / "step-1"
    state = json.loads((run_dir.checkpoints / "step-4" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors") for folder in (run_dir.adapter, best)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def _process(step: int, *, is_first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, is_world_process_zero=is_first)


def test_what_is_written_comes_back_from_the_sealed_folder(tmp_path: Path) -> None:
    args = SimpleNamespace(output_dir=str(tmp_path))
    (tmp_path / "checkpoint-3").mkdir()
    content = {"a": torch.arange(3), "names": ["x"], "nothing": None}
    write_state(args, _process(3, is_first=False), content)
    assert list((tmp_path / "checkpoint-3").iterdir()) == []
    write_state(args, _process(3), content)
    (tmp_path / "checkpoint-3").rename(tmp_path / "step-3")
    found = read_resumed(args, _process(3))
    assert found is not None
    assert found["names"] == ["x"]
    assert found["nothing"] is None
    assert torch.equal(found["a"], torch.arange(3))
    assert read_resumed(args, _process(0)) is None


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))

    torch.save(Trap(), tmp_path / FILE)
    with pytest.raises(pickle.UnpicklingError):
        read_state(tmp_path)
    assert not (tmp_path / "sprung").exists()
