"""What a model reads with is loaded once: one tokenizer, one template."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_vision

from peftkit.errors import PeftkitError
from peftkit.models.reader import load_reader
from peftkit.plugins import CAUSAL_LM, IMAGE_TEXT_TO_TEXT
from peftkit.recipe.schema import ModelSection


def method(kind):
    return SimpleNamespace(kind=kind, processor=None)


def test_a_processor_has_the_tokenizer_and_its_template(tmp_path):
    folder = tiny_vision.tiny_gemma3(tmp_path / "base")
    seeing = method(IMAGE_TEXT_TO_TEXT)
    tokenizer = load_reader(ModelSection(path=str(folder)), tmp_path, seeing)
    assert seeing.processor.tokenizer is tokenizer
    assert seeing.processor.chat_template == tokenizer.chat_template
    assert "image" in tokenizer.chat_template


def test_a_kind_that_reads_text_gets_none(tiny_model, tmp_path):
    reading = method(CAUSAL_LM)
    assert load_reader(ModelSection(path=str(tiny_model)), tmp_path, reading)
    assert reading.processor is None
    with pytest.raises(PeftkitError):
        load_reader(ModelSection(path=str(tiny_model)), tmp_path, method(IMAGE_TEXT_TO_TEXT))
