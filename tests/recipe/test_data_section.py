"""The section data: one source or several, and what splits may be."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.recipe.data_section import read_data
from peftkit.recipe.strict import Gate

TASK = {"text": {"text": "body"}}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read the section with files a, b and a folder d of train and test beside it."""
    for name in ("a.jsonl", "b.csv", "d/train.jsonl", "d/test.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")

    def reading(value: dict[str, Any]):
        gate = Gate(str(tmp_path / "r.yaml"), {})
        return read_data(gate, value), [f"{p.key}: {p.problem}" for p in gate.problems]

    return reading


JSON = {"json": {"files": "a.jsonl"}}


def test_a_list_with_weights_tasks_and_splits(read):
    items = [
        {**JSON, "weight": 2},
        {"csv": {"files": "b.csv"}, "task": {"text": {"text": "t"}}, "splits": {"train": "train"}},
        JSON,
    ]
    data, problems = read({"source": items, "task": TASK, "splits": {"train": "train", "test": 5}})
    assert problems == []
    assert [part.label for part in data.parts] == ["json 1", "csv", "json 2"]
    assert [part.weight for part in data.parts] == [2, 1, 1]
    assert [part.task_key for part in data.parts] == [
        "data.task",
        "data.source.1.task",
        "data.task",
    ]
    assert [dict(part.splits) for part in data.parts] == [
        {"train": "train", "test": "5"},
        {"train": "train"},
        {"train": "train", "test": "5"},
    ]
    assert data.all_splits == {"train": "train", "test": "5"}
    assert data.main_part("test").key == "data.source.0"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"source": [], "task": TASK}, "data.source: the list of sources is empty"),
        ({"source": [JSON]}, "data.source.0: this source has no task"),
        (
            {"source": [{**JSON, "weight": 0}], "task": TASK},
            "data.source.0.weight: expected a number above 0, got 0",
        ),
        (
            {"source": [{**JSON, "wieght": 2}], "task": TASK},
            "data.source.0.json: data.source.0 has json, wieght, and takes one source",
        ),
        (
            {"source": JSON, "task": TASK, "splits": {"train": "train", "test": "train[5%"}},
            "data.splits.test: 'train[5%' is no slice in datasets' syntax",
        ),
        (
            {"source": JSON, "task": TASK, "splits": {"train": 500}},
            "data.splits.train: train is what remains of a native split",
        ),
        (
            {"source": JSON, "task": TASK, "splits": {"train": "train", "test": 0}},
            "data.splits.test: must be at least 1 row, got 0",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(read, value, problem):
    assert problem in read(value)[1]


def test_splits_that_only_repeat_names_are_not_needed(read):
    files = {"train": "a.jsonl", "test": "a.jsonl"}
    data, problems = read({"source": {"json": {"files": files}}, "task": TASK})
    assert (dict(data.splits), problems) == ({"train": "train", "test": "test"}, [])
    data, problems = read({"source": {"json": {"files": "d"}}, "task": TASK})
    assert (dict(data.splits), problems) == ({"train": "train", "test": "test"}, [])
    assert dict(read({"source": JSON, "task": TASK})[0].splits) == {"train": "train"}
