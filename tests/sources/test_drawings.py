"""Drawings: the same at every call, and of what their answers say."""

from __future__ import annotations

import io

import pytest

from peftkit.errors import DataError
from peftkit.sources.drawings import COLORS, DrawingsConfig, DrawingsSource
from peftkit.testing import check_source


def test_the_contract_holds():
    check_source(DrawingsSource, {"num_rows": 10}, columns=["image", "question", "answer"])


def test_the_colour_and_the_place_are_those_of_the_answer():
    from PIL import Image

    rows = DrawingsSource(DrawingsConfig(num_rows=60)).load("train")
    for row in rows:
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        assert image.size == (32, 32)
        own = [
            (x, y) for x in range(32) for y in range(32)
            if image.getpixel((x, y)) == COLORS[row["color"]]
        ]  # fmt: skip
        assert own
        assert all((x >= 16) == ("right" in row["place"]) for x, _ in own)
        assert all((y >= 16) == ("bottom" in row["place"]) for _, y in own)
        assert row["answer"] == f"{row['color']}, {row['place']}"


def test_splits_differ_and_others_are_refused():
    source = DrawingsSource(DrawingsConfig(num_rows=20))
    assert source.load("test")["image"][:] == source.load("test")["image"][:]
    assert not set(source.load("test")["image"]) & set(source.load("train")["image"])
    with pytest.raises(DataError, match="no split 'dev'"):
        source.load("dev")
