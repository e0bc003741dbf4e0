"""From a model section to configuration, tokenizer and weights; each refusal with a way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.models.base import load_base
from peftkit.models.load import (
    load_config,
    max_positions,
    resolve,
)
from peftkit.plugins import CAUSAL_LM, ModelKind
from peftkit.recipe.schema import ModelSection


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def section(folder: Path, **more) -> ModelSection:
    return ModelSection(path=str(folder), **{"dtype": "float32", **more})


def edit(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def base_of(model: ModelSection, kind: ModelKind = CAUSAL_LM):
    return load_base(model, kind=kind)


def edit_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_a_folder_resolves_to_itself(folder) -> None:
    found = resolve(section(folder))
    assert (found.path_or_id, found.revision, found.is_local) == (str(folder), None, True)


def test_a_subfolder_is_looked_into(folder, tmp_path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(folder, outer / "inner")
    model = section(outer, subfolder="inner")
    assert max_positions(load_config(model)) == 256
    assert base_of(model).config.hidden_size == 64


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./nowhere", "model.path './nowhere': no such folder"),
        ("/nowhere/at/all", "model.path '/nowhere/at/all': no such folder"),
        ("-rf", "model.path '-rf': no such folder"),
    ],
)
def test_a_folder_that_is_not_there(path: str, message: str) -> None:
    with pytest.raises(ArtefactError) as caught:
        resolve(ModelSection(path=path))
    assert caught.value.message == message


def test_a_file_is_no_folder(folder) -> None:
    with pytest.raises(ArtefactError, match="is a file, not a folder"):
        resolve(section(folder / "config.json"))
