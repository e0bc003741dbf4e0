"""YAML reads back as it was, on lines as a person would write them."""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.launching.documents import dump_document

VALUES = st.recursive(
    st.text() | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=20)
@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_it_reads_back(data: dict[str, object]) -> None:
    assert yaml.safe_load(dump_document(data)) == data


def test_text_of_several_lines_is_a_block() -> None:
    same = {"a": 1}
    text = dump_document({"run": "one\ntwo\n", "x": same, "y": same})
    assert text == "run: |\n  one\n  two\nx:\n  a: 1\ny:\n  a: 1\n"
