"""Editing a recipe's text: the data change as an override's would, the rest stays to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import RecipeError
from peftkit.recipe.edit import edit_text
from peftkit.recipe.overrides import apply_overrides
from peftkit.recipe.yaml_file import dump_inline, parse

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))

TEXT = """\
# A recipe with comments.
name: x
model:
  path: some/model        # the base
  dtype: auto
adapter:
  lora: {r: 16, lora_alpha: 32}   # small
method:
  sft:
    per_device_train_batch_size: 16   # rows
    max_length: 384

# The end.
evaluate: {split: test}
"""


def test_a_value_is_replaced_where_it_stands() -> None:
    edited = edit_text(TEXT, "x.yaml", {"method.sft.per_device_train_batch_size": 4})
    assert edited == TEXT.replace("batch_size: 16 ", "batch_size: 4 ")


def test_a_key_is_added_to_its_mapping_and_the_comment_below_stays_below() -> None:
    edited = edit_text(TEXT, "x.yaml", {"method.sft.gradient_accumulation_steps": 4})
    assert edited == TEXT.replace(
        "    max_length: 384\n", "    max_length: 384\n    gradient_accumulation_steps: 4\n"
    )


def test_a_key_is_added_to_a_flow_mapping() -> None:
    edited = edit_text(TEXT, "x.yaml", {"adapter.lora.lora_dropout": 0.1})
    assert "lora: {r: 16, lora_alpha: 32, lora_dropout: 0.1}   # small\n" in edited
    assert edit_text("a: {}\n", "x", {"a.b": 1}) == "a: {b: 1}\n"
    assert edit_text("a: {\n  b: 1,\n}\n", "x", {"a.c": 2}) == "a: {\n  b: 1, c: 2}\n"


def test_a_section_is_added() -> None:
    quantize = {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    edited = edit_text(TEXT, "x.yaml", {"model.quantize": quantize})
    line = "  quantize: {bitsandbytes: {load_in_4bit: true, bnb_4bit_quant_type: nf4}}\n"
    assert edited == TEXT.replace("  dtype: auto\n", "  dtype: auto\n" + line)
    assert edit_text("a: 1", "x", {"b.c": 2}) == "a: 1\nb: {c: 2}"


def test_a_block_is_replaced_and_the_comment_below_stays() -> None:
    edited = edit_text(TEXT, "x.yaml", {"method.sft": {"max_steps": 3}})
    assert "method:\n  sft: {max_steps: 3}\n\n# The end.\n" in edited


def test_nothing_after_the_colon_takes_a_value() -> None:
    assert edit_text("a:\nb: 2\n", "x", {"a": 1}) == "a: 1\nb: 2\n"
    assert edit_text("a:\nb: 2\n", "x", {"a.c": 1}) == "a: {c: 1}\nb: 2\n"


def test_where_an_anchor_stands_in_the_way_the_data_are_right_and_comments_go() -> None:
    text = "a: &base {x: 1}  # shared\nb: *base\n"
    edited = edit_text(text, "x", {"b.x": 2})
    assert parse(edited, "x").data == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_key_without_a_place_is_refused() -> None:
    with pytest.raises(RecipeError, match="adapter is 'full'"):
        edit_text("adapter: full\n", "x", {"adapter.lora.r": 1})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.sampled_from(["no", "1e-4", "a: b"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["p", "q"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        "name",
        "model.dtype",
        "model.quantize",
        "model.new.deep",
        "adapter.lora.r",
        "adapter.lora.init",
        "method.sft.max_length",
        "method.sft.optim",
        "method.sft",
        "evaluate.limit",
        "memory.budget",
    ]
)


@given(changes=st.dictionaries(KEYS, VALUES, max_size=3))
def test_any_change_means_what_the_same_override_means(changes: dict[str, object]) -> None:
    overrides = [f"{key}={dump_inline(value)}" for key, value in changes.items()]
    wanted = apply_overrides("x", parse(TEXT, "x").data, overrides)
    if wanted.problems:
        with pytest.raises(RecipeError):
            edit_text(TEXT, "x", changes)
    else:
        assert parse(edit_text(TEXT, "x", changes), "x").data == wanted.data


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_shipped_recipes_keep_every_comment(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    method = next(iter(parse(text, "x").data["method"]))
    changes = {
        f"method.{method}.per_device_train_batch_size": 1,
        f"method.{method}.gradient_accumulation_steps": 64,
        "memory.budget": "9 GiB",
    }
    edited = edit_text(text, "x", changes)
    comments = [line[line.index("#") :] for line in text.splitlines() if "#" in line]
    assert [line[line.index("#") :] for line in edited.splitlines() if "#" in line] == comments
    assert parse(edited, "x").data["memory"] == {"budget": "9 GiB"}
