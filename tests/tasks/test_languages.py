"""Codes are the tokenizer's own; what is missing, wrong or needless is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_heads

from peftkit.errors import UsageError


def test_a_tokenizer_without_codes_takes_none(tmp_path: Path) -> None:
    from peftkit.tasks.languages import set_languages

    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    set_languages(tokenizer, src_lang=None, tgt_lang=None, where="x")
    with pytest.raises(UsageError, match=r"^x.tgt_lang: the tokenizer .* has no codes"):
        set_languages(tokenizer, src_lang=None, tgt_lang="de", where="x")
