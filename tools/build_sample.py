"""Build the sample of documents and summaries from the pretraining recipe's packages.

    python tools/build_sample.py recipes/pretrain-lm.yaml FOLDER

FOLDER is where the recipe's packages were put. The choice of rows depends on the text alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from peftkit.sources.docstrings import DocstringsConfig, DocstringsSource, Row

NAME = "docstring-summaries"
NUM_ROWS = {"train": 3000, "validation": 200, "test": 300}
MAX_ROWS_PER_PACKAGE = {"train": 40, "validation": 40, "test": 40}
MAX_DOCUMENT_CHARS = 700
"""Keeps a prompt and its summary within about 300 tokens."""

MARKUP = re.compile(r"^(>>>|:\w|\.\. |[-*+] |@|\d+[.)] |\w+ ?:)|::$|\n *(---|===|~~~|\^\^\^)")
"""A paragraph that is no prose: doctest, field, directive, list or heading."""


def is_prose(paragraph: str) -> bool:
    """Say whether a paragraph is a sentence or more, of at least six words."""
    text = paragraph.strip()
    is_sentence = text.endswith(".") and text[:1].isupper() and len(text.split()) >= 6
    return is_sentence and not MARKUP.search(text) and not paragraph.startswith(" ")


def is_good(document: str, summary: str) -> bool:
    """Say whether a summary is a plain sentence about prose that does not give it away.

    The document's body begins with prose, so that its first sentence is a fair baseline.
    """
    body = document.partition("\n\n")[2]
    flat = " ".join(body.split()).lower()
    is_plain = summary[:1].isupper() and not re.search(r"::|:\w+:|\.\. |>>>|https?:", summary)
    return (
        len(document) <= MAX_DOCUMENT_CHARS
        and is_plain
        and is_prose(body.partition("\n\n")[0])
        and summary.lower().rstrip(".") not in flat
    )


def pick(rows: Iterable[Row], *, num_rows: int, per_package: int, taken: set[str]) -> list[Row]:
    """Pick good rows evenly over the packages, in an order given by the hash of their text.

    Args:
        taken: summaries that other splits use; those picked here are added.
    """
    by_package: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: digest(row["text"])):
        if row["summary"] in taken or not is_good(row["document"], row["summary"]):
            continue
        if len(by_package[row["package"]]) < per_package:
            taken.add(row["summary"])
            by_package[row["package"]].append(row)
    return list(take_turns(by_package))[:num_rows]


def write_row(row: Row) -> dict[str, str]:
    """Keep what the sample's file holds of a row."""
    return {
        "document": row["document"],
        "summary": row["summary"],
        "package": row["package"],
        "name": row["name"],
    }


def take_turns(groups: Mapping[str, Sequence[Any]]) -> Iterator[Any]:
    """Give every group's first row, then every group's second, and so on."""
    for turn in range(max(map(len, groups.values()), default=0)):
        for key in sorted(groups):
            yield from groups[key][turn : turn + 1]


def digest(text: str) -> str:
    """Return what rows are ordered by: a hash of their text."""
    return hashlib.sha256(text.encode()).hexdigest()


def build(source: DocstringsSource, folder: Path) -> dict[str, int]:
    """Write `SPLIT.jsonl` for every split, the held-out ones choosing first.

    Returns: the number of rows of each split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    counts = {}
    for split in reversed(source.splits()):
        rows = pick(
            source.load(split).to_list(),
            num_rows=NUM_ROWS[split],
            per_package=MAX_ROWS_PER_PACKAGE[split],
            taken=taken,
        )
        lines = [json.dumps(write_row(row)) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[split] = len(rows)
    return counts


def main(recipe: str, packages_folder: str) -> None:
    """Build the sample from a recipe file and the folder of its packages."""
    text = Path(recipe).read_text(encoding="utf-8")
    config = DocstringsConfig(**yaml.safe_load(text)["data"]["source"]["docstrings"])
    source = DocstringsSource(replace(config, folder=packages_folder, summary_last_share=0.0))
    sys.stdout.write(f"{build(source, Path(__file__).parent / NAME)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
