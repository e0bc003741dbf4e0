"""Write the table of native signatures for the tested pins: `python tools/tested_signatures.py`.

With it, the very first `peftkit check` on the tested versions needs no import of torch. It holds
names, types and defaults; docstrings are read from the installed classes when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from peftkit.plugins import GROUPS, available, find, only_builtins
from peftkit.recipe.kinds import Kind
from peftkit.recipe.signature_cache import CACHE_FORMAT, TESTED
from peftkit.recipe.signatures import (
    TABLES,
    Signature,
    extract,
    extract_table,
)

EXTRA = (
    "transformers:GenerationConfig",
    "transformers:LlamaConfig",
    "transformers:Qwen2Config",
    "transformers:Qwen3Config",
)
"""Native classes that recipes name although no plugin does."""


def references() -> list[str]:
    """List every native class that a built-in plugin or a section of a recipe takes."""
    found = {*EXTRA}
    with only_builtins():
        for group in GROUPS:
            for info in available(group):
                config = find(group, info.name).Config
                if isinstance(config, str):
                    found.add(config)
    return sorted(found)


def read_entries() -> dict[str, Any]:
    """Read every native signature and table from the installed stack itself."""
    entries: dict[str, Any] = {name: extract_table(name) for name in sorted(TABLES)}
    todo = references()
    while todo:
        reference = todo.pop(0)
        if reference in entries:
            continue
        signature = extract(reference)
        entries[reference] = without_docs(signature).to_json()
        for option in signature.options.values():
            todo.extend(_records(option.kind))
    return dict(sorted(entries.items()))


def without_docs(signature: Signature) -> Signature:
    """Leave out the docstrings, which are their library's text."""
    options = {name: replace(option, doc="") for name, option in signature.options.items()}
    return replace(signature, options=options, doc="")


def _records(kind: Kind) -> Iterator[str]:
    if kind.name == "record":
        yield kind.record
    for item in kind.items:
        yield from _records(item)


def main() -> None:
    """Write the table beside this module, one entry a line."""
    lines = [
        f"{json.dumps(name)}:{json.dumps(entry, separators=(',', ':'), ensure_ascii=False)}"
        for name, entry in read_entries().items()
    ]
    body = ",\n".join(lines)
    TESTED.write_text(f'{{"format":{CACHE_FORMAT},"entries":{{\n{body}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
