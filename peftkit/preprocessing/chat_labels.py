"""Turn conversations and texts into tokens and labels: what is trained, what is only read.

A conversation's mask comes from the chat template's own `{% generation %}` marks. Where it has
none, the mask is derived turn by turn: the prompt before an answer (with the generation prompt)
and the conversation up to the answer must both be prefixes of the whole, so that training sees
exactly what generation will see. A template for which that does not hold is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins.rows import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
Encoded = dict[str, list[int]]

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_WAY_OUT = "give a template that does, as `model.chat_template: FILE`"


class TemplateError(DataError):
    """Raised when no row can be encoded, because of the chat template and not of the row."""


def encode_conversation(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return `input_ids` and `labels` of one conversation; every assistant turn is trained.

    The token that ends a turn is trained with it, or the model would never learn to stop.

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
    """Encode many conversations, several times as fast as one by one.

    Returns: one entry a conversation, in order; a DataError for one that cannot be encoded.
    Raises:
        TemplateError: the chat template is missing, or unfit for training.
    """
    chats = [[dict(message) for message in messages] for messages in conversations]
    marked = _has_generation_marks(tokenizer)
    encode = _encode_by_marks if marked else _encode_by_prefix
    try:
        spans = encode(chats, tokenizer)
    except _jinja_error() as error:
        if len(chats) == 1:
            return [DataError(f"the chat template refuses the messages: {error}")]
        return [encode_conversations([chat], tokenizer)[0] for chat in chats]
    turn_ends = _TurnEnds(tokenizer)
    return [
        entry if isinstance(entry, DataError) else _label(chat, *entry, turn_ends)
        for chat, entry in zip(chats, spans, strict=True)
    ]


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


def _has_generation_marks(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.chat_template:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template",
            hint="choose an instruction-tuned model, or give a template as"
            " `model.chat_template: FILE`",
        )
    return bool(tokenizer.is_fast and _GENERATION.search(tokenizer.get_chat_template()))


def _jinja_error() -> type[Exception]:
    from jinja2.exceptions import TemplateError as JinjaError

    return JinjaError


Spans = list[tuple[int, int]]
"""Half-open token ranges, one for each trained turn."""


def _encode_by_marks(
    chats: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[int], Spans] | DataError]:
    encoded = tokenizer.apply_chat_template(
        chats,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"verbose": False},
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return [(ids, _runs(mask)) for ids, mask in pairs]


def _runs(mask: Sequence[int]) -> Spans:
    """Find the runs of ones, by searching bytes: a loop would take a third of the encoding."""
    flags = bytes(mask) + b"\0"
    spans, start = [], flags.find(1)
    while start >= 0:
        stop = flags.find(0, start)
        spans.append((start, stop))
        start = flags.find(1, stop)
    return spans


def _encode_by_prefix(
    chats: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[int], Spans] | DataError]:
    turns = [
        (number, at)
        for number, chat in enumerate(chats)
        for at, message in enumerate(chat)
        if message["role"] == "assistant" and at > 0
    ]
    turn_ends = _TurnEnds(tokenizer)
    wholes = encode_chats(chats, tokenizer)
    prompts = encode_chats([chats[n][:at] for n, at in turns], tokenizer, is_prompt=True)
    earlier = [(n, at) for n, at in turns if at + 1 < len(chats[n])]
    upto = dict(
        zip(
            earlier, encode_chats([chats[n][: at + 1] for n, at in earlier], tokenizer), strict=True
        )
    )
    found: list[tuple[list[int], Spans] | DataError] = [(ids, []) for ids in wholes]
    for (number, at), prompt in zip(turns, prompts, strict=True):
        entry = found[number]
        if isinstance(entry, DataError):
            continue
        whole, spans = entry
        start, end = len(prompt), upto.get((number, at), whole)
        stop = _shared(whole, end)
        is_end_known = stop == len(end) or turn_ends.find(whole, start, stop) is not None
        if whole[:start] == prompt and stop > start and is_end_known:
            spans.append((start, stop))
        else:
            found[number] = _explain_no_prefix(chats[number], at, tokenizer)
    return found


def _shared(whole: list[int], part: list[int]) -> int:
    """Return how many tokens two lists begin with in common.

    Some templates close a conversation with a token of its own (Phi-3's `<|endoftext|>`), which
    stands after the last turn only, so that a shorter conversation is no prefix in whole.
    """
    if whole[: len(part)] == part:
        return len(part)
    pairs = enumerate(zip(whole, part, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), len(whole))


def encode_chats(
    chats: list[list[dict[str, str]]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_prompt: bool = False,
) -> list[list[int]]:
    """Render and encode conversations by the chat template.

    Args:
        is_prompt: whether the opening of an answer follows.
    """
    if not chats:
        return []
    ids: list[list[int]] = tokenizer.apply_chat_template(
        chats,
        add_generation_prompt=is_prompt,
        return_dict=True,
        tokenizer_kwargs={"verbose": False},
    )["input_ids"]
    return ids


def _explain_no_prefix(
    chat: list[dict[str, str]], at: int, tokenizer: PreTrainedTokenizerBase
) -> DataError:
    """Tell a template that rewrites earlier turns from a row whose answer joins the prompt."""

    def render(messages: list[dict[str, str]], *, is_prompt: bool = False) -> str:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=is_prompt
        )
        return text

    whole = render(chat)
    if not whole.startswith(render(chat[:at], is_prompt=True)):
        raise TemplateError(
            "the chat template has no {% generation %} marks and renders the prompt of message"
            f" {at} differently once the answer follows, so its trained tokens are unknown",
            hint=f"mark the assistant's turns with {{% generation %}}: {_WAY_OUT}"
            " (trl/chat_templates holds ones for many models)",
        )
    if not whole.startswith(render(chat[: at + 1])):
        raise TemplateError(
            "the chat template has no {% generation %} marks and renders the answer in message"
            f" {at} differently once more turns follow, so its trained tokens are unknown",
            hint=f"mark the assistant's turns with {{% generation %}}: {_WAY_OUT}"
            " (trl/chat_templates holds ones for many models)",
        )
    return DataError("the answer's first characters merge with the prompt's last token")


class _TurnEnds:
    """Know which tokens can end a turn in one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._is_blank: dict[int, bool] = {}
        self.eos: int | None = tokenizer.eos_token_id
        self.ids = {*tokenizer.get_added_vocab().values(), self.eos}

    def is_blank(self, token_id: int) -> bool:
        """Tell whether a token is whitespace only, such as the newline after an end token."""
        known = self._is_blank.get(token_id)
        if known is None:
            known = not self._tokenizer.decode([token_id]).strip() and token_id not in self.ids
            self._is_blank[token_id] = known
        return known

    def find(self, ids: list[int], start: int, stop: int) -> int | None:
        """Return the position after the token that ends a turn, if whitespace alone follows it."""
        while stop > start and self.is_blank(ids[stop - 1]):
            stop -= 1
        return stop if stop > start and ids[stop - 1] in self.ids else None


def _label(
    chat: list[dict[str, str]], ids: list[int], spans: Spans, turn_ends: _TurnEnds
) -> Encoded | DataError:
    num_turns = sum(message["role"] == "assistant" for message in chat)
    if len(spans) != num_turns:
        return DataError(f"the chat template trains {len(spans)} of {num_turns} assistant turns")
    labels = [IGNORED] * len(ids)
    for start, stop in spans:
        end = _end_of_turn(ids, start, stop, turn_ends)
        labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels}


def _end_of_turn(ids: list[int], start: int, stop: int, turn_ends: _TurnEnds) -> int:
    """Find where a turn's trained tokens stop: just after the token that ends the turn.

    Whitespace that the template writes after that token is never generated. A template that
    writes the EOS token just outside its generation marks is put right.
    """
    found = turn_ends.find(ids, start, stop)
    if found is not None:
        return found
    if stop < len(ids) and ids[stop] == turn_ends.eos:
        return stop + 1
    raise TemplateError(
        "the chat template writes no end-of-turn token after an assistant's answer,"
        " so the model would never learn to stop",
        hint="end the assistant's turn with {{ eos_token }} in a template of your own, as"
        " `model.chat_template: FILE`",
    )
