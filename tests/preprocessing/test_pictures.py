"""A row with pictures begins with its prompt, token by token, as generation is given it."""

from __future__ import annotations

import pytest
import tiny_vision

from peftkit.errors import DataError
from peftkit.plugins import PICTURE, Conversation, Pictured
from peftkit.preprocessing.pictures import encode_pictured, process, prompt_text, to_picture
from peftkit.sources.drawings import DrawingsConfig, DrawingsSource
from peftkit.tasks.vision import ImageText, ImageTextConfig


@pytest.fixture(scope="module")
def processor():
    return tiny_vision.tiny_processor()


@pytest.fixture(scope="module")
def example():
    row = DrawingsSource(DrawingsConfig(num_rows=1, side=16)).load("train")[0]
    return ImageText(ImageTextConfig()).example(row)


def test_the_prompt_s_tokens_are_the_row_s(processor, example):
    (row,) = encode_pictured([example], processor)[0]
    question = example.question()
    images = [[picture.open() for picture in question.pictures]]
    ids = process(processor, [prompt_text(question, processor)], images)["input_ids"][0]
    assert row["input_ids"][: len(ids)] == list(ids)
    assert row["labels"][: len(ids)] == [-100] * len(ids)
    assert row["labels"][len(ids)] == row["input_ids"][len(ids)]
    assert to_picture(row["images"][0]) == example.pictures[0]


def test_a_control_token_that_is_said_beside_a_picture_is_refused(processor, example):
    talk = Conversation(
        (
            {"role": "user", "content": f"{PICTURE}<start_of_image> what?"},
            {"role": "assistant", "content": "red"},
        )
    )
    found = encode_pictured([Pictured(talk, example.pictures)], processor)
    assert isinstance(found[0], DataError)
    assert "control token" in found[0].message
