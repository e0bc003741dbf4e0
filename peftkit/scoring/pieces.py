"""Write an answer while it is made: what is sure of its text, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from peftkit.scoring.answer_text import AnswerText

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class Pieces:
    """Take tokens from transformers' `generate` one by one and write what is sure of their text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: set[int], write: Callable[[str], None]
    ) -> None:
        self._text, self._stops, self._write = AnswerText(tokenizer), stops, write
        self._is_prompt = True
        self._ids: list[int] = []
        self._written = ""

    def put(self, value: Tensor) -> None:
        """Take the prompt first, then each new token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids += [token for token in value.flatten().tolist() if token not in self._stops]
        text = self._text.decode(self._ids)
        # A character may be spread over tokens, and trailing whitespace may turn out to be the end
        sure = text.rstrip("\ufffd").rstrip()
        if sure.startswith(self._written):
            self._emit(sure)

    def end(self) -> None:
        """Do nothing: `finish` knows the whole answer."""

    def finish(self, ids: Sequence[int]) -> str:
        """Write what is left of the whole answer, and return it."""
        text = self._text.decode(ids)
        self._emit(text)
        return text

    def _emit(self, text: str) -> None:
        if piece := text[len(self._written) :]:
            self._write(piece)
            self._written = text
