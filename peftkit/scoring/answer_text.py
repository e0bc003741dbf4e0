"""Give an answer's text as it was trained, the same for scores, samples and the screen.

Special tokens that tokenizer or chat template write around every text are structure, and hidden.
Any other one stands in the answer because rows had it there (`<sql>`, a tool call's mark): hiding
it would compare half an answer with the whole reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from peftkit.system.templates import RefusedByTemplateError, render_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AnswerText:
    """Decode answers of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._structure = structure_ids(tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's tokens, outer white space apart."""
        kept = [token for token in ids if token not in self._structure]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=False)
        return text.strip()


def structure_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the special tokens around every text, and those that pad, begin or end one."""
    written: list[int] = [
        *tokenizer("a", verbose=False)["input_ids"],
        *tokenizer(text_target="a", verbose=False)["input_ids"],
    ]
    if tokenizer.chat_template:
        written += _around_turns(tokenizer)
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
    named = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    found = (special & set(written)) | (named - {None})
    return frozenset(found - {tokenizer.unk_token_id})


def _around_turns(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    written: list[int] = []
    for roles in (("user",), ("user", "assistant"), ("system", "user")):
        turns = [{"role": role, "content": "a"} for role in roles]
        with suppress(RefusedByTemplateError):  # Gemma's refuses a system message
            written += render_template(
                tokenizer, turns, add_generation_prompt=roles[-1] == "user", return_dict=True
            )["input_ids"]
    return written
