"""Turn conversations and texts into tokens and labels: what is trained, what is only read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins.examples import Conversation, Message
from peftkit.preprocessing.chat_template import TemplateError
from peftkit.preprocessing.dialogue import Dialogue, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoded", "TemplateError"]


def encode_conversation(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return `input_ids` and `labels` of one conversation; every assistant turn is trained.

    Raises:
        TemplateError: the chat template is missing, or unfit for training.
        DataError: this conversation cannot be encoded.
    """
    (encoded,) = encode_conversations([messages], tokenizer)
    if isinstance(encoded, DataError):
        raise encoded
    return encoded


def encode_conversations(
    conversations: Sequence[Sequence[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    """Encode many conversations of plain messages, as a recipe without `data.dialogue` does.

    Returns: one entry a conversation, in order; a DataError for one that cannot be encoded.
    Raises:
        TemplateError: the chat template is missing, or unfit for training.
    """
    return Dialogue(tokenizer).encode([Conversation(tuple(one)) for one in conversations])


def encode_chats(
    chats: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_prompt: bool = False,
) -> list[list[int]]:
    """Render and encode conversations by the chat template.

    Args:
        is_prompt: whether the opening of an answer follows.
    """
    dialogue = Dialogue(tokenizer)
    return [dialogue.tokens(chat, is_prompt=is_prompt) for chat in chats]


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return `input_ids` and `labels` of running text: every token is trained, the last is EOS."""
    return encode_texts([text], tokenizer)[0]


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Encode many texts, several times as fast as one by one."""
    if not texts:
        return []
    rows: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
    eos = tokenizer.eos_token_id
    for ids in rows:
        if eos is not None and (not ids or ids[-1] != eos):
            ids.append(eos)
    return [{"input_ids": ids, "labels": list(ids)} for ids in rows]


def has_double_bos(input_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a row opens with two BOS tokens: one written in the text, one added."""
    bos = tokenizer.bos_token_id
    return bos is not None and len(input_ids) > 1 and input_ids[0] == bos == input_ids[1]
