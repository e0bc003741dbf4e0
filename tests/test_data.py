"""What `peftkit data` shows: counts, and rows token by token, on any terminal."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
import tiny
from rich.console import Console

from peftkit.data import MaskedText, mark_tokens, render_data, show_data, visible
from peftkit.errors import DataError
from peftkit.preprocessing.masked_rows import DataView, MaskedRow
from peftkit.recipe.load import load_recipe

ROW = MaskedRow(("<|user|>", "\n", "sort", " keys", "<|assistant|>", "by", " name"),
                (False, False, False, False, False, True, True))  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def recipe(tmp_path, tiny_model):
    rows = tiny.rows(30)
    rows[4]["summary"] = " "
    train = tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    test = tiny.write_jsonl(tmp_path / "test.jsonl", [*tiny.rows(1), *tiny.rows(2, seed=3)])
    text = tiny.recipe_text(tiny_model, train).replace(f"test: {train}", f"test: {test}")
    file = tmp_path / "r.yaml"
    file.write_text(text)
    return file


def printed(view: DataView, **options) -> str:
    stream = io.StringIO()
    console = Console(file=stream, **options)
    console.print(render_data(view))
    return stream.getvalue()


def test_the_view_holds_the_audit_and_the_masks(recipe):
    view = show_data(load_recipe(recipe), num_rows=2)
    assert view.audit["train"].dropped == {"summary is only whitespace": 1}
    first = view.rows["train"][0]
    trained = "".join(t for t, is_trained in zip(first.tokens, first.trained, strict=True)
                      if is_trained)  # fmt: skip
    assert trained == tiny.rows(1)[0]["summary"] + "<|endoftext|>"
    assert [len(rows) for rows in view.rows.values()] == [2, 2]
    document = json.loads(json.dumps(view.to_json()))
    assert document["splits"]["train"]["num_used"] == 29
    assert document["mask_samples"]["train"][0]["tokens"] == list(first.tokens)
    assert len(document["fingerprint"]) == 64
    one = show_data(load_recipe(recipe), split="test", num_rows=0)
    assert list(one.audit) == ["test"]
    assert one.audit["test"].num_leaked == 1


def test_broken_thresholds_are_shown_and_bad_data_raised(recipe, tmp_path):
    view = show_data(load_recipe(recipe, ["method.sft.max_length=16"]), num_rows=1)
    assert view.breaches
    assert view.rows == {}
    text = printed(view, width=80)
    assert "A run would refuse this data:" in text
    assert "method.sft.max_length=" in text
    (tmp_path / "train.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"train\.jsonl"):
        show_data(load_recipe(recipe))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_view_fits_the_terminal(recipe, width):
    text = printed(show_data(load_recipe(recipe), num_rows=1), width=width, no_color=True)
    assert all(len(line) <= width for line in text.splitlines())
    for words in ("train: dropped 1 summary is only", "prompts also stand in train", "trained"):
        assert words in " ".join(text.split())
    assert "\x1b[" not in text


def test_without_colour_trained_tokens_stand_in_brackets():
    plain = mark_tokens(ROW, has_color=False)
    assert plain.plain == "<|user|>┊⏎\n┊sort┊·keys┊<|assistant|>[[by┊·name]]"
    ascii_only = mark_tokens(ROW, has_color=False, is_ascii=True)
    assert ascii_only.plain == "<|user|>|\\n\n|sort| keys|<|assistant|>[[by| name]]"
    assert ascii_only.plain.isascii()


def test_with_colour_every_token_has_a_shade_of_its_own():
    marked = mark_tokens(ROW, has_color=True)
    assert marked.plain == "<|user|>⏎\nsort·keys<|assistant|>by·name"
    styles = [str(span.style) for span in marked.spans]
    assert styles[-2:] == ["black on bright_green", "black on green"]
    assert all(one != other for one, other in pairwise(styles))


@pytest.mark.parametrize(
    ("options", "bracket"), [({"no_color": True}, True), ({"color_system": "truecolor"}, False)]
)
def test_the_terminal_decides(options, bracket):
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=80, **options).print(MaskedText(ROW))
    assert ("[[" in stream.getvalue()) is bracket


def test_control_characters_cannot_reach_the_terminal():
    assert visible("a\x1b[31m\x07\t ") == "a\\x1b[31m\\x07→·"
    assert visible("é\u202e", is_ascii=True) == "\\xe9\\u202e"
    assert visible("é") == "é"


def test_a_new_models_tokenizer_is_trained_first(tmp_path):
    lines = [
        f"read file {n} {n * n} {n**3} from disk and sort all its keys by name {n**5}"
        for n in range(60)
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "r.yaml").write_text(
        """model:
  config: {model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
           intermediate_size: 64, max_position_embeddings: 16}
  tokenizer: {bpe: {vocab_size: 300}}
data:
  source: {text: {files: a.txt}}
  task: {text: {}}
adapter: full
method: {pretrain_lm: {max_length: 16, max_steps: 1}}
"""
    )
    view = show_data(load_recipe(tmp_path / "r.yaml"), num_rows=1)
    assert view.breaches == ()
    assert view.audit["train"].share_trained == 1.0
    assert len(view.rows["train"][0].tokens) == 16
    assert view.audit["train"].length_percentiles["max"] > 16
