"""Tokens join to the text they are of, and a run keeps the masks of a few rows."""

from __future__ import annotations

from types import SimpleNamespace

import preferences
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.preprocessing.masked_rows import data_json, decode_tokens, make_view
from peftkit.recipe.load import load_recipe


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@settings(max_examples=80, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_tokens_join_to_the_text(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert "".join(decode_tokens(ids, tokenizer)) == text
    assert len(list(decode_tokens(ids, tokenizer))) == len(ids)


def test_a_runs_data_json_has_three_masks_a_split(tiny_recipe, tiny_model):
    from transformers import AutoTokenizer

    from peftkit.plugins import Machine
    from peftkit.preprocessing.pipeline import inspect_rows
    from peftkit.recipe.build import build

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    built = build(load_recipe(tiny_recipe), Machine("cpu", False, 1 << 33, 1 << 32, "test"))
    document = data_json(inspect_rows(built, tokenizer), built.method, tokenizer)
    assert {name: len(rows) for name, rows in document["mask_samples"].items()} == {
        "train": 3,
        "test": 3,
    }
    assert set(document) == {
        "fingerprint",
        "split_fingerprints",
        "source_revision",
        "splits",
        "breaches",
        "mask_samples",
    }


def test_a_row_of_several_sequences_shows_one_after_the_other(tokenizer):
    from datasets import Dataset

    texts = {"prompt": "sort keys", "chosen": " by name", "rejected": " to"}
    row = {name: tokenizer(text)["input_ids"] for name, text in texts.items()}
    rows = SimpleNamespace(
        examples={},
        encoded={"train": Dataset.from_list([row])}, audit={}, breaches=(), fingerprint="",
        split_fingerprints={}, source_revision=None, has_targets=False, notes=(),
    )  # fmt: skip
    (shown,) = make_view(rows, preferences.Pairs(), tokenizer, num_rows=3).rows["train"]
    assert "".join(shown.tokens) == "sort keys by namesort keys to"
    trained = [t for t, is_trained in zip(shown.tokens, shown.trained, strict=True) if is_trained]
    assert "".join(trained) == " by name to"
