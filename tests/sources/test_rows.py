"""Rows become one table, or an error that names the value that does not fit."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.sources import rows as module
from peftkit.sources.rows import BadLines, Row, build_table, to_dataset


def build(records, bad_places=()):
    def read(bad: BadLines):
        for number, values in enumerate(records, start=1):
            if number in bad_places:
                bad.add(f"a.jsonl:{number}", "broken")
            else:
                yield Row("a.jsonl:", number, values)

    return build_table(read, hint="mend it")


def test_columns_are_the_union_of_the_keys_across_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    table = build([{"a": "x"}, {"a": None}, {"b": 1}, {"a": "y", "b": 2.5}])
    assert table.to_pylist() == [
        {"a": "x", "b": None},
        {"a": None, "b": None},
        {"a": None, "b": 1.0},
        {"a": "y", "b": 2.5},
    ]


def test_messages_with_different_keys_fit_together(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)
    rows = [{"m": [{"role": "user"}]}, {"m": [{"role": "user", "content": "x"}]}, {"m": []}]
    dataset = to_dataset(build(rows))
    assert dataset[1]["m"] == [{"role": "user", "content": "x"}]
    assert dataset[0]["m"][0]["content"] is None


@pytest.mark.parametrize(
    ("records", "message", "hint"),
    [
        (
            [{"a": "x"}, {"a": None}, {"a": 3}],
            "a.jsonl:3: a is a number, but text in a.jsonl:1",
            "write every a as the same kind of value",
        ),
        (
            [{"m": [{"content": "x"}]}, {"m": [{"content": {"t": 1}}]}],
            "a.jsonl:2: m[].content is an object, but text in a.jsonl:1",
            "write every m[].content as the same kind of value",
        ),
        (
            [{"a": "x"}, {"a": "\ud800"}],
            "a.jsonl:2: a holds half of a surrogate pair (\\ud800), which is no character",
            "mend or remove that row",
        ),
        (
            [{"a": 1}, {"a": 2**70}],
            "a.jsonl:2: a holds an integer beyond 64 bits (1180591620717411303424)",
            "mend or remove that row",
        ),
        (
            [{"a": True}, {"a": 1}],
            "a.jsonl:2: a is a number, but true/false in a.jsonl:1",
            "write every a as the same kind of value",
        ),
    ],
)
@pytest.mark.parametrize("chunk", [1, 10])
def test_a_value_that_does_not_fit_is_named(monkeypatch, chunk, records, message, hint):
    monkeypatch.setattr(module, "CHUNK_ROWS", chunk)
    with pytest.raises(DataError) as caught:
        build(records)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_malformed_lines_come_before_misfits_and_are_counted():
    with pytest.raises(DataError) as caught:
        build([{"a": "x"}, {"a": 3}, {}], bad_places={3})
    assert str(caught.value) == "a.jsonl:3: broken\n  try: mend it"
    with pytest.raises(DataError) as caught:
        build([{}] * 14, bad_places=set(range(2, 14)))
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 malformed lines"
    assert lines[1] == "  a.jsonl:2: broken"
    assert lines[10] == "  a.jsonl:11: broken"
    assert lines[11:] == ["  and 2 more", "  try: mend it"]


def test_no_rows_make_an_empty_table():
    assert build([]).num_rows == 0


def test_a_file_of_malformed_lines_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(module, "MAX_COUNTED", 12)
    read_on = []

    def read(bad):
        for number in range(1, 30):
            read_on.append(number)
            bad.add(f"a.jsonl:{number}", "broken")
            yield from ()

    with pytest.raises(DataError) as caught:
        build_table(read, hint="mend it")
    assert str(caught.value).splitlines()[-2] == "  and 2 more; it was not read on"
    assert read_on[-1] == 13


@pytest.mark.parametrize("chunk", [1, 10])
def test_keys_that_are_data_are_told_from_columns(monkeypatch, chunk):
    monkeypatch.setattr(module, "MAX_COLUMNS", 4)
    monkeypatch.setattr(module, "CHUNK_ROWS", chunk)
    rows = [{"a": 1, f"k{number}": 1} for number in range(6)]
    assert build(rows[:3]).num_columns == 4
    with pytest.raises(DataError, match=r"^a\.jsonl:4: with this row there are more than 4 keys"):
        build(rows)
