"""A new model that sees: what its tokenizer, processor and configuration agree on."""

from __future__ import annotations

import pytest
import tiny_vision
from PIL import Image

from peftkit.errors import UsageError
from peftkit.methods.vision_new import AROUND, config_options, make_processor


def test_tokens_of_a_picture_are_those_of_the_configuration():
    processor = tiny_vision.tiny_processor()
    options = config_options(processor.tokenizer, tiny_vision.CONFIG)
    picture = Image.new("RGB", (16, 16))
    made = processor(text=["<start_of_image>a"], images=[[picture]], add_special_tokens=False)
    ids = made["input_ids"][0]
    assert options["boi_token_index"] in ids
    assert list(ids).count(options["image_token_index"]) == processor.image_seq_length
    tokens = processor.tokenizer.convert_tokens_to_ids
    assert options["image_token_index"] == tokens(AROUND["image_token"])
    assert options["text_config"]["vocab_size"] == len(processor.tokenizer)
    assert processor.image_processor.size["height"] == 16
    assert processor.image_seq_length == 4


def test_a_shape_that_is_not_made_anew_names_the_one_that_is():
    processor = tiny_vision.tiny_processor()
    with pytest.raises(UsageError, match="gemma3"):
        make_processor(processor.tokenizer, {"model_type": "qwen2_5_vl"})
