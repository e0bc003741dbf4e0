"""A model's folder is opened without its weights, and what lies beside them travels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.model_folder import copy_companions, load_model, load_tokenizer, open_model


def test_shards_are_read_tensor_by_tensor(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_families.save("llama", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    whole, sharded = open_model(folder), open_model(tmp_path / "sharded")
    assert len(set(sharded.files.values())) > 1
    assert dict(whole.shapes) == dict(sharded.shapes)
    for name in whole.shapes:
        assert torch.equal(whole.read(name), sharded.read(name))


def test_companions_travel_and_weights_stay(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    (folder / "README.md").write_text("a card")
    (folder / ".hidden").write_text("no")
    (folder / "pytorch_model.bin").write_text("no")
    out = tmp_path / "out"
    out.mkdir()
    names = {file.name for file in copy_companions(folder, out)}
    assert names == {file.name for file in out.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
    assert not {"model.safetensors", "README.md", ".hidden", "pytorch_model.bin"} & names


def test_a_class_that_transformers_has_not_is_named(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(ArtefactError, match="NoSuchModel"):
        load_model(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ArtefactError, match="its tokenizer cannot be loaded"):
        load_tokenizer(folder)
