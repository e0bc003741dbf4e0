"""Local files of every format, good and bad."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from peftkit.errors import DataError
from peftkit.sources.files import (
    CsvConfig,
    CsvSource,
    JsonConfig,
    JsonSource,
    TextConfig,
    TextSource,
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(source, message, split="train"):
    with pytest.raises(DataError) as caught:
        source.load(split)
    assert str(caught.value) == message
    assert caught.value.exit_code == 3


def test_json_by_split_in_order_from_several_files_and_gzip():
    Path("a.jsonl").write_text('{"t": "one"}\n{"t": "two"}\n')
    Path("b.jsonl.gz").write_bytes(gzip.compress(b'{"t": "three", "n": 1}\n'))
    Path("c.json").write_text('[{"t": "four"}]')
    source = JsonSource(JsonConfig({"train": ["a.jsonl", "b.jsonl.gz"], "test": "c.json"}))
    assert source.splits() == ["train", "test"]
    assert source.load("train").to_list() == [
        {"t": "one", "n": None},
        {"t": "two", "n": None},
        {"t": "three", "n": 1},
    ]
    assert source.load("test")["t"] == ["four"]


def test_malformed_json_lines_are_all_named():
    Path("a.jsonl").write_text('{"t": "one"}\n{"t": two}\n{"t" "three"}\n')
    refuse(
        JsonSource(JsonConfig("a.jsonl")),
        "2 malformed lines\n"
        "  a.jsonl:2: Expecting value at column 7, near '{\"t\": two}'\n"
        "  a.jsonl:3: Expecting ':' delimiter at column 6, near '{\"t\" \"three\"}'\n"
        "  try: each line holds one JSON object: check that line with `python -m json.tool`",
    )


def test_a_column_of_mixed_kinds_names_both_lines():
    Path("a.jsonl").write_text('{"t": "one"}\n{"t": 2}\n')
    refuse(
        JsonSource(JsonConfig("a.jsonl")),
        "a.jsonl:2: t is a number, but text in a.jsonl:1\n"
        "  try: write every t as the same kind of value",
    )


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_an_empty_json_file_is_an_error(content):
    Path("a.jsonl").write_text(content)
    refuse(
        JsonSource(JsonConfig("a.jsonl")),
        "a.jsonl: no rows\n  try: check that it is the file you mean",
    )


def test_dates_and_numbers_in_text_stay_text():
    Path("a.jsonl").write_text('{"t": "2024-01-01"}\n{"t": "2024-01-02T03:04:05"}\n')
    assert JsonSource(JsonConfig("a.jsonl")).load("train")["t"][0] == "2024-01-01"
    Path("a.csv").write_text('t,n\n2024-01-01,007\nNA,\n"1,5",null\n')
    assert CsvSource(CsvConfig("a.csv")).load("train").to_list() == [
        {"t": "2024-01-01", "n": "007"},
        {"t": "NA", "n": ""},
        {"t": "1,5", "n": "null"},
    ]


def test_csv_quoting_newlines_tabs_and_wide_cells():
    Path("a.csv").write_bytes(b'\xef\xbb\xbfa,b\r\n"x\r\ny","say ""hi"""\r\n\r\n1,2\r\n')
    assert CsvSource(CsvConfig("a.csv")).load("train").to_list() == [
        {"a": "x\r\ny", "b": 'say "hi"'},
        {"a": "1", "b": "2"},
    ]
    Path("a.tsv").write_text("a\tb\n" + "x" * 200_000 + "\t2\n")
    assert len(CsvSource(CsvConfig("a.tsv")).load("train")[0]["a"]) == 200_000
    Path("b.csv").write_text("1;2\n")
    config = CsvConfig("b.csv", sep=";", column_names=["a", "b"])
    assert CsvSource(config).load("train").to_list() == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'a,b\n"x\ny",2\n1\n1,2,3\n',
            "2 malformed lines\n  a.csv:4: 1 cells, but 2 columns\n"
            "  a.csv:5: 3 cells, but 2 columns\n"
            "  try: a cell that holds the separator or a newline stands in quotes",
        ),
        (
            'a,b\n1,2\n"x,3\n4,5\n',
            "a.csv:3: unexpected end of data, in the row that starts here\n"
            "  try: a cell that holds the separator or a newline stands in quotes",
        ),
        ("a,b\n", "a.csv: no rows\n  try: check that it is the file you mean"),
        ("", "a.csv: no rows\n  try: check that it is the file you mean"),
        ("a,a\n1,2\n", "a.csv:1: the header names 'a' twice"),
        (
            "a,\n1,2\n",
            "a.csv:1: the header has a column without a name: ['a', '']\n"
            "  try: name it, or give `column_names` if the file has no header",
        ),
        (
            "a;b\n1;2\n",
            "a.csv:1: the header is one column, 'a;b'\n  try: add `sep: ';'` beside `files`",
        ),
    ],
)
def test_a_bad_csv_names_the_line(content, message):
    Path("a.csv").write_text(content)
    refuse(CsvSource(CsvConfig("a.csv")), message)


def test_csv_that_is_not_utf8_names_line_and_offset():
    Path("a.csv").write_bytes(b"a,b\n1,2\ncaf\xe9,3\n")
    refuse(
        CsvSource(CsvConfig("a.csv")),
        "a.csv:3: not UTF-8: byte 0xe9 at offset 11\n"
        "  try: if it is Latin-1: iconv -f LATIN1 -t UTF-8 a.csv > utf8-a.csv",
    )
    refuse(
        CsvSource(CsvConfig("a.csv", sep="::")),
        "sep '::' or quotechar: \"delimiter\" must be a 1-character string",
    )


def test_text_by_line_paragraph_and_document():
    Path("a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n  \nthree\n")

    def load(by):
        return TextSource(TextConfig("a.txt", by)).load("train")["text"][:]

    assert load("line") == ["one", "two", "three"]
    assert load("paragraph") == ["one\ntwo", "three"]
    assert load("document") == ["one\ntwo\n\n  \nthree"]
    Path("b.txt").write_bytes(b"ok\n\xff\n")
    refuse(
        TextSource(TextConfig("b.txt")),
        "b.txt:2: not UTF-8: byte 0xff at offset 3\n"
        "  try: if it is Latin-1: iconv -f LATIN1 -t UTF-8 b.txt > utf8-b.txt",
    )


def test_nothing_is_written_to_the_cache(monkeypatch, here):
    monkeypatch.setenv("HF_HOME", str(here / "hf"))
    Path("a.jsonl").write_text('{"t": "one"}\n' * 100)
    rows = JsonSource(JsonConfig("a.jsonl")).load("train")
    assert rows.cache_files == []
    assert not (here / "hf").exists()


@pytest.mark.slow
def test_a_large_file_is_read_at_disk_like_speed():
    line = json.dumps({"document": "word " * 200, "summary": "short " * 10}) + "\n"
    Path("a.jsonl").write_text(line * 100_000)
    start = time.perf_counter()
    assert len(JsonSource(JsonConfig("a.jsonl")).load("train")) == 100_000
    assert time.perf_counter() - start < 20


def test_a_folder_is_read_by_the_splits_that_its_files_are_named_for(here):
    (here / "d" / "valid").mkdir(parents=True)
    for name, text in (("train-1.jsonl", "a"), ("train-2.jsonl", "b"), ("valid/rows.jsonl", "c")):
        (here / "d" / name).write_text(json.dumps({"text": text}))
    (here / "d" / "dataset_info.json").write_text("{}")
    source = JsonSource(JsonConfig(Path("d")))
    assert source.splits() == ["train", "validation"]
    assert source.load("train")["text"][:] == ["a", "b"]
    assert source.load("validation")["text"][:] == ["c"]
    assert JsonSource.named_splits({"files": "d"}) == ["train", "validation"]
    (here / "d" / "more.jsonl").write_text(json.dumps({"text": "d"}))
    with pytest.raises(DataError, match=r"also more.jsonl, which is named for no split"):
        source.splits()
    with pytest.raises(DataError, match=r"d is a folder without .csv, .tsv files"):
        CsvSource(CsvConfig(Path("d"))).load("train")


def test_a_column_that_nobody_needs_is_not_in_the_way(here):
    rows = [{"id": 1, "text": "a"}, {"id": "two", "text": "b"}, {"id": [3], "text": "c"}]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = JsonSource(JsonConfig(Path("a.jsonl")))
    assert source.load_columns("train", ["text"]).to_list() == [{"text": t} for t in "abc"]
    refuse(
        source,
        "a.jsonl:2: id is text, but a number in a.jsonl:1\n"
        "  try: write every id as the same kind of value",
    )
    with pytest.raises(DataError, match="id is text"):
        source.load_columns("train", ["text", "id"])
