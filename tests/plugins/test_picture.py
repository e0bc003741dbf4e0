"""A picture is read when it is looked at, and says what is wrong with its file."""

from __future__ import annotations

import io

import pytest

from peftkit.errors import DataError
from peftkit.plugins import Picture


def png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, "PNG")
    return stream.getvalue()


def test_what_cannot_be_read_says_what():
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        Picture(path="gone.png").read()
    with pytest.raises(DataError, match="a picture of 3 bytes is none that can be read"):
        Picture(data=b"abc").open()
    assert Picture(png()).open().size == (4, 4)
