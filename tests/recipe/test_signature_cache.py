"""What was read once is kept for exactly the versions it was read from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftkit.recipe import signature_cache
from peftkit.recipe.signature_cache import (
    cached,
    installed_version,
    is_installed,
    source_digest,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the user's cache to an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class Reader:
    """Count how often an entry is read from its class."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions
        self.num_reads = 0

    def __call__(self) -> dict[str, Any]:
        self.num_reads += 1
        return {"versions": self.versions, "options": {}, "doc": ""}


def pyyaml() -> dict[str, str]:
    version = installed_version("PyYAML")
    assert version
    return {"PyYAML": version}


def test_an_entry_is_read_once(folder: Path) -> None:
    reader = Reader(pyyaml())
    assert cached("yaml:Nothing", reader) == cached("yaml:Nothing", reader)
    assert reader.num_reads == 1
    (file,) = folder.rglob("*.json")
    assert file.name.startswith("yaml.Nothing-")
    assert not list(folder.rglob("*.partial*"))


def test_another_version_is_read_again_and_does_not_drive_out_the_first(folder: Path) -> None:
    old = folder / "peftkit" / f"signatures-{signature_cache.CACHE_FORMAT}"
    old.mkdir(parents=True)
    entry = {"versions": {"PyYAML": "0.0"}, "options": {}, "doc": ""}
    (old / "yaml.Nothing-0.json").write_text(json.dumps(entry))
    reader = Reader(pyyaml())
    cached("yaml:Nothing", reader)
    cached("yaml:Nothing", reader)
    assert reader.num_reads == 1
    assert len(list(old.iterdir())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"versions": 3}'])
def test_a_broken_entry_is_read_again(folder: Path, content: str) -> None:
    reader = Reader(pyyaml())
    cached("yaml:Nothing", reader)
    (file,) = folder.rglob("*.json")
    file.write_text(content)
    cached("yaml:Nothing", reader)
    assert reader.num_reads == 2


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    reader = Reader(pyyaml())
    cached("yaml:Nothing", reader)
    cached("yaml:Nothing", reader)
    assert reader.num_reads == 2


def test_what_no_version_owns_is_not_kept(folder: Path) -> None:
    reader = Reader({})
    cached("yaml:Nothing", reader)
    assert not list(folder.rglob("*.json"))


def test_source_counts_where_there_is_no_version(tmp_path: Path, monkeypatch: Any) -> None:
    module = tmp_path / "half_written.py"
    module.write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    digest = source_digest("half_written")
    assert is_installed({"versions": {"half_written": digest}})
    source_digest.cache_clear()
    module.write_text("x = 2\n")
    assert not is_installed({"versions": {"half_written": digest}})
    assert source_digest("no_such_module_at_all") == "none"


def test_a_version_that_is_not_installed_is_none() -> None:
    absent: Callable[[str], str | None] = installed_version
    assert absent("no-such-distribution") is None
