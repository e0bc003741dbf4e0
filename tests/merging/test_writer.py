"""Shards are written whole or recognisably not, with room checked first."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merging import writer
from peftkit.merging.changes import Change, LowRank
from peftkit.merging.layout import Written, lay_out
from peftkit.merging.weights_io import open_checkpoint


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    torch.manual_seed(0)
    save_file({name: torch.randn(6, 4) for name in "abcd"}, folder / "model.safetensors")
    return open_checkpoint(folder)


def planned(base, change: Change | None = None):
    """Plan a shard in which `b` changes, if anything does."""
    written = {name: Written(name, tensor, tensor.dtype) for name, tensor in base.tensors.items()}
    if change is not None:
        written["b"] = Written("b", base.tensors["b"], "F32", (change,))
    (shard,) = lay_out(base, written)
    return shard


def adding(value: float) -> Change:
    import numpy as np

    return Change(("x",), lambda _: LowRank(np.ones((6, 1)), np.full((1, 4), value), 1.0))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_an_untouched_shard_is_the_same_file(base, out) -> None:
    writer.write_shard(out, planned(base), writer.Journal.open(out, "id"))
    assert (out / "model.safetensors").read_bytes() == base.shards[0].path.read_bytes()


def test_one_tensor_changes_and_the_others_stay_byte_for_byte(base, out) -> None:
    journal = writer.Journal.open(out, "id")
    writer.write_shard(out, planned(base, adding(2.0)), journal)
    old, new = load_file(base.shards[0].path), load_file(out / "model.safetensors")
    assert torch.equal(new["b"], old["b"] + 2)
    assert all(torch.equal(new[name], old[name]) for name in "acd")
    assert journal.changed == {"b"}
    assert {f.name for f in out.iterdir()} == {writer.JOURNAL, "model.safetensors"}


def test_a_change_of_nothing_is_not_called_a_change(base, out) -> None:
    journal = writer.Journal.open(out, "id")
    writer.write_shard(out, planned(base, adding(0.0)), journal)
    assert journal.changed == set()
    assert (out / "model.safetensors").read_bytes() == base.shards[0].path.read_bytes()


def test_a_filesystem_without_copy_file_range_gets_the_same_bytes(base, out, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    writer.write_shard(out, planned(base, adding(1.0)), writer.Journal.open(out, "id"))
    assert torch.equal(
        load_file(out / "model.safetensors")["d"], load_file(base.shards[0].path)["d"]
    )


def test_a_full_disk_keeps_what_was_done_and_says_how_to_go_on(base, out, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    shard = planned(base, adding(1.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match="No space left on device") as caught:
            writer.write_shard(out, shard, writer.Journal.open(out, "id"))
    assert "goes on from here" in str(caught.value)
    assert not (out / "model.safetensors").exists()
    writer.write_shard(out, shard, writer.Journal.open(out, "id"))
    assert torch.equal(
        load_file(out / "model.safetensors")["b"], load_file(base.shards[0].path)["b"] + 1
    )


def test_too_little_room_is_known_before_the_first_byte(base, out, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(ResourceError, match=r"needs \d+ MiB more, the disk has 3\.0 MiB free"):
        writer.check_room(out, (planned(base),), 32 << 20)
    assert list(out.iterdir()) == []


def test_a_journal_of_other_inputs_is_refused_and_a_torn_line_is_not_believed(out) -> None:
    journal = writer.Journal.open(out, "id")
    journal.record("model.safetensors", 3, [])
    with (out / writer.JOURNAL).open("a") as stream:
        stream.write('{"shard": "model.safetensors", "tens')
    assert writer.Journal.open(out, "id").done == {"model.safetensors": 3}
    with pytest.raises(ArtefactError, match="interrupted merge of other inputs"):
        writer.Journal.open(out, "other")


def test_a_source_that_changes_size_while_it_is_copied_is_refused(base, out) -> None:
    shard = planned(base)
    with base.shards[0].path.open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(ArtefactError, match="got shorter"):
        writer.write_shard(out, shard, writer.Journal.open(out, "id"))


def test_the_journal_holds_json_lines(base, out) -> None:
    writer.Journal.open(out, "id").record("x", 1, [])
    lines = (out / writer.JOURNAL).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"identity": "id"},
        {"shard": "x", "tensors": 1, "changed": []},
    ]
