"""Adapters whose training is more than PEFT's file resume to the same bits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from resume_fixture import assert_resumes_exactly

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
