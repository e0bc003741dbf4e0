"""Tell which answers a vocabulary cannot write: their tokens, read back, are another text.

T5's has no braces: of a JSON answer it would train the unknown token in their place.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins.examples import Example

SHOWN_CHARACTERS = 6


def lost_characters(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[str | None]:
    """Return which characters of each answer are lost between text and tokens; None where none is.

    White space does not count, nor what Unicode holds for the same (NFKC), which vocabularies
    make equal. The characters are empty where the text changes but none of them is missing.
    """
    answers = [example.answer for example in examples]
    asked = [at for at, answer in enumerate(answers) if answer]
    found: list[str | None] = [None] * len(answers)
    if not asked:
        return found
    texts = [answers[at] for at in asked]
    encoded = tokenizer(text_target=texts, add_special_tokens=False, verbose=False)["input_ids"]
    for at, read in zip(asked, tokenizer.batch_decode(encoded), strict=True):
        before, after = _squash(answers[at]), _squash(read)
        if before != after:
            lost = dict.fromkeys(char for char in before if char not in after)
            found[at] = "".join(list(lost)[:SHOWN_CHARACTERS])
    return found


def _squash(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
