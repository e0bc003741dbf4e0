"""Codes of languages, which tokenizers such as those of NLLB and mBART write around a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.errors import UsageError
from peftkit.recipe.strict import suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEYS = ("src_lang", "tgt_lang")


def set_languages(
    tokenizer: PreTrainedTokenizerBase, *, src_lang: str | None, tgt_lang: str | None, where: str
) -> None:
    """Tell a tokenizer which language a source is in, and which a target, in its own codes.

    Args:
        where: recipe key of the two, for messages.

    Raises:
        UsageError: the tokenizer has no codes, or lacks one of these, or has some and none is
            named.
    """
    codes = {key: code for key, code in zip(KEYS, (src_lang, tgt_lang), strict=True) if code}
    name = tokenizer.name_or_path or "this model"
    if not hasattr(tokenizer, "set_tgt_lang_special_tokens"):
        if codes:
            raise UsageError(
                f"{where}.{next(iter(codes))}: the tokenizer of {name} has no codes of languages",
                hint="delete it, and name the languages in the prompt: source_language and"
                " target_language, or an instruction such as '>>deu<<' for Marian's models",
            )
        return
    known = language_codes(tokenizer)
    missing = [f"{where}.{key}" for key in KEYS if key not in codes]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: the tokenizer"
            f" of {name} writes a language's code around each text",
            hint=f"{missing[0]}=CODE, one of {', '.join(known[:4])} ...",
        )
    for key, code in codes.items():
        if code not in known:
            raise UsageError(
                f"{where}.{key}: the tokenizer of {name} has no language {code!r}",
                hint=suggest(code, known) or f"it has {', '.join(known[:8])} ...",
            )
        setattr(tokenizer, key, code)
        tokenizer.init_kwargs[key] = code  # what `save_pretrained` writes


def language_codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the codes that a tokenizer knows, as `src_lang` takes them."""
    named = getattr(tokenizer, "lang_code_to_id", None)
    if named:
        return sorted(named)
    own = set(tokenizer.special_tokens_map.values()) - {None}
    return sorted(token for token in tokenizer.get_added_vocab() if token not in own)
