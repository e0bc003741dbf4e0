"""Files from anywhere: every way a header can lie is refused with a sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.weights_io import open_checkpoint, open_shard


def write(file: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    file.write_bytes(struct.pack("<Q", size) + text + data)
    return file


def entry(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "empty": (b"", b"", None, "header is said to be"),
    "length-beyond-file": (b"{}", b"", 10_000, "header is said to be 10000 bytes of 10"),
    "length-huge": (b"{}", b"", 2**63, "header is said to be"),
    "no-json": (b"{not json", b"", None, "header is no JSON"),
    "no-object": (b"[1, 2]", b"", None, "header is no object"),
    "deep": (b"[" * 5000, b"", None, "header is no JSON"),
    "not-utf8": (b'{"\xff": 1}', b"", None, "header is no JSON"),
    "twice": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
              b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", None,
              "names a tensor twice"),
    "overlap": ({"a": entry(0, 2, [2]), "b": entry(1, 3, [2])}, b"xxx", None, "b overlaps"),
    "same-place": ({"a": entry(0, 2, [2]), "b": entry(0, 2, [2])}, b"xx", None, "overlaps"),
    "hole": ({"a": entry(0, 1, [1]), "b": entry(2, 3, [1])}, b"xxx", None, "b leaves a hole"),
    "truncated": ({"a": entry(0, 4, [4])}, b"xx", None, "promises"),
    "longer": ({"a": entry(0, 1, [1])}, b"xxx", None, "promises"),
    "size": ({"a": entry(0, 3, [2])}, b"xxx", None, "has 3 bytes, not 2"),
    "negative": ({"a": entry(-1, 0, [1])}, b"", None, "impossible shape or place"),
    "backwards": ({"a": entry(2, 1, [1])}, b"xx", None, "bytes, not"),
    "bool": ({"a": entry(0, 1, [True])}, b"x", None, "impossible shape"),
    "shape-text": ({"a": entry(0, 1, "1")}, b"x", None, "impossible shape"),
    "huge-shape": ({"a": entry(0, 1, [2**62, 2**62])}, b"x", None, "bytes, not"),
    "no-offsets": ({"a": {"dtype": "U8", "shape": [1]}}, b"x", None, "a lacks a dtype"),
    "dtype": ({"a": entry(0, 1, [2], "F4")}, b"x", None, "dtype F4"),
    "metadata": ({"__metadata__": 3}, b"", None, "metadata is no object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_lying_header_is_refused(name: str, tmp_path: Path) -> None:
    header, data, length, message = BAD[name]
    file = write(tmp_path / "x.safetensors", header, data, length=length)
    with pytest.raises(ArtefactError, match=message):
        open_shard(file)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(tmp_path_factory, noise: bytes) -> None:
    file = tmp_path_factory.mktemp("noise") / "x.safetensors"
    file.write_bytes(noise)
    with pytest.raises(ArtefactError):
        open_shard(file)


def save(folder: Path, name: str, **tensors: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
    return folder


def index(folder: Path, weight_map: dict) -> None:
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


ONE = torch.ones(3)


def test_a_model_in_two_shards_opens(tmp_path: Path) -> None:
    save(tmp_path, "model-1.safetensors", a=ONE)
    save(tmp_path, "model-2.safetensors", b=ONE)
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    opened = open_checkpoint(tmp_path)
    assert set(opened.tensors) == {"a", "b"}
    assert opened.num_bytes == sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("place", ["../model-2.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_that_points_outside_is_refused(place: str, tmp_path: Path) -> None:
    save(tmp_path, "model-1.safetensors", a=ONE)
    index(tmp_path, {"a": "model-1.safetensors", "b": place})
    with pytest.raises(ArtefactError, match="outside its folder"):
        open_checkpoint(tmp_path)


def test_a_missing_shard_and_a_missing_tensor_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "model-1.safetensors", a=ONE)
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    with pytest.raises(ArtefactError, match=r"lacks the shard model-2\.safetensors"):
        open_checkpoint(tmp_path)
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-1.safetensors"})
    with pytest.raises(ArtefactError, match="holds b, but it does not"):
        open_checkpoint(tmp_path)


def test_one_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "model-1.safetensors", a=ONE)
    save(tmp_path, "model-2.safetensors", a=ONE, b=ONE)
    index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    with pytest.raises(ArtefactError, match="a is in both"):
        open_checkpoint(tmp_path)


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ArtefactError, match="pickled weights"):
        open_checkpoint(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", "x.safetensors", a=ONE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").symlink_to(tmp_path / "elsewhere/x.safetensors")
    with pytest.raises(ArtefactError, match="a link out of its folder"):
        open_checkpoint(tmp_path / "model")


def test_the_hubs_cache_is_made_of_links_and_opens(tmp_path: Path) -> None:
    save(tmp_path / "blobs", "abc", a=ONE)
    snapshot = tmp_path / "snapshots/123"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert set(open_checkpoint(snapshot).tensors) == {"a"}
