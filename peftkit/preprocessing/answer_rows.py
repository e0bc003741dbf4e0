"""Encode prompts with answers that are compared: each answer's tokens apart from its prompt's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins.rendering import PLAIN, Rendering
from peftkit.preprocessing.chat_template import NO_TEMPLATE, TemplateError
from peftkit.preprocessing.dialogue import Dialogue

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins.examples import Message

Answered = tuple[Sequence["Message"], Sequence[Sequence["Message"]]]
"""The messages of a prompt, and those of each answer to it."""
Parted = tuple[list[int], list[list[int]]]
"""Tokens of a prompt, and of each answer to it."""


def encode_answers(
    asked: Sequence[Answered],
    tokenizer: PreTrainedTokenizerBase,
    rendering: Rendering = PLAIN,
) -> list[Parted | DataError]:
    """Encode prompts with as many answers each, by the chat template.

    As in trl, an answer begins where one of them first differs from the prompt with the opening of
    an answer behind it: what the template writes on both sides of that is the prompt's.

    Raises:
        TemplateError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise TemplateError(
            "the tokenizer has no chat template, which tells a prompt from its answer",
            hint=NO_TEMPLATE,
        )
    dialogue = Dialogue(tokenizer, rendering)
    return [_encode(prompt, answers, dialogue) for prompt, answers in asked]


def _encode(
    prompt: Sequence[Message], answers: Sequence[Sequence[Message]], dialogue: Dialogue
) -> Parted | DataError:
    try:
        wholes = [dialogue.tokens([*prompt, *answer]) for answer in answers]
        return _part(dialogue.tokens(prompt, is_prompt=True), wholes)
    except TemplateError:
        raise
    except DataError as error:
        return error


def _part(prompt: list[int], wholes: list[list[int]]) -> Parted | DataError:
    if len(wholes) > 1 and wholes[0] == wholes[1]:
        return DataError("both answers are the same, so that none is the better one")
    num = min(_num_shared(prompt, whole) for whole in wholes)
    if not num:
        return DataError("the chat template renders nothing alike of a prompt and its answer")
    return prompt[:num], [whole[num:] for whole in wholes]


def _num_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    pairs = enumerate(zip(ids, others, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(ids), len(others)))
