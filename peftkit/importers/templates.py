"""Chat templates and special tokens of other tools, as a recipe says them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peftkit.embedded.named_templates import template_names
from peftkit.plugins.imported import Draft, listed, mapped
from peftkit.plugins.importer import Fate

_TOKENIZERS_OWN = ("tokenizer_default", "inst", "auto", "self")
_SAME: Mapping[str, str] = {
    "default-chatml": "chatml",
    "empty": "plain",
    "gemma2": "gemma",
    "gemma_chatml": "chatml",
    "llama-3": "llama3",
    "llama3_2": "llama3",
    "mistral_v1": "mistral",
    "phi_3": "phi3",
    "phi_35": "phi3_5",
    "qwen": "qwen2_5",
    "qwen2": "qwen2_5",
    "qwen_25": "qwen2_5",
    "qwen2_vl": "qwen2_5_vl",
    "yi": "chatml",
}
"""Other tools' names for the templates that a recipe can name."""
ALPACA = (
    "Below is an instruction that describes a task{#input}, paired with an input that provides"
    " further context{/input}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{#input}### Input:\n{input}\n\n{/input}### Response:\n"
)
"""Stanford Alpaca's prompt; what is about the input vanishes where that is empty."""
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def alpaca(prompt: str, completion: str, context: str | None) -> dict[str, Any]:
    """Say rows of these columns as Alpaca's prompt and an answer."""
    text = ALPACA if context else re.sub(r"\{#input\}.*?\{/input\}", "", ALPACA, flags=re.DOTALL)
    names = {"instruction": prompt, "input": context or ""}
    text = re.sub(r"\{([#/]?)(instruction|input)\}",
                  lambda match: "{" + match[1] + names[match[2]] + "}", text)  # fmt: skip
    return {"prompt_completion": {"prompt": text, "completion": completion}}


def put_template(draft: Draft, key: str, name: Any, *, jinja: Any = None) -> None:
    """Say which chat template writes conversations."""
    if jinja:
        draft.say("chat_template_jinja", Fate.UNSUPPORTED, "write it into a file beside the recipe:"
                  " model.chat_template: FILE.jinja")  # fmt: skip
    if not isinstance(name, str) or not name:
        return
    named = _SAME.get(name, name)
    if name in _TOKENIZERS_OWN:
        draft.say(key, Fate.IMPLIED, "the tokenizer's own chat template", value=name)
    elif named in template_names():
        draft.put("model.chat_template", named)
        draft.say(key, Fate.KEPT, "model.chat_template", value=name)
    else:
        draft.say(key, Fate.DIFFERS, "the tokenizer's own chat template writes conversations, which"
                  f" may not be {name}: `peftkit data` shows it; model.chat_template takes a file",
                  value=name)  # fmt: skip


def put_tokens(draft: Draft, special: str, *added: str) -> None:
    """Say which tokens the config sets or adds."""
    stated = mapped(draft.get(special))
    named = {name: str(stated[name]) for name in _SPECIAL if isinstance(stated.get(name), str)}
    if named:
        draft.put("model.special_tokens", named)
        draft.say(special, Fate.KEPT, "model.special_tokens")
    tokens = [str(one) for one in listed(stated.get("additional_special_tokens"))]
    for key in added:
        more = [str(one) for one in listed(draft.get(key), separator=",")]
        tokens += [one for one in more if one not in tokens]
        if more:
            draft.say(key, Fate.KEPT, "model.add_tokens")
        draft.say(key, Fate.IMPLIED, "none are named")
    if tokens:
        draft.put("model.add_tokens", tokens)
        draft.say(special, Fate.KEPT, "model.add_tokens")
    draft.say(special, Fate.IMPLIED, "the tokenizer's own special tokens count")
