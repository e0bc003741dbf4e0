"""A plugin is picked by the one key of a mapping, its options checked against its Config."""

from __future__ import annotations

from peftkit.recipe.choices import check_own, check_plugin
from peftkit.recipe.schema import AuditSection, Choice
from peftkit.recipe.strict import Gate


def test_a_plugin_and_its_paths(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    gate = Gate(str(tmp_path / "r.yaml"), {})
    choice = check_plugin(gate, "data.source", {"json": {"files": "a.jsonl"}}, "sources")
    assert choice == Choice("json", {"files": str(tmp_path / "a.jsonl")})
    assert check_plugin(gate, "data.source", {"jsn": {}}, "sources") is None
    assert [problem.suggestion for problem in gate.problems] == ["did you mean json?"]


def test_our_own_sections():
    gate = Gate("r.yaml", {})
    assert check_own(gate, "data.audit", {"max_dropped": 0.5}, AuditSection) == {"max_dropped": 0.5}
    check_own(gate, "data.audit", {"max_droped": 0.5}, AuditSection)
    assert gate.problems[0].suggestion == "did you mean max_dropped?"
