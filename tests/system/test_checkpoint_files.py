"""A checkpoint's files are checked before anything in them is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import weight_files
from peftkit.system.foreign_fields import check_config_fields
from peftkit.system.weight_folders import check_base_folder


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def refusal(folder: Path) -> ArtefactError:
    with pytest.raises(ArtefactError) as caught:
        check_base_folder(folder)
    assert caught.value.exit_code == 4
    return caught.value


def shard(folder: Path, name: str) -> None:
    """Turn the folder's one file into a sharded checkpoint whose index names `name`."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_good_folder_passes(folder) -> None:
    check_base_folder(folder)
    assert weight_files(folder) == [folder / "model.safetensors"]


def test_shards_come_from_the_index(folder) -> None:
    shard(folder, "model-00001-of-00001.safetensors")
    check_base_folder(folder)
    assert [f.name for f in weight_files(folder)] == ["model-00001-of-00001.safetensors"]


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a\\b.safetensors"])
def test_an_index_that_points_elsewhere(folder, name: str) -> None:
    shard(folder, name)
    assert "names a shard outside its folder" in refusal(folder).message


def test_a_missing_shard(folder) -> None:
    shard(folder, "model-00002-of-00002.safetensors")
    error = refusal(folder)
    assert error.message == f"{folder} lacks the shard model-00002-of-00002.safetensors"
    assert error.hint == "the download broke off: fetch it again"


def test_no_config(folder) -> None:
    (folder / "config.json").unlink()
    assert refusal(folder).message == f"{folder} has no config.json"


def test_an_adapter_is_no_base(folder) -> None:
    (folder / "adapter_config.json").write_text("{}")
    error = refusal(folder)
    assert error.message == f"{folder} holds an adapter, not a base model"
    assert "adapter: {from:" in error.hint


def test_pickles_only(folder) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.message == (
        f"{folder} has only pickled weights (pytorch_model.bin), which can run code;"
        " peftkit reads safetensors only"
    )
    assert "convert it once: python -c" in error.hint


def test_no_weights_at_all(folder) -> None:
    (folder / "model.safetensors").unlink()
    assert "has neither model.safetensors nor" in refusal(folder).message


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_torn_weights(folder, damage: str) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-64], "garbage": b"\xff" * 64, "empty": b""}[damage])
    error = refusal(folder)
    assert error.message.startswith(f"{file} is torn or no safetensors file (")
    assert error.hint == "copy or download it again"


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": "someone/kernel"},
        {"text_config": {"_experts_implementation": "someone/kernel"}},
    ],
)
def test_fields_that_fetch_code(fields) -> None:
    with pytest.raises(ArtefactError, match="names code to download") as caught:
        check_config_fields(fields, "config.json")
    assert "model.trust_remote_code: true" in caught.value.hint


def test_fields_that_do_not() -> None:
    check_config_fields({"attn_implementation": "sdpa", "name_or_path": "a/b"}, "config.json")
