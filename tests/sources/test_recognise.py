"""What reads a file is seen in its name and its first bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftkit.errors import UsageError
from peftkit.sources.files import CsvConfig, CsvSource, JsonConfig, JsonSource
from peftkit.sources.recognise import recognise


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_separators_and_encodings_of_csv():
    Path("a.csv").write_bytes(
        "frage;antwort\nSch\xf6n, nicht?;ja\nGut;nein, danke\n".encode("cp1252")
    )
    found = recognise(Path("a.csv"))
    assert found.options == {"files": Path("a.csv"), "encoding": "cp1252", "sep": ";"}
    rows = CsvSource(CsvConfig(**found.options)).load("train").to_list()
    assert rows[0] == {"frage": "Sch\xf6n, nicht?", "antwort": "ja"}
    Path("b.csv").write_text("q,a\nx;y,z\n")
    assert recognise(Path("b.csv")).options == {"files": Path("b.csv")}
    Path("c.csv").write_text("only\none column\n")
    assert recognise(Path("c.csv")).options == {"files": Path("c.csv")}


def test_rows_under_one_key_of_an_object():
    rows = [{"text": "a"}, {"text": "b"}]
    for text in (
        json.dumps({"version": "1.0", "data": rows}),
        json.dumps({"data": rows}, indent=1),
    ):
        Path("a.json").write_text(text)
        found = recognise(Path("a.json"))
        assert found.options["field"] == "data"
        assert JsonSource(JsonConfig(**found.options)).load("train").to_list() == rows
    Path("a.jsonl").write_text("".join(json.dumps({"data": [row]}) + "\n" for row in rows))
    assert recognise(Path("a.jsonl")).options == {"files": Path("a.jsonl")}
    Path("one.jsonl").write_text(json.dumps({"text": "a"}))
    assert recognise(Path("one.jsonl")).options == {"files": Path("one.jsonl")}


def test_folders_and_what_is_not_read():
    Path("d").mkdir()
    Path("d/train.csv").write_text("q;a\n1;2\n")
    Path("d/test.csv").write_text("q;a\n1;2\n")
    assert recognise(Path("d")).options == {"files": Path("d"), "sep": ";"}
    Path("d/x.jsonl").write_text("{}")
    with pytest.raises(UsageError, match=r"several formats: 2 .csv, 1 .jsonl"):
        recognise(Path("d"))
    with pytest.raises(UsageError) as caught:
        recognise(Path("a.xlsx"))
    assert "save it as CSV" in str(caught.value)
