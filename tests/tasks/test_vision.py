"""Rows with pictures: paths, bytes, datasets' own, and places in messages."""

from __future__ import annotations

import io

import pytest

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins import PICTURE
from peftkit.tasks.vision import ImageChat, ImageChatConfig, ImageText, ImageTextConfig
from peftkit.testing import check_task


def image(color: str = "red"):
    from PIL import Image

    return Image.new("RGB", (4, 4), color)


def png(color: str = "red") -> bytes:
    stream = io.BytesIO()
    image(color).save(stream, "PNG")
    return stream.getvalue()


def row(value) -> dict:
    return {"image": value, "question": "What is it?", "answer": "red"}


def test_the_contract_holds():
    rows = [row(png()), {**row(png("blue")), "answer": "blue"}]
    assert check_task(ImageText, {}, rows)["exact_match"] == 1


@pytest.mark.parametrize("kind", ["path", "bytes", "pillow", "dataset", "list"])
def test_a_picture_is_what_files_and_datasets_hold(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    held = {
        "path": "a.png", "bytes": png(), "pillow": image(),
        "dataset": {"bytes": png(), "path": None}, "list": [png(), png("blue")],
    }[kind]  # fmt: skip
    made = ImageText(ImageTextConfig(folder=tmp_path)).example(row(held))
    assert made.pictures[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert made.prompt[0]["content"] == PICTURE * len(made.pictures) + "What is it?"
    assert made.reference == "red"
    assert made.problem() == ""


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (None, EmptyValueError, "image has no picture"),
        ("gone.png", DataError, "there is no file"),
        ("https://example.org/a.png", DataError, "nothing is downloaded"),
        (3.5, DataError, "image is a number, not a picture"),
    ],
)
def test_what_is_no_picture_says_why(value, error, says):
    with pytest.raises(error, match=says):
        ImageText(ImageTextConfig()).example(row(value))


def chat(messages, images=None):
    return ImageChat(ImageChatConfig()).example({"messages": messages, "images": images})


ANSWER = {"role": "assistant", "content": "red"}


@pytest.mark.parametrize(
    ("content", "images"),
    [
        ([{"type": "image", "image": png()}, {"type": "text", "text": "What?"}], None),
        ([{"type": "image", "text": None}, {"type": "text", "text": "What?"}], [png()]),
        ("<image>What?", [png()]),
        ("What?", [png()]),
    ],
)
def test_pictures_of_messages_stand_where_they_are_shown(content, images):
    made = chat([{"role": "user", "content": content}, ANSWER], images)
    assert made.prompt[0]["content"] == f"{PICTURE}What?"
    assert [one.data for one in made.pictures] == [png()]


def test_places_and_pictures_that_do_not_match_are_refused():
    with pytest.raises(DataError, match="shows more pictures"):
        chat([{"role": "user", "content": "<image><image>What?"}, ANSWER], [png()])
    with pytest.raises(DataError, match="1 of images have no place"):
        chat([{"role": "user", "content": "<image>What?"}, ANSWER], [png(), png()])
