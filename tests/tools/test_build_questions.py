"""Questions are about what a docstring says of a parameter; answers stand where they say."""

from __future__ import annotations

import json

import build_questions
import pytest

from peftkit import embedded
from peftkit.sources.docstrings import Seen

NUMPY = """Find geese.

Parameters
----------
pond : str, optional
    Name of the pond to search. Default is 'lake'.
count : int
    How many geese are wanted.

Raises
------
KeyError
    If there is no such pond.
"""
GOOGLE = """Find geese.

Args:
    pond (str): Name of the pond to search. Defaults to None.
    count: How many geese are wanted,
        at the very least.

Raises:
    KeyError: If there is no such pond.
"""


@pytest.mark.parametrize("context", [NUMPY, GOOGLE], ids=["numpy", "google"])
def test_every_answer_stands_where_it_is_said_to(context: str) -> None:
    found = list(build_questions.rows_of(context))
    answers = {(one["kind"], one["name"]): one["place"] for one in found}
    for place in answers.values():
        assert context[place.start :][: len(place.text)] == place.text
    texts = {key: place.text for key, place in answers.items()}
    default = "lake" if context is NUMPY else "None"
    assert texts["type", "pond"] == "str"
    assert texts["default", "pond"] == default
    assert texts["meaning", "pond"] == "Name of the pond to search"
    assert texts["name", "count"] == "count"
    if context is GOOGLE:
        assert texts["raises", "KeyError"] == "If there is no such pond"
    assert ("type", "count") in texts or context is GOOGLE


def test_the_choice_depends_on_the_text_alone_and_repeats_nothing() -> None:
    rows = [
        {"package": "a", "name": f"a.f{n}", "text": f"a()\n\n{NUMPY.replace('geese', f'g{n}')}"}
        for n in range(12)
    ]
    picked = build_questions.pick(rows, Seen(), per_package=10)
    assert build_questions.pick(rows[::-1], Seen(), per_package=10) == picked
    assert len({row["context"] for row in picked}) == len(picked) == 8
    seen = Seen()
    build_questions.pick(rows, seen, per_package=10)
    assert not {r["context"] for r in build_questions.pick(rows, seen, per_package=10)} & {
        row["context"] for row in picked
    }


def test_the_shipped_sample_is_whole() -> None:
    folder = embedded.dataset_path("docstring-questions")
    splits = {}
    for split in ("train", "validation", "test"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        splits[split] = rows = [json.loads(line) for line in lines]
        for row in rows:
            (text,), (start,) = row["answers"].values()
            assert row["context"][start : start + len(text)] == text
            assert len(row["context"]) <= build_questions.MAX_CONTEXT_CHARS
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 2400, "validation": 126, "test": 280,
    }  # fmt: skip
    for key in ("package", "context"):
        values = [{row[key] for row in rows} for rows in splits.values()]
        assert sum(map(len, values)) == len(set().union(*values))
    notice = (folder.parents[2] / "NOTICE").read_text(encoding="utf-8").lower().replace("_", "-")
    packages = {row["package"] for rows in splits.values() for row in rows} - {"stdlib"}
    assert [package for package in packages if f"\n{package} " not in notice] == []
