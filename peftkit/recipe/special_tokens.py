"""Read which tokens a recipe adds to a tokenizer, and which it calls special."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from peftkit.recipe.kinds import show
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.yaml_file import join

SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""What transformers' tokenizers name by themselves."""
_KEY = "model.special_tokens"


def read_special_tokens(gate: Gate, value: Any) -> dict[str, str]:
    """Check `model.special_tokens`; return what of it can be used."""
    if not isinstance(value, Mapping):
        gate.refuse(_KEY, f"expected a mapping, got {show(value)}", "{eos_token: '<|im_end|>'}")
        return {}
    found = {}
    for name, token in value.items():
        path = join(_KEY, name)
        if name not in SPECIAL:
            hint = suggest(name, SPECIAL) or f"they are {', '.join(SPECIAL)}; others: add_tokens"
            gate.refuse(path, f"tokenizers name no {name!r}", hint)
        elif not isinstance(token, str) or not token.strip():
            gate.refuse(path, f"expected a token, got {show(token)}", f"write {name}: '</s>'")
        else:
            found[name] = token
    return found


def check_new_tokens(gate: Gate, value: Any) -> None:
    """Refuse `model.add_tokens` that names a token twice, or none."""
    tokens = value if isinstance(value, list) else []
    for token, number in Counter(token for token in tokens if isinstance(token, str)).items():
        if number > 1 or not token.strip():
            what = f"names {token!r} {number} times" if token.strip() else "names an empty token"
            gate.refuse("model.add_tokens", what, "name each once")
