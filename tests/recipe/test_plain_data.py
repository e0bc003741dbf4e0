"""What a run records of its data is a section that reads as the same one."""

from __future__ import annotations

from types import SimpleNamespace

from peftkit.recipe.data_section import read_data
from peftkit.recipe.plain_data import plain_data
from peftkit.recipe.strict import Gate


def test_a_list_of_sources_comes_back(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    source = {"json": {"files": str(tmp_path / "a.jsonl")}}
    stated = {
        "source": [{**source, "weight": 2}, {**source, "task": {"text": {"text": "b"}}}],
        "task": {"text": {"text": "a"}},
    }
    gate = Gate(str(tmp_path / "r.yaml"), {})
    data = read_data(gate, stated)
    configs = {key: SimpleNamespace() for part in data.parts for key in (part.key, part.task_key)}
    plain = plain_data(data, configs)
    assert read_data(gate, plain) == data
    assert gate.problems == []
    assert plain["source"][0]["weight"] == 2
