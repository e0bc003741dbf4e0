"""Chat templates and tokens of other tools."""

from __future__ import annotations

from peftkit.importers.templates import put_template, put_tokens
from peftkit.plugins.imported import Draft, Fate
from peftkit.plugins.importer import Foreign


def test_the_tokenizers_own_template_is_implied():
    draft = Draft(Foreign("c.yaml", {"chat_template": "tokenizer_default"}))
    put_template(draft, "chat_template", "tokenizer_default")
    assert [one.fate for one in draft.fates] == [Fate.IMPLIED]


def test_tokens_without_a_value_are_implied():
    draft = Draft(Foreign("c.yaml", {"special_tokens": {"pad_token": None}}))
    put_tokens(draft, "special_tokens", "tokens")
    assert [one.fate for one in draft.fates] == [Fate.IMPLIED]
