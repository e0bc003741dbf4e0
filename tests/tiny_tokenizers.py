"""Tiny tokenizers of each kind that a base model may bring, trained on a few words."""

from __future__ import annotations

import json
from pathlib import Path

import tiny

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = [" ".join(tiny.WORDS), "It's 1234 naïve cafés\n\n  and more", "DON'T camelCase HTTPServer"]
SPECIALS = ["<|endoftext|>", "<|pad|>", "<|user|>"]


def _pre_tokenizer(kind: str):
    from tokenizers import Regex, pre_tokenizers

    def cut(pattern: str):
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, to_bytes])

    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {
        "gpt-2": plain,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain]),
        "llama-bpe": cut(LLAMA3),
        "smaug-bpe": cut(LLAMA3),
        "qwen2": cut(QWEN2),
        "tekken": cut(TEKKEN),
        "unknown": cut(r"\w+|\W+"),
    }[kind]


def byte_level(kind: str, folder: Path, **keywords):
    """Save a byte-level BPE tokenizer that cuts text as a family does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(ignore_merges=kind in ("llama-bpe", "tekken")))
    bpe.pre_tokenizer = _pre_tokenizer(kind)
    bpe.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        bpe.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(TEXT * 3, trainer)
    settings = {"eos_token": SPECIALS[0], "pad_token": SPECIALS[1], **keywords}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **settings)
    tokenizer.save_pretrained(folder)
    return tokenizer


def sentencepiece(folder: Path, *, style: str = "llama"):
    """Save a SentencePiece-like BPE: `llama` puts a space first, `gemma` does not.

    As transformers converts them, every way to cut a piece in two is a merge, by the piece's rank.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    draft = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=220, show_progress=False)
    draft.train_from_iterator([f"▁{text.replace(' ', '▁')}" for text in TEXT * 3], trainer)
    ranked = ["".join(merge) for merge in json.loads(draft.to_str())["model"]["merges"]]
    letters = sorted(t for t in draft.get_vocab() if len(t) == 1)
    specials = ["<unk>", "<s>", "</s>"]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *ranked, *letters]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    bpe = Tokenizer(model)
    replace = normalizers.Replace(" ", "▁")
    prepend = [normalizers.Prepend("▁")] if style == "llama" else []
    bpe.normalizer = normalizers.Sequence([*prepend, replace])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
