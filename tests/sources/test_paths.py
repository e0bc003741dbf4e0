"""Files are found as written, and a file that cannot be read says why."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from peftkit.errors import DataError
from peftkit.sources import paths
from peftkit.sources.paths import (
    by_split,
    find_files,
    lines_of,
    open_bytes,
    split_of,
    suffix_of,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_are_given_for_each_split():
    assert by_split("a.jsonl") == {"train": ["a.jsonl"]}
    assert by_split([Path("a"), "b"]) == {"train": ["a", "b"]}
    assert by_split({"train": "a", "test": ["b", "c"]}) == {"train": ["a"], "test": ["b", "c"]}


def test_patterns_match_in_a_fixed_order_and_names_are_short(here):
    for name in ("b.jsonl", "a.jsonl", "c.txt", "odd[1].jsonl"):
        (here / name).write_text("x")
    assert find_files([here / "*.jsonl"], "train") == [
        Path("a.jsonl"),
        Path("b.jsonl"),
        Path("odd[1].jsonl"),
    ]
    assert find_files("odd[1].jsonl", "train") == [Path("odd[1].jsonl")]


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ("rows.json", "train", "there is no file rows.json\n  try: did you mean rows.jsonl?"),
        (
            "nothing",
            "train",
            "there is no file nothing\n  try: in a recipe, relative paths start from its folder",
        ),
        ("*.csv", "train", "no file matches *.csv"),
        (
            ["folder/"],
            "train",
            "folder is a folder without .jsonl, .json files\n  try: it is empty",
        ),
        (
            "https://example.org/a.jsonl",
            "train",
            "https://example.org/a.jsonl is an address, not a file\n"
            "  try: download it first, or read the Hub with `hub: {path: ...}`",
        ),
        ([], "train", "split 'train' names no file\n  try: give `files` at least one file"),
        (
            {"train": "rows.jsonl"},
            "test",
            "no split 'test' among the files; there are train",
        ),
    ],
)
def test_a_file_that_is_not_there_says_what_is(here, files, split, message):
    (here / "rows.jsonl").write_text("{}")
    (here / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        find_files(files, split, (".jsonl", ".json"))
    assert str(caught.value) == message


def test_gzip_is_known_by_its_bytes(here):
    file = here / "misnamed.jsonl"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf{}\n"))
    with open_bytes(file) as stream:
        assert stream.read() == b"{}\n"


@pytest.mark.parametrize("cut", [4, 15, -6])
def test_damaged_gzip_says_so(here, cut):
    file = here / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": "some text that is long enough"}\n' * 50)[:cut])
    with pytest.raises(DataError, match=r"a.jsonl.gz is damaged gzip"), open_bytes(file) as stream:
        stream.read()


def test_utf16_says_how_to_convert(here):
    Path("a.csv").write_text("a,b\n", encoding="utf-16")
    with pytest.raises(DataError) as caught, open_bytes(Path("a.csv")):
        pass
    assert str(caught.value) == (
        "a.csv is UTF-16, not UTF-8\n  try: iconv -f UTF-16 -t UTF-8 a.csv > utf8-a.csv"
    )


def test_a_file_that_cannot_be_opened_says_so(here):
    wanted = pytest.raises(DataError, match=r"cannot read gone.jsonl: No such file")
    with wanted, open_bytes(Path("gone.jsonl")):
        pass


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("dev.csv", "validation"),
        ("valid/a.txt", "validation"),
        ("my_test_set.json", "test"),
        ("latest.jsonl", None),
        ("trainer.jsonl", None),
    ],
)
def test_files_are_named_for_splits_by_whole_words(name, split):
    assert split_of(Path(name)) == split
    assert suffix_of(Path(name + ".gz")) == Path(name).suffix


def test_gzip_of_zeros_is_refused_soon(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with gzip.open(file, "wb") as stream:
        for _ in range(80):
            stream.write(bytes(1 << 20))
    said = "unpacks to more than 200 times its size"
    with pytest.raises(DataError, match=said) as caught, open_bytes(file) as stream:
        stream.read()
    assert f"gunzip -k {file}" in str(caught.value)


def test_gzip_of_rows_is_read_from_any_place(tmp_path: Path) -> None:
    file, text = tmp_path / "rows.jsonl", b"".join(b'{"a": %d}\n' % n for n in range(9000))
    file.write_bytes(gzip.compress(text))
    with open_bytes(file) as stream:
        assert stream.read() == text
        stream.seek(9)
        assert stream.readline() == text.splitlines(keepends=True)[1]


def test_a_line_longer_than_any_row_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "MAX_LINE_BYTES", 1 << 20)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"1\n" + b"x" * (2 << 20) + b"\n3\n")
    said = r"rows\.jsonl:2: the line is longer than 1 MiB"
    with pytest.raises(DataError, match=said), open_bytes(file) as stream:
        list(lines_of(file, stream))
