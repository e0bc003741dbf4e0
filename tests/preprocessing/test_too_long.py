"""Rows that are too long: left out, or their document shortened and all else whole."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftkit.plugins.rows import IGNORED, RowCount
from peftkit.preprocessing.pipeline import prepare
from peftkit.preprocessing.too_long import excess_tokens, shorten
from peftkit.recipe.load import load_recipe

INSTRUCTION = "Summarize the text."


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def long_rows(num_rows: int = 12) -> list[dict[str, str]]:
    """Make rows of which every other is far longer than 64 tokens."""
    source = random.Random(1)
    rows = []
    for number in range(num_rows):
        body = [source.choice(tiny.WORDS) for _ in range(200 if number % 2 else 6)]
        rows.append({"document": f"{number} {' '.join(body)}", "summary": f"{number} is it."})
    return rows


@pytest.fixture
def prepared(tmp_path, tiny_model, tokenizer):
    """Prepare rows of a recipe with `data.rows`."""
    from peftkit.plugins import Machine
    from peftkit.recipe.build import build

    def made(rows, *overrides):
        data = tiny.write_jsonl(tmp_path / "rows.jsonl", rows)
        file = tmp_path / "r.yaml"
        file.write_text(tiny.recipe_text(tiny_model, data))
        overrides = ("method.sft.max_length=64", "evaluate=false", *overrides)
        recipe = load_recipe(file, overrides)
        return prepare(build(recipe, Machine("cpu", False, 1 << 33, 1 << 32, "test")), tokenizer)

    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text(max_size=120), min_size=1, max_size=4),
    limit=st.integers(1, 40),
    keep=st.sampled_from(["start", "end"]),
)
def test_what_is_left_is_the_texts_start_or_end_and_fits(tokenizer, texts, limit, keep):
    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def excess(_, candidates):
        return [max(length(text) - limit, 0) for text in candidates]

    for text, rest in zip(texts, shorten(texts, excess, tokenizer, keep=keep), strict=True):
        if length(text) <= limit:
            assert rest == text
        elif rest is not None:
            assert rest
            assert text.startswith(rest) if keep == "start" else text.endswith(rest)
            assert length(rest) <= limit


@pytest.mark.parametrize("keep", ["start", "end"])
def test_the_document_is_cut_and_all_else_is_whole(prepared, tokenizer, keep):
    rows = long_rows()
    found = prepared(rows, f"data.rows={{too_long: cut, keep: {keep}}}")
    audit = found.audit["train"]
    assert (audit.num_used, audit.num_cut, audit.num_truncated) == (12, 6, 0)
    assert audit.skipped == {}
    for number, (row, encoded) in enumerate(zip(rows, found.encoded["train"], strict=True)):
        text = tokenizer.decode(encoded["input_ids"])
        head, _, rest = text.partition(f"<|user|>\n{INSTRUCTION}\n\n")
        document, _, end = rest.partition("<|endoftext|>")
        assert head == ""
        assert end == f"\n<|assistant|>\n{row['summary']}<|endoftext|>\n"
        trained = [label for label in encoded["labels"] if label != IGNORED]
        assert tokenizer.decode(trained) == row["summary"] + "<|endoftext|>"
        whole = row["document"]
        assert (whole.startswith if keep == "start" else whole.endswith)(document)
        assert (document == whole) == (number % 2 == 0)
        assert 50 < len(encoded["input_ids"]) <= 64 or document == whole
    # what is asked when answers are scored is what was trained
    assert found.examples["train"][1].prompt[0]["content"] != f"{INSTRUCTION}\n\n{rows[1]}"


def test_rows_are_left_out_whole_and_counted_apart(prepared):
    rows = [*long_rows(), {"document": "a", "summary": ""}]
    found = prepared(rows, "data.rows={too_long: drop, empty: drop}")
    audit = found.audit["train"]
    assert (audit.num_rows, audit.num_used, audit.num_truncated) == (13, 6, 0)
    assert audit.skipped == {"longer than max_length 64": 6, "summary is empty": 1}
    assert audit.dropped == {}
    assert found.rows["train"].to_list() == rows[:12:2]
    assert "6 of 13 rows, 0 truncated, 6 longer than max_length 64" in audit.describe()


def test_a_row_that_does_not_fit_without_its_document_is_left_out(prepared):
    rows = [*long_rows(4), {"document": "a " * 90, "summary": "b " * 90}]
    found = prepared(rows, "data.rows={too_long: cut}")
    reason = "longer than max_length 64 whatever is cut from document"
    assert found.audit["train"].skipped == {reason: 1}


def test_labels_stay_with_their_shortened_texts(prepared):
    rows = [
        {"text": row["document"], "label": "ab"[n % 4 > 1]} for n, row in enumerate(long_rows())
    ]
    method = "method={classify: {max_length: 32, max_steps: 1}}"
    task = "data.task={classify: {text: text}}"
    ends = prepared(rows, "data.rows={too_long: cut, keep: end}", method, task)
    cut = prepared(rows, method, task, "data.audit.max_truncated=1")
    assert ends.encoded["train"]["labels"][:] == cut.encoded["train"]["labels"][:]
    assert ends.audit["train"].num_cut == cut.audit["train"].num_truncated == 6
    assert ends.encoded["train"]["input_ids"][1] != cut.encoded["train"]["input_ids"][1]
    assert all(len(ids) <= 32 for ids in ends.encoded["train"]["input_ids"])


def test_an_answer_with_a_limit_of_its_own_cannot_be_helped_by_cutting():
    method = SimpleNamespace(
        max_length=10, max_target_length=4, count=lambda _: RowCount(5, 1, 9, 4, True, False, 8)
    )
    assert excess_tokens([{"input_ids": [1]}], method) == -1
