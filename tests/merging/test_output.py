"""A folder is done only with its manifest and every file at its size; the system's no is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merging.output import is_done, seal, writing_to


def test_a_folder_is_done_when_sealed_and_whole(tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    for folder in (base, out):
        folder.mkdir()
    (base / "config.json").write_text('{"a": 1}')
    (out / "model.safetensors").write_bytes(b"weights")
    assert not is_done(out, "id")
    seal(out, base, {"a": 2}, ["model.safetensors"], {"identity": "id", "source": "s"})
    assert is_done(out, "id")
    with pytest.raises(ArtefactError, match=r"a finished merge of other inputs \(s\)"):
        is_done(out, "other")
    (out / "model.safetensors").write_bytes(b"half")
    assert not is_done(out, "id")


def test_a_refusal_of_the_system_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=f"cannot write to {tmp_path}"), writing_to(tmp_path):
        (tmp_path / "no" / "such" / "folder").write_text("")
    with pytest.raises(ResourceError, match="already said"), writing_to(tmp_path):
        raise ResourceError("already said")
