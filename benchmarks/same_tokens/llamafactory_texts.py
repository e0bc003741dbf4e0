"""Write what LLaMA-Factory makes of conversations by its templates, for a test to hold ours to.

    python benchmarks/same_tokens/llamafactory_texts.py MODEL OUT.json NAME...

in LLaMA-Factory's environment; MODEL is a folder with any tokenizer that can write every text.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CHATS = [
    [("user", "hi there"), ("assistant", "yes sir")],
    [("system", "Be brief."), ("user", "hi"), ("assistant", "yes"), ("user", "more"),
     ("assistant", "no")],
    [("user", " hi\n"), ("assistant", " yes\n")],
]  # fmt: skip


def main(model: str, out: Path, names: list[str]) -> None:
    """Write, for each template, each conversation as pairs of prompt and answer."""
    from transformers import AutoTokenizer

    templates = import_module("llamafactory.data.template").TEMPLATES
    tokenizer = AutoTokenizer.from_pretrained(model)
    found: dict[str, Any] = {}
    for name in sorted(templates.keys() & set(names)):
        found[name] = []
        for chat in CHATS:
            system = chat[0][1] if chat[0][0] == "system" else None
            said = [{"role": role, "content": text} for role, text in chat if role != "system"]
            pairs = templates[name].encode_multiturn(tokenizer, said, system, None)
            found[name].append([[tokenizer.decode(ids) for ids in pair] for pair in pairs])
    record = {"chats": CHATS, "eos_token": tokenizer.eos_token, "texts": found}
    out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
