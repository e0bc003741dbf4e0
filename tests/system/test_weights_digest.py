"""Weights are told apart by their bytes; a digest is computed once for a file."""

from __future__ import annotations

import hashlib
import os

import pytest

from peftkit.system import weights_digest
from peftkit.system.weights_digest import BaseIdentity, identify


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "base"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"one")
    return made


def test_the_digest_is_of_the_bytes_and_computed_once(folder, monkeypatch):
    first = identify(folder)
    assert first.digests == (hashlib.sha256(b"one").hexdigest(),)
    assert str(first) == f"sha256 {first.digests[0][:12]}"
    with monkeypatch.context() as patched:
        patched.setattr(weights_digest.hashlib, "file_digest", None)
        assert identify(folder) == first
    (folder / "model.safetensors").write_bytes(b"two")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert identify(folder).differs(first)
    assert BaseIdentity.from_json(first.to_json()) == first


def test_names_and_places_do_not_count_and_the_unknown_is_not_another(folder, tmp_path):
    moved = folder.rename(tmp_path / "moved")
    assert not identify(moved).differs(BaseIdentity((hashlib.sha256(b"one").hexdigest(),)))
    here, gone = identify(moved, "a" * 40), identify(tmp_path / "nothing", "a" * 40)
    assert gone.digests == ()
    assert not here.differs(gone)
    assert gone.differs(BaseIdentity((), "b" * 40))
    assert not gone.differs(BaseIdentity())


def test_files_of_the_hubs_cache_are_named_by_their_digest(folder, tmp_path):
    blob = tmp_path / ("c" * 64)
    blob.write_bytes(b"large")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob)
    assert identify(folder).digests == ("c" * 64,)
