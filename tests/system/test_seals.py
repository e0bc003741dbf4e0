"""A file of ours says what was written, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.system.seals import check_seal, check_text_seal, seal_text, sealed

FILE = Path("x.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "seal"), JSON))
def test_what_was_sealed_comes_back_from_json(content: dict) -> None:
    text = json.dumps(sealed({"schema_version": 1, **content}))
    assert check_seal(json.loads(text), FILE) == {"schema_version": 1, **content}


@given(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1), st.sampled_from("abc"), JSON)
def test_any_other_value_is_refused(content: dict, key: str, value: object) -> None:
    read = json.loads(json.dumps(sealed({"schema_version": 1, **content})))
    changed = {**read, key: value}
    if json.dumps(changed) == json.dumps(read):
        return
    with pytest.raises(ArtefactError, match=r"x\.json is not what was written"):
        check_seal(changed, FILE)


def test_a_file_of_another_program_has_no_seal() -> None:
    assert check_seal({"seal": "a fish"}, FILE) == {"seal": "a fish"}
    assert check_seal({"schema_version": 1, "a": 2}, FILE) == {"schema_version": 1, "a": 2}


def test_a_text_with_one_other_character_is_refused() -> None:
    text = seal_text("rate: 1\n")
    check_text_seal(text, FILE)
    check_text_seal("rate: 2\n", FILE)
    for changed in (text.replace("1", "2", 1), text + "more: 1\n", text[:-2] + "\n"):
        with pytest.raises(ArtefactError, match="is not what was written"):
            check_text_seal(changed, FILE)
