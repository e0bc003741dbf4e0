"""Prompts and answers are parted where trl parts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_templates import CHATML, DEFAULT_SYSTEM, FORGETS_THOUGHTS, SYSTEM_IN_FIRST_USER
from preference_fixture import conversations, examples

from peftkit.errors import DataError
from peftkit.preprocessing.answer_rows import encode_answers


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize(
    "template", [None, CHATML, DEFAULT_SYSTEM, FORGETS_THOUGHTS, SYSTEM_IN_FIRST_USER]
)
def test_tokens_are_those_of_trl(template: str | None, tokenizer: Any) -> None:
    """trl's own preparation of the same conversations, whatever the template writes around."""
    from trl.data_utils import _tokenize, common_prefix_length

    own = tokenizer.chat_template
    tokenizer.chat_template = template or own
    try:
        made = examples()
        found = encode_answers(
            [(one.messages, (one.chosen, one.rejected)) for one in made], tokenizer
        )
        for parted, row in zip(found, conversations(), strict=True):
            prompt = _tokenize(tokenizer, row["prompt"], add_generation_prompt=True)["input_ids"]
            wholes = [
                _tokenize(tokenizer, row["prompt"] + row[name])["input_ids"]
                for name in ("chosen", "rejected")
            ]
            num = min(common_prefix_length(prompt, whole) for whole in wholes)
            assert parted == (prompt[:num], [whole[num:] for whole in wholes])
    finally:
        tokenizer.chat_template = own


def test_one_row_that_the_template_refuses_leaves_the_others(tokenizer: Any) -> None:
    own = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + own
    )
    try:
        asked, answer = {"role": "user", "content": "a"}, ({"role": "assistant", "content": "b"},)
        refused = ({"role": "system", "content": "s"}, asked)
        first, second = encode_answers([(refused, [answer]), ([asked], [answer])], tokenizer)
    finally:
        tokenizer.chat_template = own
    assert isinstance(first, DataError) and "no system" in first.message
    assert not isinstance(second, DataError)
