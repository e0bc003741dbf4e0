"""Find what a recipe says of tokens that its model or its adapter cannot do."""

from __future__ import annotations

import re

from peftkit.errors import UsageError
from peftkit.plugins import find
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.stated import Found, Stated
from peftkit.recipe.strict import suggest

ROWS = "trainable_token_indices"
"""PEFT's option that trains single rows of an embedding."""


def _new_model(stated: Stated) -> Found:
    model = stated.model
    if model is None or model.config is None:
        return
    for name in ("add_tokens", "special_tokens", "chat_template"):
        if getattr(model, name):
            yield f"model.{name}", "belongs to a base", "delete it: a new tokenizer is trained"
    if model.tokenizer is not None and model.tokenizer.name == "path":
        yield "model.tokenizer.path", "belongs to a base", "write model.tokenizer: {bpe: {}}"


def _untrained(stated: Stated) -> Found:
    """Find new tokens whose rows an adapter cannot train."""
    model, choice = stated.model, stated.adapter.choice if stated.adapter else None
    if model is None or choice is None or not model.add_tokens:
        return
    try:
        config = find("adapters", choice.name).Config
        options = signature_of(config).options if config else {ROWS: None}
    except UsageError:
        return
    if ROWS not in options and not choice.options.get("modules_to_save"):
        saves = "modules_to_save" in options
        yield (
            "model.add_tokens",
            f"{choice.name} cannot train the rows of new tokens",
            "use lora or adapter: full" + (", or modules_to_save: [embed_tokens]" if saves else ""),
        )


def _no_rows(stated: Stated) -> Found:
    """Find single rows that are to be trained, and none is named: PEFT fails at the first step."""
    choice = stated.adapter.choice if stated.adapter else None
    if choice is not None and choice.options.get(ROWS) in ([], {}):
        yield f"adapter.{choice.name}.{ROWS}", "names no token", "delete it"


ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")


def _attention(stated: Stated) -> Found:
    """Find an attention that transformers does not have; a kernel's name has a slash."""
    asked = stated.model.attn_implementation if stated.model else None
    if not isinstance(asked, str):  # of another kind, which the gate has said
        return
    if asked in ATTENTION or re.search(r"[/|:]|^flash_attention_\d", asked):
        return
    what = "sdpa computes the same" if asked in ("xformers", "flash", "memory_efficient") else ""
    yield (
        "model.attn_implementation",
        f"transformers has no {asked!r}",
        (what and f"write sdpa: {what}") or suggest(asked, ATTENTION) or f"{', '.join(ATTENTION)}",
    )


RULES = (_new_model, _untrained, _no_rows, _attention)
