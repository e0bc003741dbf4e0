"""Pictures and conversations about them, as the house asks of any example."""

from __future__ import annotations

import io

from peftkit.plugins import PICTURE, Conversation, Picture, Pictured


def png(color: str = "red") -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def example(*pictures: Picture, text: str = f"{PICTURE}What is it?") -> Pictured:
    talk = Conversation(
        ({"role": "user", "content": text}, {"role": "assistant", "content": "a colour"})
    )
    return Pictured(talk, pictures)


def test_two_rows_that_differ_in_the_picture_alone_ask_different_things(tmp_path):
    red, blue = Picture(png("red")), Picture(png("blue"))
    file = tmp_path / "red.png"
    file.write_bytes(png("red"))
    assert example(red).asked != example(blue).asked
    assert example(red).asked == example(Picture(path=str(file))).asked
    assert example(red).question().pictures == (red,)
    assert example(red).sample()["prompt"] == "[picture] What is it?"


def test_pictures_and_their_places_must_match():
    assert example(Picture(png())).problem() == ""
    assert example().problem() == "has 0 pictures and 1 places for them"
