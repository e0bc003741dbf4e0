"""A tokenizer in GGUF's terms: its tokens, their kinds, and how text is cut before merging."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.exporters.sentencepiece_scores import sentencepiece_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens; `gguf.TokenType`."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}",
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}",
    "tekken": _WORDS % ("", "", ""),
    "gpt-4o": _WORDS % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", "{1,3}"),
}
"""How llama.cpp cuts text before it merges, by the name that the file gives it."""
_IGNORES_MERGES = ("llama-bpe", "tekken")
"""Where a word that is a token as a whole is not merged."""


@dataclass(frozen=True)
class Vocabulary:
    """Hold what `tokenizer.ggml.*` says."""

    model: str
    """`gpt2` (byte-level BPE), `llama` (SentencePiece BPE) or `bert` (WordPiece)."""
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[tuple[str, str], ...] = ()
    scores: tuple[float, ...] = ()
    flags: dict[str, bool] = field(default_factory=dict)
    """e.g. `add_bos_token`, `add_space_prefix`."""
    special_ids: dict[str, int] = field(default_factory=dict)
    """`bos`, `eos`, `unk`, `pad`, `sep`, `cls`, `mask` -> id."""
    notes: tuple[str, ...] = ()


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, *, vocab_size: int) -> Vocabulary:
    """Describe a tokenizer for a model with `vocab_size` rows of embeddings.

    Raises:
        ArtefactError: llama.cpp has no tokenizer that does the same.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal(tokenizer, "it has no tokenizer.json form")
    spec = json.loads(backend.to_str())
    if len(tokenizer) > vocab_size:
        raise _refusal(tokenizer, f"{len(tokenizer)} tokens, {vocab_size} rows of embeddings")
    kind = spec["model"].get("type")
    if kind == "WordPiece":
        return _word_piece(tokenizer, spec, vocab_size)
    if kind != "BPE":
        raise _refusal(tokenizer, f"a {kind} model")
    is_byte_level = "ByteLevel" in json.dumps(spec.get("pre_tokenizer"))
    make = _byte_level if is_byte_level else _sentencepiece
    return make(tokenizer, spec, vocab_size)


def _byte_level(
    tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any], vocab_size: int
) -> Vocabulary:
    tokens, kinds = _tokens(tokenizer, spec, vocab_size)
    pre = _cutting(tokenizer, spec)
    notes = []
    if spec.get("normalizer"):
        if _types(spec["normalizer"]) != {"NFC"}:
            raise _refusal(tokenizer, f"the normalizer {spec['normalizer']}")
        notes.append("llama.cpp does not compose characters (NFC): give it composed text")
    return Vocabulary(
        "gpt2", pre, tokens, kinds, merges=_merges(spec), flags=_ends(tokenizer),
        special_ids=_special_ids(tokenizer), notes=tuple(notes),
    )  # fmt: skip


def _cutting(tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any]) -> str:
    """Name the way a byte-level tokenizer cuts text, by what its parts say."""
    parts = _parts(spec["pre_tokenizer"])
    byte_level = parts[-1]
    if byte_level["type"] != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise _refusal(tokenizer, f"the pre-tokenizer {spec['pre_tokenizer']}")
    ignores = bool(spec["model"].get("ignore_merges"))
    uses_regex = byte_level.get("use_regex", True)
    rest = parts[:-1]
    if uses_regex and not rest:
        name = "gpt-2"
    elif uses_regex and rest == [{"type": "Digits", "individual_digits": True}]:
        name = "smollm"
    elif not uses_regex and len(rest) == 1 and rest[0]["type"] == "Split":
        name = _pattern_name(rest[0], ignores)
    else:
        name = ""
    if not name or ignores != (name in _IGNORES_MERGES):
        raise _refusal(tokenizer, f"the pre-tokenizer {spec['pre_tokenizer']}")
    return name


def _pattern_name(split: dict[str, Any], ignores_merges: bool) -> str:
    wanted = (split.get("pattern") or {}).get("Regex")
    is_plain = split.get("behavior") == "Isolated" and not split.get("invert")
    is_removed = split.get("behavior") == "Removed" and bool(split.get("invert"))
    found = [name for name, pattern in PATTERNS.items() if pattern == wanted]
    if not found or not (is_plain or is_removed):
        return ""
    # The same cut with merging of whole words is what Smaug's tokenizer is known for.
    return "smaug-bpe" if found[0] == "llama-bpe" and not ignores_merges else found[0]


def _sentencepiece(
    tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any], vocab_size: int
) -> Vocabulary:
    if not spec["model"].get("byte_fallback"):
        raise _refusal(tokenizer, "BPE over characters without byte_fallback")
    adds_space = _adds_space(tokenizer, spec)
    tokens, kinds = _tokens(tokenizer, spec, vocab_size)
    merges = _merges(spec)
    usual = {i for i, kind in enumerate(kinds) if kind == NORMAL}
    scores, problem = sentencepiece_scores(tokens, usual, merges)
    if problem:
        raise _refusal(tokenizer, problem)
    flags = {**_ends(tokenizer), "add_space_prefix": adds_space}
    return Vocabulary(
        "llama", "default", tokens, kinds, scores=scores, flags=flags,
        special_ids=_special_ids(tokenizer),
    )  # fmt: skip


def _adds_space(tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any]) -> bool:
    """Tell whether a space is put before text; refuse what a SentencePiece loader cannot do."""
    space = "▁"
    normalizers = _parts(spec.get("normalizer"))
    prepends = [part for part in normalizers if part == {"type": "Prepend", "prepend": space}]
    replaces = [part for part in normalizers if part["type"] == "Replace"
                and part["pattern"] == {"String": " "} and part["content"] == space]  # fmt: skip
    cuts = _parts(spec.get("pre_tokenizer"))
    spaces = [part for part in cuts if part["type"] == "Metaspace"]
    if len(prepends) + len(replaces) != len(normalizers):
        raise _refusal(tokenizer, f"the normalizer {spec['normalizer']}")
    if spaces:
        scheme = spaces[0].get("prepend_scheme", "always")
        if spaces[0].get("split", True) or spaces[0].get("replacement") != space:
            raise _refusal(tokenizer, f"the pre-tokenizer {spec['pre_tokenizer']}")
        return bool(scheme != "never")
    # Gemma's cuts at spaces, of which its normalizer has left none.
    harmless = all(part["type"] == "Split" and part["pattern"] == {"String": " "} for part in cuts)
    if not harmless or not replaces:
        raise _refusal(tokenizer, f"the pre-tokenizer {spec['pre_tokenizer']}")
    return bool(prepends)


def _word_piece(
    tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any], vocab_size: int
) -> Vocabulary:
    normalizer = spec.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or _types(spec["pre_tokenizer"]) != {
        "BertPreTokenizer"
    }:
        raise _refusal(tokenizer, f"the normalizer {normalizer.get('type')}")
    if spec["model"].get("continuing_subword_prefix") != "##":
        raise _refusal(tokenizer, "a continuation prefix other than ##")
    tokens, kinds = _tokens(tokenizer, spec, vocab_size)
    # GGUF marks where a word begins, not where it goes on.
    marked = tuple(
        token if kind != NORMAL else token[2:] if token.startswith("##") else f"▁{token}"
        for token, kind in zip(tokens, kinds, strict=True)
    )
    lowers = bool(normalizer.get("lowercase"))
    strips = normalizer.get("strip_accents")
    ids = _special_ids(tokenizer)
    if "cls" in ids:
        ids["bos"] = ids["cls"]
    flags = {
        "normalizer.lowercase": lowers,
        "normalizer.strip_accents": lowers if strips is None else bool(strips),
    }
    return Vocabulary("bert", "default", marked, kinds, flags=flags, special_ids=ids)


def _tokens(
    tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any], vocab_size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """List every id's token and kind; ids without a token are named after themselves."""
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    for token, index in spec["model"]["vocab"].items():
        tokens[index], kinds[index] = token, NORMAL
        if spec["model"].get("byte_fallback") and _is_byte(token):
            kinds[index] = BYTE
    for added in spec["added_tokens"]:
        if added["single_word"] or added["lstrip"] or added["rstrip"]:
            is_mask = added["content"] == tokenizer.mask_token
            if not is_mask:
                raise _refusal(tokenizer, f"the added token {added['content']!r} strips spaces")
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    unknown = spec["model"].get("unk_token")
    if unknown is not None and unknown in tokens:
        kinds[tokens.index(unknown)] = UNKNOWN if spec["model"]["type"] == "BPE" else CONTROL
    if len(set(tokens)) != len(tokens):
        raise _refusal(tokenizer, "two ids with one token")
    return tuple(tokens), tuple(kinds)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _merges(spec: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = (m.split(" ") if isinstance(m, str) else m for m in spec["model"]["merges"])
    return tuple((str(first), str(second)) for first, second in pairs)


def _ends(tokenizer: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Find out by use which tokens are put around a text."""
    ids = tokenizer("a").input_ids
    bare = tokenizer("a", add_special_tokens=False).input_ids
    starts = len(ids) > len(bare) and ids[0] == tokenizer.bos_token_id
    ends = len(ids) > len(bare) and ids[-1] == tokenizer.eos_token_id
    if ids != [tokenizer.bos_token_id] * starts + bare + [tokenizer.eos_token_id] * ends:
        raise _refusal(tokenizer, "tokens around a text other than its first and last")
    return {"add_bos_token": starts, "add_eos_token": ends}


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    names = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
    found = {name: getattr(tokenizer, f"{name}_token_id") for name in names}
    return {name: index for name, index in found.items() if index is not None}


def _parts(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Flatten a `Sequence` of a tokenizer.json into its parts."""
    if not part:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = part.get("pretokenizers") or part.get("normalizers") or []
    return [leaf for item in inner for leaf in _parts(item)]


def _types(part: dict[str, Any]) -> set[str]:
    return {leaf["type"] for leaf in _parts(part)}


def _refusal(tokenizer: PreTrainedTokenizerBase, what: str) -> ArtefactError:
    return ArtefactError(
        f"{tokenizer.name_or_path}: llama.cpp has no tokenizer that this export knows for {what}",
        hint="export with --to safetensors or --to onnx, which keep tokenizer.json as it is",
    )
