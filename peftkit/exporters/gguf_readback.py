"""Tokenize with nothing but what a GGUF file says, to compare with the tokenizer it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.exporters.gguf_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    PATTERNS,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)

if TYPE_CHECKING:
    from gguf import GGUFReader

_FLAGS = (
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "normalizer.lowercase",
    "normalizer.strip_accents",
)
_IDS = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator"}
"""Ours -> the file's, spelt as the specification spells it."""


def read_back(reader: GGUFReader) -> Vocabulary:
    """Read a file's tokenizer."""

    def value(key: str, default: Any = None) -> Any:
        found = reader.get_field(f"tokenizer.ggml.{key}")
        return default if found is None else found.contents()

    merges = tuple(tuple(merge.split(" ", 1)) for merge in value("merges", ()))
    ids = {ours: value(f"{theirs}_token_id") for ours, theirs in _IDS.items()}
    return Vocabulary(
        model=value("model"),
        pre=value("pre"),
        tokens=tuple(value("tokens")),
        kinds=tuple(value("token_type")),
        merges=merges,
        scores=tuple(value("scores", ())),
        flags={flag: value(flag) for flag in _FLAGS if value(flag) is not None},
        special_ids={name: index for name, index in ids.items() if index is not None},
    )


class FileTokenizer:
    """Tokenize as a loader of the file does: special tokens first, then the text between them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids = {token: index for index, token in enumerate(vocabulary.tokens)}
        special = [
            token
            for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        makers = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _word_piece}
        self._between = makers[vocabulary.model](vocabulary, self.ids)

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text, in which special tokens may be spelt out."""
        found: list[int] = []
        place = 0
        for match in self._special.finditer(text):
            found += self._between(text[place : match.start()])
            found.append(self.ids[match.group()])
            place = match.end()
        found += self._between(text[place:])
        return self._with_ends(found) if add_special_tokens else found

    def _with_ends(self, ids: list[int]) -> list[int]:
        flags, special = self.vocabulary.flags, self.vocabulary.special_ids
        if self.vocabulary.model == "bert":
            return [special["bos"], *ids, special["sep"]]
        start = [special["bos"]] if flags.get("add_bos_token") else []
        return [*start, *ids, *([special["eos"]] if flags.get("add_eos_token") else [])]


def _byte_level(vocabulary: Vocabulary, ids: dict[str, int]) -> Callable[[str], list[int]]:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    usual = {token: index for token, index in ids.items() if vocabulary.kinds[index] != UNUSED}
    ignores = vocabulary.pre in ("llama-bpe", "tekken")
    backend = Tokenizer(models.BPE(usual, list(vocabulary.merges), ignore_merges=ignores))
    if vocabulary.pre == "smollm":
        cut: Any = pre_tokenizers.Digits(individual_digits=True)
        pattern = PATTERNS["gpt-2"]
    else:
        pattern = PATTERNS["llama-bpe" if vocabulary.pre == "smaug-bpe" else vocabulary.pre]
        cut = None
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    parts = [part for part in (cut, split, to_bytes) if part is not None]
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)


def _sentencepiece(vocabulary: Vocabulary, ids: dict[str, int]) -> Callable[[str], list[int]]:
    usual = {token: i for token, i in ids.items() if vocabulary.kinds[i] == NORMAL}
    to_bytes = {int(token[1:-1], 16): i for token, i in ids.items() if vocabulary.kinds[i] == BYTE}

    def encode(text: str) -> list[int]:
        if not text:
            return []
        prefix = " " if vocabulary.flags.get("add_space_prefix") else ""
        pieces = list((prefix + text).replace(" ", "▁"))
        while (best := _best_pair(pieces, usual, vocabulary.scores)) is not None:
            pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
        found: list[int] = []
        for piece in pieces:
            known = usual.get(piece)
            found += [known] if known is not None else [to_bytes[byte] for byte in piece.encode()]
        return found

    return encode


def _best_pair(pieces: Sequence[str], usual: dict[str, int], scores: Sequence[float]) -> int | None:
    """Return where the best-scored pair of neighbours begins, the leftmost of equals."""
    best, place = float("-inf"), None
    for index in range(len(pieces) - 1):
        union = usual.get(pieces[index] + pieces[index + 1])
        if union is not None and scores[union] > best:
            best, place = scores[union], index
    return place


def _word_piece(vocabulary: Vocabulary, ids: dict[str, int]) -> Callable[[str], list[int]]:
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(
        lowercase=vocabulary.flags["normalizer.lowercase"],
        strip_accents=vocabulary.flags["normalizer.strip_accents"],
    )
    cutter = pre_tokenizers.BertPreTokenizer()
    unknown = vocabulary.special_ids["unk"]

    def encode_word(word: str) -> list[int]:
        rest, found = f"▁{word}", []
        while rest:
            end = next((end for end in range(len(rest), 0, -1) if rest[:end] in ids), None)
            if end is None:
                return [unknown]
            found.append(ids[rest[:end]])
            rest = rest[end:]
        return found

    def encode(text: str) -> list[int]:
        words = cutter.pre_tokenize_str(normalizer.normalize_str(text))
        return [index for word, _ in words for index in encode_word(word)]

    return encode
