"""What is said to be kept of LLaMA-Factory's templates is kept to the character.

`llamafactory_texts.json` is what LLaMA-Factory 0.9.5 itself made of three conversations
(`benchmarks/same_tokens/llamafactory_texts.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dialogue_fixture import Templates, encode, trained
from imported import fates, imported, recipe_of

from peftkit.embedded.named_templates import named_templates
from peftkit.errors import DataError
from peftkit.plugins import Fate
from peftkit.plugins.examples import with_system
from peftkit.plugins.rendering import Rendering

RECORD = json.loads(Path(__file__).with_name("llamafactory_texts.json").read_text("utf-8"))
BASE = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\ndataset: mine\n"


@pytest.fixture(scope="module")
def with_template(tmp_path_factory):
    return Templates(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", sorted(RECORD["texts"]))
def test_a_template_is_kept_or_said_to_differ(tmp_path, with_template, name):
    written = imported(tmp_path, f"{BASE}template: {name}\n")
    recipe = recipe_of(written)
    source = named_templates()[recipe["model"]["chat_template"]].source
    tokenizer = with_template(source, RECORD["eos_token"])
    tokenizer.bos_token = None  # as LLaMA-Factory's had none
    rendering = Rendering(system=recipe["data"].get("dialogue", {}).get("system"))
    same = all(
        _ours(tokenizer, chat, rendering) == ("".join(map("".join, pairs)), answers)
        for chat, pairs in zip(RECORD["chats"], RECORD["texts"][name], strict=True)
        for answers in ["".join(answer for _, answer in pairs)]
    )
    assert same == (fates(written)["template"] is Fate.KEPT)


def _ours(tokenizer, chat, rendering):
    """Return the text of a conversation, and what of it is trained."""
    messages = [{"role": role, "content": text} for role, text in chat]
    try:
        told = with_system(messages, rendering.system)
        row = encode(tokenizer, *told)
    except DataError:
        return "", ""
    return tokenizer.decode(row["input_ids"]), trained(row, tokenizer)
