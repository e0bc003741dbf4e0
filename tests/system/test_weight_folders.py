"""Folders of weights are what was trained, and hold no way out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.rundir.paths import write_json
from peftkit.system.weight_folders import (
    TRAINED,
    check_links,
    check_trained,
    describe_file,
    describe_files,
    find_trained_damage,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a sealed folder of three files, one of them a card."""
    for name in ("config.json", "weights.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    write_json(tmp_path / TRAINED, {"files": describe_files(tmp_path)})
    return tmp_path


def test_a_whole_folder_passes_whatever_its_card_says_and_what_lies_beside(folder: Path) -> None:
    (folder / "README.md").write_text("other words")
    (folder / "notes.txt").write_text("mine")
    check_trained(folder)
    (folder / TRAINED).unlink()
    check_trained(folder)  # of another program


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "a folder", "a link"])
@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", TRAINED])
def test_every_file_is_looked_at(folder: Path, name: str, damage: str) -> None:
    seal = describe_file(folder / TRAINED)["sha256"]
    assert find_trained_damage(folder, seal) is None
    file, content = folder / name, (folder / name).read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "flipped":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "a folder":
        file.mkdir()
    elif damage == "a link":
        (folder / "elsewhere").write_bytes(content[:-2])
        file.symlink_to(folder / "elsewhere")
    problem = find_trained_damage(folder, seal)
    assert problem is not None
    assert name in problem


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory) -> None:
    secret = tmp_path_factory.mktemp("home") / "id_rsa"
    secret.write_text("secret")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)
    with pytest.raises(ArtefactError, match=r"README\.md is a link out of its folder"):
        check_links(folder)
