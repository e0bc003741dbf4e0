"""A merge made for the export is taken over; a model of the user's is copied."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import tiny_families
import torch
from safetensors.torch import load_file

from peftkit.exporters.safetensors_folder import Safetensors, SafetensorsOptions
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter


def test_the_contract_of_an_exporter_holds_for_shards_too(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_families.save("llama", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    out = tmp_path / "out"
    out.mkdir()
    check_exporter(Safetensors, {}, Trained("tiny", folder), out)
    again = AutoModelForCausalLM.from_pretrained(out)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_scratch_folder_is_moved(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    trained = Trained("tiny", folder, is_scratch=True)
    exported = Safetensors(SafetensorsOptions()).export(trained, out)
    assert list(folder.iterdir()) == []
    assert {file.name for file in exported.files} == {file.name for file in out.iterdir()}
    moved = load_file(out / "model.safetensors")
    assert all(torch.equal(moved[name], tensor) for name, tensor in weights.items())


def test_a_copy_that_differs_is_seen(tmp_path: Path, monkeypatch) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    other = tiny_families.save("llama", tmp_path / "other", seed=3)
    out = tmp_path / "out"
    out.mkdir()
    copy = shutil.copy

    def wrong_copy(source, target):
        source = other / source.name if source.name == "model.safetensors" else source
        return copy(source, target)

    monkeypatch.setattr("shutil.copy", wrong_copy)
    trained = dataclasses.replace(Trained("tiny", folder))
    proof = Safetensors(SafetensorsOptions()).export(trained, out).proofs[0]
    assert proof.measured == 21
    assert not proof.holds
