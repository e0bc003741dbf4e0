"""YAML is read as people expect it, every key has its line, every trap its error."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import RecipeError
from peftkit.recipe.yaml_file import (
    MAX_BYTES,
    dump_yaml,
    join,
    parent_of,
    parse,
    parse_value,
    read_yaml,
    split,
)


def problem(text: str) -> tuple[int | None, str, str]:
    with pytest.raises(RecipeError) as caught:
        parse(text, "x.yaml")
    first = caught.value.problems[0]
    return first.line, first.key, first.problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("+3", 3),
        ("-3.5e+2", -350.0),
        (".inf", math.inf),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("010", "010"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("'16'", "16"),
        ("!!str 16", "16"),
        ("!!int '16'", 16),
        ("!!float 1", 1.0),
        ("=", "="),
        ("5%", "5%"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    read = parse_value(text, "x")
    assert read == value
    assert type(read) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    document = parse("a: 1\nb:\n  c: [x,\n    {d: 2}]\n\n  e.f: 3\n", "x.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", {"d": 2}], "e.f": 3}}
    assert document.lines == {
        "a": 1, "b": 2, "b.c": 3, "b.c.0": 3, "b.c.1": 4, "b.c.1.d": 4, 'b."e.f"': 6,
    }  # fmt: skip


def test_anchors_and_merge_keys_work_and_own_keys_win_wherever_they_stand() -> None:
    text = "base: &base {r: 8, bias: {a: 1}}\none:\n  bias: 5\n  <<: *base\ntwo: *base\n"
    document = parse(text, "x.yaml")
    assert document.data["one"] == {"r": 8, "bias": 5}
    assert document.data["two"] == {"r": 8, "bias": {"a": 1}}
    assert document.lines["one.bias"] == 3
    assert document.lines["one.r"] == 1
    assert "one.bias.a" not in document.lines


def test_a_list_of_merged_mappings_lets_the_first_win() -> None:
    text = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n"
    assert parse(text, "x").data["c"] == {"x": 1, "y": 2}


def test_a_merge_of_no_mapping_is_refused() -> None:
    assert problem("a: {<<: 3}") == (1, "a.<<", "<< takes a mapping or its alias")


def test_all_duplicates_are_reported_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "x.yaml")
    assert [(p.line, p.key) for p in caught.value.problems] == [(2, "b.c"), (3, "a")]


def test_broken_bytes_are_named_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RecipeError) as caught:
        read_yaml(file)
    assert caught.value.problems[0].line == 2
    assert "0xff is not UTF-8" in caught.value.problems[0].problem


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(file).data == {"a": 1}


def test_a_control_character_is_named() -> None:
    assert problem("a: 1\nb: \x01\n")[::2] == (2, "character U+0001 is not allowed in YAML")


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: 1")
    with pytest.raises(RecipeError) as caught:
        read_yaml(tmp_path / "recipi.yaml")
    assert caught.value.problems[0].suggestion == f"did you mean {tmp_path / 'recipe.yaml'}?"


def test_a_folder_and_a_data_file_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="this is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "rows.yaml").write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="is this the data"):
        read_yaml(tmp_path / "rows.yaml")


def test_deep_nesting_ends_in_an_error_not_a_crash() -> None:
    assert "deep" in problem("[" * 3000)[2]
    assert "deep" in problem("a: " + "[" * 60 + "]" * 60)[2]


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | KEYS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4))
def test_what_is_dumped_is_read_back_and_every_key_has_a_line(data: dict[str, Any]) -> None:
    text = dump_yaml(data)
    document = parse(text, "x.yaml")
    assert document.data == data
    assert set(document.lines) == set(_paths(data, ""))
    assert all(1 <= line <= len(text.splitlines()) for line in document.lines.values())


def _paths(value: Any, key: str) -> list[str]:
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for part, item in pairs:
        path = join(key, part)
        found.append(path)
        if isinstance(item, (dict, list)):
            found.extend(_paths(item, path))
    return found


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_dotted_keys_are_cut_as_they_were_joined(parts: list[str]) -> None:
    key = ""
    for part in parts:
        parent, key = key, join(key, part)
    assert split(key) == parts
    assert parent_of(key) == parent


@given(st.text(alphabet="ab:{}[],&*!|>'\"\n\t -#%@`~<=?\\.0", max_size=40))
def test_any_text_is_data_or_a_recipe_error(text: str) -> None:
    try:
        assert isinstance(parse(text, "x.yaml").data, dict)
    except RecipeError as error:
        assert error.problems


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", 'a"b', '"a', '"a"b'])
def test_what_is_no_dotted_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a dotted key"):
        split(key)


def test_many_keys_beside_merged_ones_are_read_at_once() -> None:
    keys = "".join(f"  k{number}: 1\n" for number in range(6_000))
    began = time.process_time()
    document = parse(f"a: &a\n{keys}b:\n  <<: *a\n{keys}", "x.yaml")
    assert document.lines["b.k5999"] == 12_003
    assert len(document.data["b"]) == 6_000
    assert time.process_time() - began < 10
