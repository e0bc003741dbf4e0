"""Parquet and Arrow files: columns, folders, and types that no dataset holds."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftkit.errors import DataError
from peftkit.sources.columnar import ArrowSource, ColumnarConfig, ParquetSource


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parquet(*files, columns=None):
    return ParquetSource(ColumnarConfig([Path(file) for file in files], columns))


def test_parquet_columns_and_errors():
    pq.write_table(pa.table({"a": ["x"], "b": [1]}), "a.parquet")
    pq.write_table(pa.table({"a": [1], "b": [1]}), "b.parquet")
    assert parquet("a.parquet").load("train").to_list() == [{"a": "x", "b": 1}]
    assert parquet("a.parquet", columns=["b"]).load("train").to_list() == [{"b": 1}]
    with pytest.raises(DataError, match=r"a.parquet has no column 'c'; it has a, b"):
        parquet("a.parquet", columns=["c"]).load("train")
    with pytest.raises(DataError, match=r"a.parquet, b.parquet do not have the same columns"):
        parquet("a.parquet", "b.parquet").load("train")
    both = parquet("a.parquet", "b.parquet").load_columns("train", ["b"])
    assert both.to_list() == [{"b": 1}, {"b": 1}]
    Path("c.parquet").write_text("no")
    with pytest.raises(DataError, match=r"c.parquet is no readable Parquet file"):
        parquet("c.parquet").load("train")


def test_columns_of_types_that_no_dataset_holds_are_left_out_unless_needed():
    table = pa.table(
        {
            "text": ["a", "b"],
            "tags": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
            "key": pa.array([uuid.uuid4().bytes] * 2, pa.uuid()),
            "view": pa.array([[1], [2]], pa.list_view(pa.int32())),
        }
    )
    pq.write_table(table, "a.parquet")
    rows = parquet("a.parquet").load_columns("train", ["text"])
    assert set(rows.column_names) <= {"text", "view"}
    assert rows["text"][:] == ["a", "b"]
    assert parquet("a.parquet").load_columns("train", ["view"])["view"][:] == [[1], [2]]
    with pytest.raises(DataError, match=r"the column 'tags' is of the type map<string, int32"):
        parquet("a.parquet").load_columns("train", ["text", "tags"])
    with pytest.raises(DataError, match=r"'tags' is of the type"):
        parquet("a.parquet").load("train")


def test_arrow_in_both_formats_as_datasets_writes_them():
    from datasets import Dataset, DatasetDict

    DatasetDict(
        {split: Dataset.from_dict({"text": [split]}) for split in ("train", "test")}
    ).save_to_disk("saved")
    source = ArrowSource(ColumnarConfig(Path("saved")))
    assert source.splits() == ["train", "test"]
    assert source.load("test").to_list() == [{"text": "test"}]
    table = pa.table({"text": ["a"], "b": [1]})
    with pa.OSFile("a.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    one = ArrowSource(ColumnarConfig(Path("a.arrow"), ["text"]))
    assert one.load("train").to_list() == [{"text": "a"}]
    Path("b.arrow").write_text("no")
    with pytest.raises(DataError, match=r"b.arrow is no readable Arrow file"):
        ArrowSource(ColumnarConfig(Path("b.arrow"))).load("train")
