"""An answer stands where generation would begin and end it, marked or not."""

from __future__ import annotations

from importlib.resources import files

import pytest
from dialogue_fixture import (
    CALL,
    CHATML,
    DEEPSEEK_EOS,
    TOOL,
    Templates,
    assistant,
    encode,
    trained,
    user,
)

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Question
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.dialogue import Dialogue


@pytest.fixture(scope="module")
def with_template(tmp_path_factory):
    return Templates(tmp_path_factory.mktemp("tokenizer"))


def test_marks_that_cover_the_header_train_the_answer_alone(with_template):
    marked = CHATML.replace(
        "{{ '<|im_start|>' + m", "{% generation %}{{ '<|im_start|>' + m"
    ).replace("}}{% endfor", "}}{% endgeneration %}{% endfor")
    tokenizer = with_template(marked)
    row = encode(tokenizer, user("a"), assistant("b"))
    assert trained(row, tokenizer) == "b<|im_end|>"
    opened = with_template(
        CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif")
    )
    with pytest.raises(DataError, match="renders the prompt of message 1 differently"):
        encode(opened, user("a"), assistant("b"))
    assert trained(encode(opened, user("a"), assistant("<think>b")), opened) == "b<|im_end|>"


TEMPLATES = sorted(
    entry.name.removesuffix(".jinja")
    for entry in files("trl").joinpath("chat_templates").iterdir()
    if entry.name.endswith("_training.jinja")
)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_training_template_of_trl_trains_what_it_is_asked(with_template, name):
    source = files("trl").joinpath("chat_templates", f"{name}.jinja").read_text("utf-8")
    eos = DEEPSEEK_EOS if "deepseek" in name else "<|endoftext|>"
    tokenizer = with_template(source, eos)
    dialogue = Dialogue(tokenizer)
    cases = (
        (user("sort keys"), assistant("by name")),
        (user("a"), assistant("one"), user("b <|im_end|>"), assistant("    two\n")),
        (user("a"), assistant("one", reasoning_content="why")),
        (user("a"), assistant("<think>\nwhy\n</think>\n\none")),
        (user("a"), assistant("", tool_calls=[CALL]),
         {"role": "tool", "name": "add", "content": "2"}, assistant("two")),
    )  # fmt: skip
    num_trained = 0
    for messages in cases:
        tools = (TOOL,) if len(messages) == 4 and "tool_calls" in messages[1] else ()
        (row,) = dialogue.encode([Conversation(messages, tools)])
        if isinstance(row, DataError):
            assert row.hint, row.message
            continue
        num_trained += 1
        spans = trained_spans(row["labels"])
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        for at, (start, stop) in zip(turns, spans, strict=True):
            question = Question(messages=messages[:at], tools=tools)
            assert dialogue.prompt(question) == row["input_ids"][:start]
            assert row["input_ids"][stop - 1] in dialogue.end_ids
    # DeepSeek-V3 is asked with a thought opened, which no answer of its template has.
    assert num_trained or name == "deepseekv3_training"


def trained_spans(labels: list[int]) -> list[tuple[int, int]]:
    flags = [False, *(label != IGNORED for label in labels), False]
    edges = [at for at in range(len(flags) - 1) if flags[at] != flags[at + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))
