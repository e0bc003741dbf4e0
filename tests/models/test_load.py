"""From a model section to configuration, tokenizer and weights; each refusal with a way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from model_folder import base_of, section

from peftkit.errors import ArtefactError
from peftkit.models.load import (
    load_config,
    max_positions,
    resolve,
)
from peftkit.recipe.schema import ModelSection


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


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
