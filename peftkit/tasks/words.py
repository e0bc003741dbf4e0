"""Cut texts of any script into words, and say which of sacrebleu's tokenizers fits one.

rouge-score's own tokenizer knows the letters a-z and digits alone: to it every Greek text is empty
and `Größe` is `Grüße`. On text in those letters, this one gives exactly its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

_UNSPACED = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)  # fmt: skip
"""Thai and Lao, Tibetan, Burmese, Khmer, kana, Han: scripts that put no space between words."""
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_KANA = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F))
_ASCII = re.compile(r"[a-z0-9]+")
"""The words that rouge-score knows, and stems."""


def words(text: str) -> list[str]:
    """Return a text's words in lower case, as ROUGE counts them, not stemmed.

    A word is letters, digits and the marks on them; where a script puts no spaces, it is one
    character with its marks.
    """
    found: list[str] = []
    is_open = False
    for char in unicodedata.normalize("NFC", text).lower():
        kind = _kind(char)
        if kind == "mark" and (is_open or (found and _is_unspaced(found[-1][0]))):
            found[-1] += char
        elif kind == "unspaced":
            found.append(char)
            is_open = False
        elif kind in ("letter", "mark"):
            if is_open:
                found[-1] += char
            else:
                found.append(char)
            is_open = True
        else:
            is_open = False
    return found


def rouge_tokenizer() -> Any:
    """Return `words`, with the Porter stemmer on those of a-z, as rouge-score takes a tokenizer."""
    return _tokenizer_class()()


def split_unspaced(text: str) -> list[str]:
    """Split at whitespace, and each character of an unspaced script from its neighbours."""
    parts: list[str] = []
    for word in text.split():
        if any(_is_unspaced(char) for char in word):
            parts += words(word) or [word]
        else:
            parts.append(word)
    return parts


def bleu_tokenizer(references: Sequence[str]) -> str:
    """Name the tokenizer of sacrebleu that fits most of the references' letters.

    Only ones that need no download: `13a` where words have spaces, `zh` for Chinese, and `char`
    for Japanese, Thai and the other scripts without spaces.
    """
    num_letters = num_unspaced = num_han = num_kana = 0
    for char in _characters(references):
        if _kind(char) in ("letter", "unspaced"):
            num_letters += 1
            num_unspaced += _is_unspaced(char)
            num_han += _within(char, _HAN)
            num_kana += _within(char, _KANA)
    if 2 * num_unspaced <= num_letters:
        return "13a"
    is_chinese = 2 * num_han > num_unspaced and 20 * num_kana < num_han
    return "zh" if is_chinese else "char"


def _characters(texts: Iterable[str]) -> Iterable[str]:
    return (char for text in texts for char in text)


@lru_cache(maxsize=65536)
def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if category[0] == "M":
        return "mark"
    if not char.isalnum():
        return "other"
    return "unspaced" if _is_unspaced(char) else "letter"


@lru_cache(maxsize=65536)
def _is_unspaced(char: str) -> bool:
    return _within(char, _UNSPACED)


def _within(char: str, ranges: Sequence[tuple[int, int]]) -> bool:
    code = ord(char)
    return any(first <= code <= last for first, last in ranges)


@cache
def _tokenizer_class() -> type:
    """Extend rouge-score's Tokenizer, imported only when asked for."""
    from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

    class WordTokenizer(Tokenizer):  # type: ignore[misc]  # rouge_score is untyped
        """Give the words of any script."""

        def __init__(self) -> None:
            self._own = lru_cache(maxsize=65536)(DefaultTokenizer(use_stemmer=True).tokenize)

        def tokenize(self, text: str) -> list[str]:
            """Return the words, stemmed where rouge-score would stem them."""
            found: list[str] = []
            for word in words(text):
                found += self._own(word) if _ASCII.fullmatch(word) else [word]
            return found

    return WordTokenizer
