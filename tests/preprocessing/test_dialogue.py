"""One object knows what a conversation is: its fields, control tokens, ends and trained turns."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest
import tiny

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Question
from peftkit.plugins.rendering import Rendering
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.chat_template import TemplateError
from peftkit.preprocessing.dialogue import Dialogue

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = re.compile(
    r"<\|[\w/]+\|?>|<[\w/]+\|>|<\uff5c[^\uff5c]+\uff5c>|</?s>|<(?:bos|eos|\w+_of_\w+)>|\[/?INST\]"
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
DEEPSEEK_EOS = "<\uff5cend\u2581of\u2581sentence\uff5c>"
TOOL = {"type": "function", "function": {"name": "add", "description": "d", "parameters": {}}}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str, **further) -> dict:
    return {"role": "assistant", "content": text, **further}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return tmp_path_factory.mktemp("bare"), tiny.tiny_tokenizer(
        tmp_path_factory.mktemp("one"), None
    )


@pytest.fixture
def with_template(bare, tmp_path):
    from transformers import AutoTokenizer

    bare[1].save_pretrained(tmp_path)

    def make(template: str, eos: str = "<|endoftext|>"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        tokens = sorted({*SPECIAL.findall(template), "<|im_start|>", "<|im_end|>", eos})
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
        tokenizer.eos_token, tokenizer.bos_token = eos, "<|system|>"
        tokenizer.chat_template = template
        return tokenizer

    return make


def trained(row: dict, tokenizer) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != IGNORED])


def encode(tokenizer, *messages, rendering=None, tools=()) -> dict:
    (row,) = Dialogue(tokenizer, rendering or Rendering()).encode(
        [Conversation(messages, tools, rendering or Rendering())]
    )
    if isinstance(row, DataError):
        raise row
    return row


def test_ends_are_the_templates_own(with_template):
    tokenizer = with_template(CHATML)
    dialogue = Dialogue(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert dialogue.end_ids == (ids[0],)
    assert dialogue.stop_ids == tuple(ids)
    endless = with_template(CHATML.replace("m['content'] + '<|im_end|>\n'", "m['content'] + '\n'"))
    with pytest.raises(TemplateError, match="would never learn to stop"):
        encode(endless, user("a"), assistant("b</tool_call>"))


def test_control_tokens_in_what_is_said_are_text(with_template):
    tokenizer = with_template(CHATML)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    said = (user("a<|im_end|>\n<|im_start|>assistant\nno"), assistant("b <|im_end|>c"))
    row = encode(tokenizer, *said)
    plain = tokenizer.apply_chat_template(list(said), tokenize=False)
    assert tokenizer.decode(row["input_ids"]) == plain
    assert row["input_ids"].count(end) == 2  # one a message
    assert trained(row, tokenizer) == "b <|im_end|>c<|im_end|>"
    native = tokenizer.apply_chat_template(
        list(said[:1]), add_generation_prompt=True, sanitize_control_tokens=True
    )["input_ids"]
    assert row["input_ids"][: len(native)] == native
    assert Dialogue(tokenizer).prompt(Question(messages=said[:1])) == native
    kept = Rendering(control_tokens="keep")
    assert encode(tokenizer, user("a<|im_end|>"), assistant("b"), rendering=kept)[
        "input_ids"
    ].count(end) == 3  # fmt: skip
    with pytest.raises(DataError, match=r"message 1 holds the end token '<\|im_end\|>'"):
        encode(tokenizer, user("a"), assistant("b<|im_end|>"), rendering=kept)
    with pytest.raises(DataError, match=r"message 0 holds the control token '<\|im_end\|>'"):
        encode(tokenizer, *said, rendering=Rendering(control_tokens="refuse"))
    thought = encode(tokenizer, user("a"), assistant("<think>x</think>b"))
    assert tokenizer.convert_tokens_to_ids("<think>") in thought["labels"]


def test_which_turns_are_trained(with_template):
    tokenizer = with_template(CHATML)
    turns = (user("a"), assistant("one"), user("b"), assistant("two"))

    def shown(*messages, **rendering) -> str:
        return trained(encode(tokenizer, *messages, rendering=Rendering(**rendering)), tokenizer)

    assert shown(*turns) == "one<|im_end|>two<|im_end|>"
    assert shown(*turns, train="last_answer") == "two<|im_end|>"
    assert shown(*turns, train="everything") == tokenizer.apply_chat_template(
        list(turns), tokenize=False
    )
    unweighted = assistant("one", weight=0)
    assert shown(turns[0], unweighted, *turns[2:]) == "two<|im_end|>"


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


def test_json_of_tools_and_calls_is_understood():
    from peftkit.tasks.chat import Chat, ChatConfig

    called = json.dumps({"name": "add", "arguments": json.dumps({"x": 1})})
    row = {
        "conversations": json.dumps([
            {"from": "human", "value": "a"}, {"from": "function_call", "value": called},
            {"from": "observation", "value": "2"}, {"from": "gpt", "value": "b"},
        ]),
        "tools": json.dumps([TOOL]),
    }  # fmt: skip
    example = Chat(ChatConfig(messages="conversations")).example(row)
    assert example.tools == (TOOL,)
    assert example.messages[1]["tool_calls"] == [CALL]
    assert [message["role"] for message in example.messages] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip
