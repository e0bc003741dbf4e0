"""JSON lines and documents: every malformed line is named with what is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import DataError, ResourceError
from peftkit.sources.json_rows import read_json
from peftkit.sources.rows import BadLines


def read(path, field=None):
    bad = BadLines()
    rows = [(row.place, row.values) for row in read_json([path], field, bad)]
    return rows, bad


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lines_keep_their_numbers_past_blank_ones(here):
    file = here / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xe2\x80\xa8"}')
    rows, bad = read(file)
    assert rows == [(f"{file}:1", {"a": 1}), (f"{file}:3", {"a": "\u2028"})]
    assert bad.num_lines == 0


def test_every_malformed_line_is_noted(here):
    file = here / "a.jsonl"
    file.write_text('{"a": 1}\n{"a": 1,}\n[1]\n"x"\n{"a" 2}\nnull\n')
    rows, bad = read(file)
    assert len(rows) == 1
    assert bad.num_lines == 4
    first, second, third, last = bad.shown
    assert first.startswith(f"{file}:2: ")
    assert first.endswith("""near '{"a": 1,}'""")
    assert second == f"{file}:3: a row must be an object, but is a list"
    assert third == f"{file}:4: a row must be an object, but is text"
    assert last == f"{file}:5: Expecting ':' delimiter at column 6, near '{{\"a\" 2}}'"


def test_a_list_of_objects_and_a_field(here):
    file = here / "a.json"
    file.write_text('\n [{"a": 1}, 3, {"a": 2}]')
    rows, bad = read(file)
    assert rows == [(f"{file} row 0", {"a": 1}), (f"{file} row 2", {"a": 2})]
    assert bad.shown == [f"{file} row 1: a row must be an object, but is a number"]
    file.write_text('{"meta": 1, "data": [{"a": 1}]}')
    assert read(file, "data")[0] == [(f"{file} row 0", {"a": 1})]
    with pytest.raises(DataError, match="has no field 'rows'; it has meta, data"):
        read(file, "rows")
    with pytest.raises(DataError, match="meta is a number, not a list of rows"):
        read(file, "meta")


def test_a_document_over_several_lines_says_which_field(here):
    file = here / "a.json"
    file.write_text(json.dumps({"version": 1, "data": [{"a": 1}]}, indent=2))
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value) == (
        f"{file} is one JSON object over several lines, not rows\n"
        "  try: add `field: data` beside `files`"
    )
    file.write_text(json.dumps({"version": 1}, indent=2))
    with pytest.raises(DataError) as caught:
        read(file)
    assert caught.value.hint == "write one object a line, or one list of objects"


def test_a_malformed_document_names_its_line(here):
    file = here / "a.json"
    file.write_text('[\n{"a": 1},\n{"a" 2}\n]')
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value) == (
        f"{file}:3: Expecting ':' delimiter at column 6\n"
        f"  try: check the file with `python -m json.tool {file}`"
    )


@pytest.mark.parametrize("head", ["", "["])
def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(here, head):
    file = here / "a.json"
    file.write_bytes(head.encode() + b'{"a": 1}\n{"a": "caf\xe9"}\n')
    with pytest.raises(DataError) as caught:
        read(file)
    offset = len(head) + 9 + 10
    assert str(caught.value) == (
        f"{file}:2: not UTF-8: byte 0xe9 at offset {offset}\n"
        f"  try: if it is Latin-1: iconv -f LATIN1 -t UTF-8 {file} > utf8-a.json"
    )


def test_a_line_nested_too_deep_is_one_bad_line(here):
    file = here / "a.jsonl"
    file.write_text('{"a": 1}\n{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    rows, bad = read(file)
    assert len(rows) == 1
    assert bad.num_lines == 1
    assert "recursion" in bad.shown[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=6))
def test_what_json_writes_is_read_back(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("json")
    lines, document = folder / "a.jsonl", folder / "a.json"
    lines.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8",
                     errors="surrogatepass", newline="\n")  # fmt: skip
    document.write_text(json.dumps(records), "utf-8")
    assert [values for _, values in read(lines)[0]] == records
    assert [values for _, values in read(document)[0]] == records


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_rows_or_a_data_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("bytes") / "a.jsonl"
    file.write_bytes(content)
    try:
        rows, bad = read(file)
    except DataError as error:
        assert str(file) in error.message
    else:
        assert all(isinstance(values, dict) for _, values in rows)
        assert bad.num_lines <= content.count(b"\n") + 1


def test_a_document_that_does_not_fit_in_memory_is_not_parsed(here, monkeypatch):
    monkeypatch.setattr("peftkit.system.machine.host_memory", lambda: (1 << 30, 300 << 20))
    file = here / "rows.json"
    file.write_bytes(b"[" + b"[]," * (5 << 20) + b"[]]")
    with pytest.raises(ResourceError, match=r"takes about 8\d\d MiB of memory .* which 300"):
        read(file)


def test_a_row_of_more_values_than_any_is_refused_before_it_is_parsed(here, monkeypatch):
    monkeypatch.setattr("peftkit.sources.json_rows._MAX_VALUES", 50)
    (here / "a.jsonl").write_text('{"a": "x"}\n{"a": [' + "1," * 50 + "1]}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: the row has more than 50 values"):
        read(here / "a.jsonl")
    (here / "a.jsonl").write_text(json.dumps({"a": "no punctuation " * 9}))
    assert read(here / "a.jsonl")
