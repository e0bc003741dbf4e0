"""Encode texts and pairs of texts that are to be labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.plugins.rows import LENGTH
from peftkit.preprocessing.chat_labels import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TYPES = "token_type_ids"


def encode_texts(
    texts: Sequence[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, Any]]:
    """Encode as the tokenizer encodes a text or a pair, and cut as it cuts: the longer of the two.

    A decoder's tokenizer may put two texts side by side with nothing between them; its separator,
    or else its end token, is put there.

    Returns: `input_ids`, `token_type_ids` where the tokenizer tells two texts apart by them, and
        under `length` the tokens before the cut.
    Raises:
        TemplateError: nothing can be put between two texts.
    """
    if texts and len(texts[0]) == 2 and not separates(tokenizer):
        return _join(texts, tokenizer, max_length)
    rows = _encode(texts, tokenizer)
    too_long = [at for at, row in enumerate(rows) if row[LENGTH] > max_length]
    cut = _encode([texts[at] for at in too_long], tokenizer, truncation=True, max_length=max_length)
    for at, row in zip(too_long, cut, strict=True):
        rows[at] = {**row, LENGTH: rows[at][LENGTH]}
    return rows


def _encode(
    texts: Sequence[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> list[dict[str, Any]]:
    if not texts:
        return []
    encoded = tokenizer(*map(list, zip(*texts, strict=True)), verbose=False, **options)
    names = ["input_ids", TYPES] if has_types(tokenizer) else ["input_ids"]
    return [
        {**{name: encoded[name][at] for name in names}, LENGTH: len(ids)}
        for at, ids in enumerate(encoded["input_ids"])
    ]


def separates(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer puts something of its own between two texts."""
    num_more = tokenizer.num_special_tokens_to_add(pair=True)
    return bool(num_more > tokenizer.num_special_tokens_to_add(pair=False))


def has_types(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer says of each token which of two texts it is of."""
    return 1 in tokenizer("a", "b").get(TYPES, ())


def _join(
    pairs: Sequence[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[dict[str, Any]]:
    separator = tokenizer.sep_token_id
    separator = tokenizer.eos_token_id if separator is None else separator
    if separator is None:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} puts nothing between two"
            " texts, and has no token that could stand there",
            hint="name one as sep_token in its tokenizer_config.json",
        )
    firsts, seconds = zip(*pairs, strict=True)
    rows = []
    for first, second in zip(
        tokenizer(list(firsts), verbose=False)["input_ids"],
        tokenizer(list(seconds), add_special_tokens=False, verbose=False)["input_ids"],
        strict=True,
    ):
        one, other = _cut_longer(first, second, max_length - 1)
        rows.append({"input_ids": [*one, separator, *other],
                     LENGTH: len(first) + 1 + len(second)})  # fmt: skip
    return rows


def _cut_longer(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Cut the longer of two until both fit, as tokenizers do."""
    shorter = min(len(first), len(second), room // 2)
    if len(first) + len(second) <= room:
        return first, second
    if len(first) <= len(second):
        return first[:shorter], second[: room - shorter]
    return first[: room - shorter], second[:shorter]
