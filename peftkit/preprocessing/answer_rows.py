"""Encode prompts with answers that are compared: each answer's tokens apart from its prompt's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.preprocessing.chat_labels import TemplateError, encode_chats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins.examples import Message

Answered = tuple[Sequence["Message"], Sequence[Sequence["Message"]]]
"""The messages of a prompt, and those of each answer to it."""
Parted = tuple[list[int], list[list[int]]]
"""Tokens of a prompt, and of each answer to it."""


def encode_answers(
    asked: Sequence[Answered], tokenizer: PreTrainedTokenizerBase
) -> list[Parted | DataError]:
    """Encode prompts with as many answers each, by the chat template.

    As in trl, an answer begins where one of them first differs from the prompt with the opening of
    an answer behind it: what the template writes on both sides of that is the prompt's.

    Raises:
        TemplateError: the tokenizer has no chat template.
    """
    from jinja2.exceptions import TemplateError as JinjaError

    if not tokenizer.chat_template:
        raise TemplateError(
            "the tokenizer has no chat template, which tells a prompt from its answer",
            hint="an instruction-tuned model, or a template as `model.chat_template: FILE`",
        )
    try:
        prompts = encode_chats([_plain(prompt) for prompt, _ in asked], tokenizer, is_prompt=True)
        wholes = iter(
            encode_chats(
                [_plain([*prompt, *answer]) for prompt, answers in asked for answer in answers],
                tokenizer,
            )
        )
    except JinjaError as error:
        if len(asked) == 1:
            return [DataError(f"the chat template refuses the messages: {error}")]
        return [encode_answers([one], tokenizer)[0] for one in asked]
    return [
        _part(prompt, [next(wholes) for _ in answers])
        for prompt, (_, answers) in zip(prompts, asked, strict=True)
    ]


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


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [dict(message) for message in messages]
