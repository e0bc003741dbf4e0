"""Reading a column, and what is said of one that is missing."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.sources.columns import describe_kind, read_text, require_columns


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "body is null"),
        ("", "body is empty"),
        (" \n\t", "body is only whitespace"),
        (3, "body is not text but a number"),
        (True, "body is not text but true/false"),
        (["a"], "body is not text but a list"),
        ({"a": 1}, "body is not text but an object"),
    ],
)
def test_a_value_that_is_no_text_is_named(value, problem):
    with pytest.raises(DataError) as caught:
        read_text({"body": value}, "body")
    assert caught.value.message == problem


def test_nested_columns_are_reached_by_a_path():
    assert read_text({"translation": {"en": "hello"}}, "translation.en") == "hello"
    assert read_text({"meta.text": "flat"}, "meta.text") == "flat"
    with pytest.raises(DataError, match=r"translation\.de is null"):
        read_text({"translation": {"en": "hello"}}, "translation.de")
    require_columns(["translation.en"], ["translation"], where="split 'train'")


def test_missing_columns_are_all_named_with_the_nearest():
    with pytest.raises(DataError) as caught:
        require_columns(["document", "sumary"], ["text", "summary"], where="split 'train'")
    assert str(caught.value) == (
        "split 'train' has no columns 'document', 'sumary'; it has text, summary\n"
        "  try: did you mean summary?"
    )
    with pytest.raises(DataError) as caught:
        require_columns(["document"], ["a", "b"], where="split 'train'")
    assert str(caught.value) == (
        "split 'train' has no column 'document'; it has a, b\n  try: name the columns in data.task"
    )


def test_kinds_are_named_as_in_a_data_file():
    assert describe_kind(None) == "null"
    assert describe_kind(b"x") == "bytes"
    assert describe_kind(1 + 2j) == "a complex"
