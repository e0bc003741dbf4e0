"""Other tools' YAML is read as they read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import RecipeError
from peftkit.recipe.foreign_yaml import parse_foreign, read_foreign_yaml

FILE = Path("c.yaml")


def test_numbers_switches_anchors_and_merges():
    text = "a: &a {x: 1e-4, y: yes}\nb: {<<: *a, y: no}\nc: 2024-01-02\n'd': [*a]\n"
    data = parse_foreign(text, FILE).data
    assert data["a"] == {"x": 1e-4, "y": True}
    assert data["b"] == {"x": 1e-4, "y": False}
    assert data["c"] == "2024-01-02"
    assert data["d"] == [{"x": 1e-4, "y": True}]


def test_the_last_of_two_equal_keys_counts_and_is_said():
    found = parse_foreign("r: 1\nr: 2\n", FILE)
    assert found.data == {"r": 2}
    assert found.notes == ("line 2: r is given again; this one counts, as there",)


def test_variables_of_the_environment_are_named_by_line():
    found = parse_foreign("a: 1\npath: ${HF_HOME}/x\nb: $DATA\nc: ${output_dir}/log\n", FILE)
    assert [note.partition(",")[0] for note in found.notes] == [
        "line 2: path holds the variable HF_HOME", "line 3: b holds the variable DATA",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "&a [*a]\n", "a: &a [*a]\n", "a: !!x 1: 2"])
def test_what_is_no_mapping_is_refused_by_name(text, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"c\.yaml"):
        read_foreign_yaml(file)
