"""From a recipe's data section to what the trainer gets."""

from __future__ import annotations

import dataclasses
import json
import random
from fractions import Fraction
from itertools import chain

import pytest
import tiny

from peftkit.errors import DataError
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.pipeline import (
    inspect_rows,
    prepare,
    read_texts,
    wanted_splits,
)
from peftkit.preprocessing.splits import assign, content_key
from peftkit.recipe.load import load_recipe


@pytest.fixture(scope="module")
def machine():
    from peftkit.plugins import Machine

    return Machine("cpu", False, 1 << 33, 1 << 32, "test")


@pytest.fixture
def make(tmp_path, tiny_model, machine):
    """Build a recipe over rows, and its tokenizer."""
    from transformers import AutoTokenizer

    from peftkit.recipe.build import build

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def made(rows, *overrides, test_rows=None):
        tiny.write_jsonl(tmp_path / "train.jsonl", rows)
        held_out = tiny.rows(4, seed=9) if test_rows is None else test_rows
        tiny.write_jsonl(tmp_path / "test.jsonl", held_out)
        text = tiny.recipe_text(tiny_model, tmp_path / "train.jsonl")
        text = text.replace(f"test: {tmp_path / 'train.jsonl'}", f"test: {tmp_path / 'test.jsonl'}")
        file = tmp_path / "r.yaml"
        file.write_text(text)
        return build(load_recipe(file, overrides), machine), tokenizer

    return made


def refusal(built, tokenizer, **options) -> str:
    with pytest.raises(DataError) as caught:
        prepare(built, tokenizer, **options)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_rows_examples_and_tokens_go_together(make):
    rows = tiny.rows(12)
    built, tokenizer = make(rows)
    prepared = prepare(built, tokenizer, max_positions=256)
    assert list(prepared.encoded) == ["train", "test"]
    assert prepared.rows["train"].to_list() == rows
    for row, example, encoded in zip(
        rows, prepared.examples["train"], prepared.encoded["train"], strict=True
    ):
        assert example.reference == row["summary"]
        assert row["document"] in example.prompt[0]["content"]
        trained = [label for label in encoded["labels"] if label != IGNORED]
        assert tokenizer.decode(trained) == row["summary"] + "<|endoftext|>"
    audit = prepared.audit["train"]
    assert (audit.num_rows, audit.num_used, audit.num_ended) == (12, 12, 12)
    assert audit.num_tokens == sum(len(row) for row in prepared.encoded["train"]["input_ids"])
    assert audit.max_length == 128
    assert prepared.breaches == ()
    assert wanted_splits(built.recipe) == ["train", "test"]


def test_bad_rows_are_dropped_with_their_reasons(make):
    rows = tiny.rows(46)
    rows[3]["document"] = None
    rows[7]["summary"] = ""
    built, tokenizer = make(rows)
    prepared = prepare(built, tokenizer)
    audit = prepared.audit["train"]
    assert audit.dropped == {"document is null": 1, "summary is empty": 1}
    assert (audit.num_rows, audit.num_used) == (46, 44)
    kept = [row for number, row in enumerate(rows) if number not in (3, 7)]
    assert prepared.rows["train"].to_list() == kept


def test_too_many_bad_rows_stop_the_run_with_every_breach(make):
    rows = tiny.rows(10)
    for number in (2, 5):
        rows[number]["document"] = None
    built, tokenizer = make(rows, "method.sft.max_length=16")
    message = refusal(built, tokenizer)
    lines = message.splitlines()
    assert lines[0] == f"{built.recipe.file}:5 data: the audit finds 5 thresholds broken"
    assert lines[1] == (
        "  train: 2 of 10 rows cannot be used (20.0%, at most 5.0%): 2 document is null;"
        " the first is row 2"
    )
    assert lines[2] == "    try: mend or remove those rows, or raise data.audit.max_dropped"
    assert lines[3].startswith(
        "  train: 8 of 8 rows are longer than method.sft.max_length 16 (100.0%, at most 20.0%);"
    )
    assert lines[5].startswith(
        "  train: 8 of 8 rows have no trained token within method.sft.max_length 16"
    )
    assert inspect_rows(built, tokenizer).audit["train"].num_used == 0


def test_the_remedy_works(make):
    built, tokenizer = make(tiny.rows(30), "method.sft.max_length=16")
    found = inspect_rows(built, tokenizer)
    lengths = [
        breach.remedy.partition("max_length=")[2].partition(" ")[0] for breach in found.breaches
    ]
    built, tokenizer = make(tiny.rows(30), f"method.sft.max_length={max(map(int, lengths))}")
    assert prepare(built, tokenizer).breaches == ()


def test_all_null_rows_and_empty_files(make, tmp_path):
    built, tokenizer = make([{"document": None, "summary": None}] * 3)
    assert refusal(built, tokenizer) == (
        f"{built.recipe.file}:5 data: the audit finds 1 threshold broken\n"
        "  train: 3 of 3 rows cannot be used (100.0%, at most 5.0%): 3 document is null;"
        " the first is row 0\n"
        "    try: check data.task against the columns"
    )
    built, tokenizer = make([])
    assert refusal(built, tokenizer).endswith(
        "train.jsonl: no rows\n  try: check that it is the file you mean"
    )


def test_a_missing_column_names_the_recipes_line(make, tmp_path):
    built, tokenizer = make(tiny.rows(3), "data.task.summarize.document=documents")
    assert refusal(built, tokenizer) == (
        f"{tmp_path / 'r.yaml'}:8 data.task.summarize: split 'train' has no column 'documents';"
        " it has document, summary\n  try: did you mean document?"
    )


def test_a_missing_split_names_those_there_are(make, tmp_path):
    built, tokenizer = make(tiny.rows(3), "data.splits.test=tst")
    assert refusal(built, tokenizer) == (
        f"{tmp_path / 'r.yaml'} data.splits.test (override): the source 'json' has no split 'tst';"
        " it has train, test\n"
        "  try: name one of them, or cut a share from train: data.splits.test=5%"
    )
    built, tokenizer = make(tiny.rows(3))
    with pytest.raises(DataError, match="the recipe has no split 'validation'; it has train, test"):
        inspect_rows(built, tokenizer, splits=["validation"])


def test_rows_beyond_the_models_positions_are_refused(make):
    built, tokenizer = make(tiny.rows(20))
    longest = prepare(built, tokenizer).audit["train"].length_percentiles["max"]
    line = built.recipe.lines["method.sft.max_length"]
    message = refusal(built, tokenizer, max_positions=32)
    assert (
        f"train: method.sft.max_length is 128 on line {line} and the longest row has {longest}"
        " tokens,"
        " but the model has 32 positions (max_position_embeddings)\n"
        "    try: method.sft.max_length=32, or a model with more positions"
    ) in message


def test_a_cut_is_a_partition_that_the_order_of_rows_does_not_change(make):
    rows = tiny.rows(120)
    overrides = ("data.splits.validation=20%", "data.splits.test=10%")

    def parts(order):
        built, tokenizer = make(order, *overrides)
        prepared = prepare(built, tokenizer)
        return {name: sorted(row["document"] for row in part.to_list())
                for name, part in prepared.rows.items()}  # fmt: skip

    found = parts(rows)
    assert sorted(chain(*found.values())) == sorted(row["document"] for row in rows)
    assert all(found.values())
    shuffled = random.Random(1).sample(rows, len(rows))
    assert parts(shuffled) == found


def test_a_cut_that_holds_no_row_says_which_share_does(make):
    rows = tiny.rows(8)
    built, tokenizer = make(rows, "data.splits.test=0.01%")
    message = refusal(built, tokenizer)
    assert "data.splits.test: 0.01% of 8 rows cuts none" in message or (
        "0.01% of 8 rows cuts none" in message
    )
    share = message.partition("data.splits.test=")[2].partition(",")[0]
    cuts = {"test": Fraction(share.removesuffix("%")) / 100}
    keys = [content_key(row, built.task.example(row)) for row in rows]
    assert "test" in [assign(key, cuts) for key in keys]
    built, tokenizer = make(rows, f"data.splits.test={share}")
    assert prepare(built, tokenizer).audit["test"].num_used >= 1


def test_leaks_are_counted_and_may_be_refused(make):
    rows = tiny.rows(10)
    leaked = [*tiny.rows(3, seed=5), {"document": rows[2]["document"], "summary": "another one."}]
    built, tokenizer = make(rows, test_rows=leaked)
    assert prepare(built, tokenizer).audit["test"].num_leaked == 1
    assert inspect_rows(built, tokenizer, splits=["test"]).audit["test"].num_leaked == 1
    built, tokenizer = make(rows, "data.audit.max_leaked=0.1", test_rows=leaked)
    assert "the prompts of 1 of 4 rows also stand in train (25.0%, at most 10.0%)" in refusal(
        built, tokenizer
    )


def test_duplicates_are_counted(make):
    rows = tiny.rows(6)
    built, tokenizer = make([*rows, rows[0], rows[0]])
    assert prepare(built, tokenizer).audit["train"].num_duplicates == 2


def test_the_fingerprint_is_of_the_tokens_in_order(make):
    rows = tiny.rows(6)
    first = prepare(*make(rows)).fingerprint
    assert prepare(*make(rows)).fingerprint == first
    assert prepare(*make([{**row, "extra": 1} for row in rows])).fingerprint == first
    assert prepare(*make(rows[::-1])).fingerprint != first
    assert prepare(*make(rows, "method.sft.max_length=50", "data.audit.max_truncated=1",
                         "data.audit.max_masked=1")).fingerprint != first  # fmt: skip


def test_a_task_that_the_method_cannot_train_is_refused(make, monkeypatch):
    built, tokenizer = make(tiny.rows(2))

    from peftkit.plugins import Method, Text

    class OnlyText(Method):
        examples = (Text,)

        def encode(self, examples, tokenizer): ...

    message = refusal(dataclasses.replace(built, method=OnlyText(None)), tokenizer)
    assert "the task 'summarize' makes Conversation, but the method 'sft' takes Text" in message


def test_texts_for_a_new_tokenizer(make):
    rows = tiny.rows(3)
    built, _ = make(rows)
    texts = list(read_texts(built))
    assert texts[1::2] == [row["summary"] for row in rows]
    built, _ = make([{"document": None, "summary": None}])
    with pytest.raises(DataError, match="no row of train can be used: 1 document is null"):
        list(read_texts(built))


def test_nothing_is_written_beside_the_data(make, tmp_path):
    built, tokenizer = make(tiny.rows(5))
    before = sorted(path.name for path in tmp_path.iterdir())
    prepared = prepare(built, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert all(not rows.cache_files for rows in prepared.encoded.values())
    assert json.dumps(dataclasses.asdict(prepared.audit["train"]))
