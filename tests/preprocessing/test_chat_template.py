"""A template renders what a row holds, on the day that is recorded, or says what it leaves out."""

from __future__ import annotations

import pytest
from dialogue_fixture import CHATML, TOOL, Templates, assistant, encode, trained, user

from peftkit.errors import DataError
from peftkit.plugins.rendering import Rendering


@pytest.fixture(scope="module")
def with_template(tmp_path_factory):
    return Templates(tmp_path_factory.mktemp("tokenizer"))


def test_what_a_template_does_not_render_is_refused_by_name(with_template):
    tokenizer = with_template(CHATML)
    with pytest.raises(
        DataError, match="message 1 has 'reasoning_content', which the chat templat"
    ):
        encode(tokenizer, user("a"), assistant("b", reasoning_content="c"))
    with pytest.raises(DataError, match="the row has tools, which the chat template does not"):
        encode(tokenizer, user("a"), assistant("b"), tools=(TOOL,))
    seeing = with_template(
        CHATML.replace("m['content']", "m['content'][0]['text']")
    )  # as templates of models that see images take it
    assert trained(encode(seeing, user("a"), assistant("b")), seeing) == "b<|im_end|>"


def test_today_is_the_day_that_is_recorded(with_template):
    tokenizer = with_template("{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML)
    for date, shown in (("2026-11-30", "30 Nov 2026"), ("2027-01-02", "02 Jan 2027")):
        row = encode(tokenizer, user("a"), assistant("b"), rendering=Rendering(date=date))
        assert tokenizer.decode(row["input_ids"]).startswith(f"{shown}\n<|im_start|>user")
