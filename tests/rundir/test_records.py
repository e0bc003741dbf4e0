"""A run's files hold what a run writes, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.rundir.records import SHAPES, read_record

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def test_a_run_reads_its_own_files(tiny_run: Path) -> None:
    names = [file.name for file in tiny_run.glob("*.json")]
    assert {"status.json", "measured.json", "data.json", "versions.json"} < set(names)
    for name in names:
        assert read_record(tiny_run / name)["schema_version"] == 1


@pytest.mark.parametrize("name", [*SHAPES, "scores-train.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"a": ' * 5000, "\0"])
def test_what_is_no_object_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ArtefactError, match=name):
        read_record(tmp_path / name)


@given(st.data())
def test_a_value_of_another_type_is_refused_or_fits(tmp_path_factory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SHAPES, "scores.json"]))
    keys = sorted(SHAPES.get(name, {"split": 0, "tuned": 0, "notes": 0, "baselines": 0}))
    content = data.draw(st.dictionaries(st.sampled_from(keys), ANY, min_size=1))
    file = tmp_path_factory.mktemp("record") / name
    file.write_text(json.dumps(content))
    try:
        assert json.dumps(read_record(file)) == json.dumps(content)
    except ArtefactError as error:
        assert "which no run writes" in str(error)
