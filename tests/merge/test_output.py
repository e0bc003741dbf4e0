"""A folder is sealed last, and only then is it done."""

from __future__ import annotations

import json

import pytest

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merge.output import is_done, seal, writing_to


@pytest.fixture
def folders(tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    for folder in (base, out):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    (out / "model.safetensors").write_bytes(b"1234")
    return base, out


def test_sealed_is_done_for_its_own_inputs_only(folders) -> None:
    base, out = folders
    assert not is_done(out, "mine")
    seal(out, base, {}, ["model.safetensors"], {"identity": "mine", "source": "runs/x"})
    assert is_done(out, "mine")
    files = json.loads((out / "merge.json").read_text())["files"]
    assert files == {"model.safetensors": 4, "config.json": 2}
    with pytest.raises(ArtefactError, match=r"other inputs \(runs/x\)"):
        is_done(out, "another")


def test_a_file_that_went_missing_undoes_it(folders) -> None:
    base, out = folders
    seal(out, base, {}, ["model.safetensors"], {"identity": "mine"})
    (out / "model.safetensors").unlink()
    assert not is_done(out, "mine")


def test_the_systems_refusal_names_the_folder(tmp_path) -> None:
    with pytest.raises(ResourceError, match=r"cannot write to .*: No space"), writing_to(tmp_path):
        raise OSError(28, "No space left on device")
