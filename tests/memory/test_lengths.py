"""Lengths come from the rows a run would train on; without them a reason comes."""

from __future__ import annotations

from pathlib import Path

import preferences
import real_step
import tiny
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from peftkit.memory.lengths import (
    count_trained,
    lengths_of,
    longest_rows,
    row_lengths,
    rows_at_most,
)
from peftkit.methods.classify import Classify
from peftkit.methods.seq2seq import Seq2Seq
from peftkit.methods.sft import SFT
from peftkit.recipe.load import load_recipe


def test_lengths_are_those_of_the_data(tiny_recipe: Path) -> None:
    lengths, origin = row_lengths(load_recipe(tiny_recipe), real_step.CPU)
    assert lengths is not None
    assert len(lengths) == 16
    assert max(lengths) <= 128
    assert origin == "the longest of 16 rows"


def test_a_hub_model_has_no_tokenizer_here(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["model.path=meta-llama/Llama-3.1-8B"])
    assert row_lengths(recipe, real_step.CPU) == (None, "the tokenizer is on the Hub")


def test_missing_rows_are_a_reason_not_an_error(tiny_recipe: Path, tmp_path: Path) -> None:
    tiny.write_jsonl(tmp_path / "rows.jsonl", [{"text": "no such columns"}])
    lengths, reason = row_lengths(load_recipe(tiny_recipe), real_step.CPU)
    assert lengths is None
    assert "document" in reason


def test_the_longest_rows_are_found() -> None:
    rows = Dataset.from_dict({"input_ids": [[1], [1, 2, 3], [1, 2]]})
    assert lengths_of(rows, SFT()) == [1, 3, 2]
    assert longest_rows([1, 3, 2], 2) == [1, 2]


def test_the_key_that_cuts_rows_is_the_method_s_own() -> None:
    from types import SimpleNamespace

    from peftkit.memory.lengths import length_key

    found = {
        name: length_key(SimpleNamespace(method=SimpleNamespace(name=name)))
        for name in ("sft", "seq2seq", "classify")
    }
    assert found == {
        "sft": "method.sft.max_length",
        "seq2seq": "method.seq2seq.max_source_length",
        "classify": "method.classify.max_length",
    }


def test_a_method_says_how_long_its_rows_are() -> None:
    rows = {"prompt": [[1], [1]], "chosen": [[1, 2], [1]], "rejected": [[1], [1, 2, 3]]}
    assert lengths_of(Dataset.from_dict(rows), preferences.Pairs()) == [3, 4]


def test_targets_and_labels_are_kept_beside_the_lengths() -> None:
    from datasets import Dataset

    from peftkit.memory.lengths import lengths_of, longest_target
    from peftkit.preprocessing.class_labels import Labels

    rows = {"input_ids": [[1, 2, 3], [1]], "labels": [[1], [1, 2, 3, 4, 5]]}
    found = lengths_of(Dataset.from_dict(rows), Seq2Seq())
    assert found == [3, 1]
    assert longest_target(found) == 5
    labelled = lengths_of(
        Dataset.from_dict({**rows, "labels": [0, 3]}), Classify(), Labels(("a", "b", "c", "d"))
    )
    assert (labelled, labelled.num_labels, longest_target(labelled)) == ([3, 1], 4, 0)
    assert longest_target([3]) == longest_target(None) == 0


def test_no_batch_has_more_rows_than_there_are() -> None:
    packed = lengths_of(Dataset.from_dict({"input_ids": [[1, 2, 3]] * 2}), SFT(None))
    assert rows_at_most(8, packed) == 2
    assert rows_at_most(1, packed) == 1
    assert rows_at_most(8, [3, 3]) == rows_at_most(8, None) == 8


@given(
    rows=st.lists(
        st.lists(st.sampled_from([-100, 5, 6]), min_size=0, max_size=6), min_size=1, max_size=8
    )
)
def test_trained_positions_are_those_whose_next_token_is_a_label(rows: list[list[int]]) -> None:
    from datasets import Features, List, Value

    made = Dataset.from_dict({"labels": rows}, features=Features({"labels": List(Value("int64"))}))
    expected = [sum(label != -100 for label in row[1:]) for row in rows]
    assert count_trained(made) == expected
