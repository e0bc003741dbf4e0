"""Chat templates and special tokens of other tools, as far as a recipe can say them."""

from __future__ import annotations

from typing import Any

from peftkit.plugins.imported import Draft
from peftkit.plugins.importer import Fate

_TOKENIZERS_OWN = ("tokenizer_default", "default", "empty", "inst")


def put_template(draft: Draft, key: str, name: Any, *, jinja: Any = None) -> None:
    """Say which chat template writes conversations."""
    if jinja:
        draft.say("chat_template_jinja", Fate.UNSUPPORTED, "write it into a file beside the recipe:"
                  " model.chat_template: FILE.jinja")  # fmt: skip
    if not name:
        return
    if str(name) in _TOKENIZERS_OWN:
        draft.say(key, Fate.IMPLIED, "the tokenizer's own chat template", value=name)
        return
    draft.say(key, Fate.DIFFERS, f"the tokenizer's own chat template writes conversations, which"
              f" may not be {name}: `peftkit data` shows it; model.chat_template takes a file",
              value=name)  # fmt: skip


def put_tokens(draft: Draft, special: str, added: str) -> None:
    """Say which tokens the config sets or adds."""
    stated = draft.get(special)
    if isinstance(stated, dict) and any(stated.values()):
        draft.say(special, Fate.UNSUPPORTED, "the tokenizer's own special tokens count; a padding"
                  " token is found by rule")  # fmt: skip
    elif stated is not None:
        draft.say(special, Fate.IMPLIED, "the tokenizer's own special tokens count")
    if draft.get(added):
        draft.say(added, Fate.UNSUPPORTED, "no token can be added to a base")
