"""Chat templates and tokens of other tools."""

from __future__ import annotations

import pytest

from peftkit.importers.templates import alpaca, put_template, put_tokens
from peftkit.plugins.imported import Draft, Fate
from peftkit.plugins.importer import Foreign


@pytest.mark.parametrize(
    ("name", "fate", "said"),
    [
        ("tokenizer_default", Fate.IMPLIED, None),
        ("chatml", Fate.KEPT, "chatml"),
        ("qwen", Fate.KEPT, "qwen2_5"),
        ("baichuan", Fate.DIFFERS, None),
    ],
)
def test_a_template_by_name(name, fate, said):
    draft = Draft(Foreign("c.yaml", {"template": name}))
    put_template(draft, "template", name)
    assert [one.fate for one in draft.fates] == [fate]
    assert draft.recipe.get("model", {}).get("chat_template") == said


def test_alpacas_prompt_is_that_of_the_paper_with_and_without_input():
    given = alpaca("q", "a", "i")["prompt_completion"]["prompt"]
    row = {"q": "Add.", "i": "1 2"}
    text = given.replace("{#i}", "").replace("{/i}", "").format(**row)
    assert text == (
        "Below is an instruction that describes a task, paired with an input that provides further"
        " context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    )
    bare = alpaca("q", "a", None)["prompt_completion"]["prompt"].format(q="Add.")
    assert bare == (
        "Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )


def test_tokens_that_are_set_and_added():
    special = {"eos_token": "<|im_end|>", "unk_token": None}
    draft = Draft(Foreign("c.yaml", {"special_tokens": special, "tokens": ["<|im_start|>"]}))
    put_tokens(draft, "special_tokens", "tokens")
    assert draft.recipe["model"] == {
        "special_tokens": {"eos_token": "<|im_end|>"}, "add_tokens": ["<|im_start|>"],
    }  # fmt: skip
    assert {one.fate for one in draft.fates} == {Fate.KEPT}
    empty = Draft(Foreign("c.yaml", {"special_tokens": {"pad_token": None}}))
    put_tokens(empty, "special_tokens", "tokens")
    assert [one.fate for one in empty.fates] == [Fate.IMPLIED]
