"""Paths and data sets of other tools become sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.importers.rows import Rows, put_rows, share, source_of
from peftkit.plugins.imported import Draft
from peftkit.plugins.importer import Foreign


@pytest.fixture
def draft(tmp_path):
    return Draft(Foreign(tmp_path / "configs" / "c.yaml", {}))


@pytest.mark.parametrize(
    ("path", "options", "source"),
    [
        ("a.jsonl", {}, {"json": {"files": "a.jsonl"}}),
        ("x/a.csv", {}, {"csv": {"files": "x/a.csv"}}),
        ("owner/name", {"name": "en"}, {"hub": {"path": "owner/name", "name": "en"}}),
        ("./rows", {"kind": "json"}, {"json": {"files": "./rows"}}),
        ("./rows", {}, {"hub": {"path": "./rows"}}),
        ("json", {"data_files": ["a.json", "b.json"]}, {"json": {"files": ["a.json", "b.json"]}}),
    ],
)
def test_what_reads_a_path(draft, tmp_path, path, options, source):
    assert source_of(draft, path, tmp_path, **options) == source


def test_a_file_is_found_from_above_the_config_and_named_from_the_recipe(draft, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "configs").mkdir()
    assert source_of(draft, "rows.jsonl", tmp_path / "out") == {"json": {"files": "../rows.jsonl"}}


@pytest.mark.parametrize(
    ("value", "said"), [(0.05, "5%"), (0, None), (500, "500"), (True, None), (None, None)]
)
def test_what_is_held_out(value, said):
    assert share(value) == said


def test_rows_that_are_trained_are_not_held_out(draft):
    one = Rows({"json": {"files": "t.jsonl"}}, {"text": {}})
    put_rows(draft, [one], held=[one])
    assert draft.recipe["data"]["splits"] == {"train": "train"}
    assert "left out" in draft.remarks["data.splits"]


def test_two_files_of_a_kind_are_one_source_with_two_splits(draft):
    text = {"text": {}}
    held = [Rows({"json": {"files": "v.jsonl"}}, text)]
    put_rows(draft, [Rows({"json": {"files": "t.jsonl"}}, text)], held=held)
    assert draft.recipe["data"]["source"] == {
        "json": {"files": {"train": "t.jsonl", "validation": "v.jsonl"}}
    }
    assert isinstance(draft.foreign.file, Path)
