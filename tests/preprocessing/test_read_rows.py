"""Rows of one source and of several, dealt out to splits."""

from __future__ import annotations

import json

import pytest
import tiny

from peftkit.errors import DataError, RecipeError
from peftkit.plugins import Machine
from peftkit.preprocessing.pipeline import inspect_rows
from peftkit.recipe.load import load_recipe


@pytest.fixture
def make(tmp_path, tiny_model):
    """Build a recipe over a section data, and its tokenizer."""
    from transformers import AutoTokenizer

    from peftkit.recipe.build import build

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tiny.write_jsonl(tmp_path / "a.jsonl", tiny.rows(40))
    qa = [
        {"q": f"{row['document']}?", "a": row["summary"], "id": n if n % 2 else str(n)}
        for n, row in enumerate(tiny.rows(20, seed=5))
    ]
    tiny.write_jsonl(tmp_path / "b.jsonl", qa)

    def made(data, evaluate="false"):
        text = tiny.recipe_text(tiny_model, tmp_path / "a.jsonl")
        head, tail = text[: text.index("data:")], text[text.index("adapter:") :]
        file = tmp_path / "r.yaml"
        tail = tail[: tail.index("evaluate:")] + f"evaluate: {evaluate}\n"
        file.write_text(f"{head}data: {json.dumps(data)}\n{tail}")
        return build(load_recipe(file), Machine("cpu", False, 1 << 33, 1 << 32, "test")), tokenizer

    return made


SUMMARIZE = {"summarize": {"document": "document", "summary": "summary"}}
ASK = {"prompt_completion": {"prompt": "q", "completion": "a"}}
A, B = {"json": {"files": "a.jsonl"}}, {"json": {"files": "b.jsonl"}, "task": ASK}


def test_sources_of_other_shapes_are_mixed_by_weight(make):
    data = {"source": [A, {**B, "weight": 2}], "task": SUMMARIZE, "splits": {"train": "train"}}
    built, tokenizer = make(data)
    found = inspect_rows(built, tokenizer)
    audit = found.audit["train"]
    assert audit.num_used == 60
    assert {name: one.num_seen for name, one in audit.sources.items()} == {
        "json 1": 40,
        "json 2": 40,
    }
    rows = found.encoded["train"]
    assert len(rows) == 80
    asked = ["?" in tokenizer.decode(row["input_ids"]) for row in rows]
    assert asked[:6].count(True) == 3
    assert inspect_rows(*make(data)).fingerprint == found.fingerprint
    lighter = {**data, "source": [A, {**B, "weight": 0.5}]}
    assert 2 <= inspect_rows(*make(lighter)).audit["train"].sources["json 2"].num_seen <= 18
    assert found.rows["train"][45]["q"].endswith("?")
    assert found.rows["train"].to_list()[0]["document"]


def test_one_question_falls_on_one_side_whichever_source_it_is_from(make, tmp_path):
    both = {"json": {"files": ["a.jsonl", "a.jsonl"]}}
    built, tokenizer = make(
        {"source": [A, both], "task": SUMMARIZE, "splits": {"train": "train", "test": "20%"}},
        "{split: test}",
    )
    found = inspect_rows(built, tokenizer)
    assert found.audit["test"].num_leaked == 0
    assert sum(audit.num_rows for audit in found.audit.values()) == 120
    assert found.audit["train"].num_duplicates == found.audit["train"].num_used * 2 // 3


def test_numbers_of_rows_and_slices(make):
    def counts(splits, **more):
        built, tokenizer = make({"source": A, "task": SUMMARIZE, "splits": splits, **more})
        audit = inspect_rows(built, tokenizer, splits=list(splits)).audit
        return {name: one.num_rows for name, one in audit.items()}

    assert counts({"train": "train", "validation": 4, "test": "7"}) == {
        "train": 29, "validation": 4, "test": 7,
    }  # fmt: skip
    assert counts({"train": "train[10:]", "test": "train[:10]"}) == {"train": 30, "test": 10}
    assert counts({"train": "train[25%:]", "validation": 3}) == {"train": 27, "validation": 3}
    assert counts({"train": "train[:5]+train[30:]"}) == {"train": 15}
    with pytest.raises(DataError, match="takes 5 rows that train has too"):
        counts({"train": "train[5:]", "test": "train[:10]"})
    with pytest.raises(DataError, match=r"'train\[:1000\]' goes beyond the 40 rows of 'train'"):
        counts({"train": "train[:1000]"})
    with pytest.raises(DataError, match="40 of 40 rows leave none to train on"):
        counts({"train": "train", "test": 40})


def test_a_number_of_rows_does_not_depend_on_their_order(make, tmp_path):
    splits = {"train": "train", "test": 6}

    def held_out():
        built, tokenizer = make({"source": A, "task": SUMMARIZE, "splits": splits})
        found = inspect_rows(built, tokenizer, splits=["train", "test"])
        return {row["document"] for row in found.rows["test"]}

    first = held_out()
    tiny.write_jsonl(tmp_path / "a.jsonl", tiny.rows(40)[::-1])
    assert held_out() == first


def test_a_source_without_usable_rows_is_refused_by_its_name(make, tmp_path):
    tiny.write_jsonl(tmp_path / "b.jsonl", [{"q": "", "a": "", "id": 1}])
    built, tokenizer = make({"source": [A, B], "task": SUMMARIZE})
    with pytest.raises(DataError, match="none of the 1 training rows of json 2 can be used"):
        inspect_rows(built, tokenizer)


def test_a_split_that_no_one_metric_scores_is_refused_at_check(make):
    with pytest.raises(RecipeError) as caught:
        make(
            {"source": [A, B], "task": SUMMARIZE, "splits": {"train": "train", "test": "20%"}},
            "{split: test}",
        )
    assert "would mix rows of several tasks (summarize and prompt_completion)" in str(caught.value)
    own = {**B, "splits": {"train": "train"}}
    built, _ = make(
        {"source": [own, A], "task": SUMMARIZE, "splits": {"train": "train", "test": "20%"}},
        "{split: test}",
    )
    assert tuple(built.task.columns) == ("document", "summary")


def test_files_that_no_split_reads_are_said(make):
    files = {"json": {"files": {"train": "a.jsonl", "validation": "b.jsonl"}}}
    built, tokenizer = make({"source": files, "task": SUMMARIZE, "splits": {"train": "train"}})
    assert inspect_rows(built, tokenizer).notes == (
        "the files for validation are not read: data.splits says {'train': 'train'}",
    )


def test_a_row_of_more_text_than_can_be_encoded_is_unusable(make, tmp_path):
    rows = tiny.rows(40)
    rows[7]["document"] = "x " * 1000
    tiny.write_jsonl(tmp_path / "long.jsonl", rows)
    data = {
        "source": {"json": {"files": "long.jsonl"}},
        "task": {"summarize": {"document": "document", "summary": "summary"}},
        "rows": {"max_mib": 0.001},
    }
    audit = inspect_rows(*make(data)).audit
    assert audit["train"].dropped == {"the row holds more than 0.001 MiB of text": 1}
    data["rows"]["max_mib"] = 1
    assert not inspect_rows(*make(data)).audit["train"].dropped
