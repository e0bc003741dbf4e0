"""Answers about pictures do not depend on who shares their batch."""

from __future__ import annotations

import tiny_vision

from peftkit.scoring.generation import generation_config
from peftkit.scoring.pictures import answer
from peftkit.sources.drawings import DrawingsConfig, DrawingsSource
from peftkit.tasks.vision import ImageText, ImageTextConfig


def test_answers_are_the_same_alone_and_in_a_batch(tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tiny_vision.tiny_gemma3(tmp_path / "base")
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    rows = DrawingsSource(DrawingsConfig(num_rows=3, side=16)).load("train").to_list()
    rows[1]["question"] = "What is drawn here, and where is it?"
    questions = [ImageText(ImageTextConfig()).example(row).question() for row in rows]
    config = generation_config(
        {"max_new_tokens": 5}, processor.tokenizer, stop_ids=[processor.tokenizer.eos_token_id]
    )
    together = answer(model, processor, questions, config)
    alone = [answer(model, processor, [question], config)[0] for question in questions]
    assert together == alone
    assert len(together) == 3
