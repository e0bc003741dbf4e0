"""Tokenizers with chat templates, and what is trained of a conversation by them."""

from __future__ import annotations

import re

import tiny

from peftkit.errors import DataError
from peftkit.plugins import Conversation
from peftkit.plugins.rendering import Rendering
from peftkit.plugins.rows import IGNORED
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


class Templates:
    """Make tiny tokenizers that know a template's special tokens."""

    def __init__(self, folder) -> None:
        self._folder = folder
        tiny.tiny_tokenizer(folder, None)

    def __call__(self, template: str, eos: str = "<|endoftext|>"):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._folder)
        tokens = sorted({*SPECIAL.findall(template), "<|im_start|>", "<|im_end|>", eos})
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
        tokenizer.eos_token, tokenizer.bos_token = eos, "<|system|>"
        tokenizer.chat_template = template
        return tokenizer


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str, **further) -> dict:
    return {"role": "assistant", "content": text, **further}


def trained(row: dict, tokenizer) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != IGNORED])


def encode(tokenizer, *messages, rendering=None, tools=()) -> dict:
    (row,) = Dialogue(tokenizer, rendering or Rendering()).encode(
        [Conversation(messages, tools, rendering or Rendering())]
    )
    if isinstance(row, DataError):
        raise row
    return row
