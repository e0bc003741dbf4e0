"""Turn conversations into what an encoder reads and what a decoder learns to write.

A tokenizer with a chat template renders the prompt with it, and the answer up to the token that
ends its turn is the target. Without one, the source is the prompt's text as the tokenizer encodes
it by itself, and the target is the answer with the end token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins.examples import Question
from peftkit.plugins.rendering import PLAIN, Rendering
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.chat_template import TemplateError
from peftkit.preprocessing.dialogue import Encoded, encode_dialogues, encode_question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins.examples import Conversation, Message


def encode_pairs(
    examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    """Encode questions as `input_ids` and their answers as `labels`, not yet cut.

    Returns: one entry an example, in order; a DataError for one that cannot be encoded.
    Raises:
        TemplateError: the tokenizer has no end token, or a chat template unfit for training.
    """
    problems = [_check(example.prompt) for example in examples]
    asked = [one for one, problem in zip(examples, problems, strict=True) if problem is None]
    encode = _encode_by_template if tokenizer.chat_template else _encode_plainly
    encoded = iter(encode(asked, tokenizer) if asked else ())
    return [next(encoded) if problem is None else problem for problem in problems]


def encode_source(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    rendering: Rendering = PLAIN,
) -> list[int]:
    """Encode what is asked, as `encode_pairs` does.

    Raises:
        DataError: the messages hold an earlier answer, which an encoder never saw in training.
    """
    problem = _check(messages)
    if problem is not None:
        raise problem
    if tokenizer.chat_template:
        return encode_question(Question(messages=tuple(messages), rendering=rendering), tokenizer)
    ids: list[int] = tokenizer(_text(messages), verbose=False)["input_ids"]
    return ids


def num_closing(encode: Callable[[str], Sequence[int]]) -> int:
    """Count the tokens that follow a text whatever it is: the end token, or a template's own.

    Args:
        encode: from a text to all of its tokens.
    """
    num_equal = 0
    for left, right in zip(reversed(encode("a")), reversed(encode("0")), strict=False):
        if left != right:
            break
        num_equal += 1
    return num_equal


def cut_before_closing(ids: list[int], max_tokens: int, closing: int) -> list[int]:
    """Cut tokens that are too many at the end of their text, what closes it kept."""
    if len(ids) <= max_tokens:
        return ids
    if closing >= max_tokens:
        return ids[-max_tokens:]
    return ids[: max_tokens - closing] + ids[len(ids) - closing :]


def source_closing(tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the tokens that close every source."""
    return num_closing(lambda text: encode_source([{"role": "user", "content": text}], tokenizer))


def _check(prompt: Sequence[Message]) -> DataError | None:
    if any(message["role"] == "assistant" for message in prompt):
        return DataError("the row has several turns, and an encoder-decoder reads one question")
    return None


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages)


def _encode_plainly(
    examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    eos = tokenizer.eos_token_id
    if eos is None:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no end token, so the"
            " model would never learn to stop",
            hint="name one as eos_token in its tokenizer_config.json",
        )
    sources = tokenizer([_text(example.prompt) for example in examples], verbose=False)["input_ids"]
    answers = [example.reference for example in examples]
    targets = tokenizer(text_target=answers, verbose=False)["input_ids"]
    closing = num_closing(lambda text: tokenizer(text_target=text, verbose=False)["input_ids"])
    # mBART closes with the end token and then the language, which its decoder reads first
    end = [] if any(eos in target[len(target) - closing :] for target in targets) else [eos]
    return [
        {"input_ids": source, "labels": [*target, *end]}
        for source, target in zip(sources, targets, strict=True)
    ]


def _encode_by_template(
    examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    rows = encode_dialogues(examples, tokenizer)
    return [row if isinstance(row, DataError) else _part(row) for row in rows]


def _part(row: Encoded) -> Encoded:
    """Cut a rendered conversation where its one answer begins and where its turn ends."""
    start = next(at for at, label in enumerate(row["labels"]) if label != IGNORED)
    target = [label for label in row["labels"] if label != IGNORED]
    return {"input_ids": row["input_ids"][:start], "labels": target}
