"""Read the sample data that ships with peftkit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit import embedded
from peftkit.errors import DataError
from peftkit.plugins import Source
from peftkit.sources.embedded_dialogues import as_dialogues
from peftkit.sources.embedded_likeness import with_likeness

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARIES = "docstring-summaries"


@dataclass(frozen=True)
class EmbeddedConfig:
    """Choose the sample data."""

    name: str
    """A folder of `peftkit/embedded`, e.g. `docstring-summaries`."""
    mismatched: bool = False
    """Give half of the documents another one's summary, and every row a column `match`: yes or
    no. A hash of the document says which half, so that it is the same wherever it is read."""
    kinds: bool = False
    """Give every row a column `kind`: class, function, method or module, as the form of its name
    and its signature say."""
    dialogue: bool = False
    """Give every row a column `messages`: a conversation of three questions about the document."""
    likeness: bool = False
    """Give every row a column `other`, its summary with some of its words exchanged for another
    one's, and `likeness`, from 0 to 5: how much of it was kept."""
    answers: Literal["pairs", "verdicts"] | None = None
    """Give answers to compare. `pairs`: a column `chosen`, the summary, and `rejected`, the
    sentence that the document goes on with. `verdicts`: one of the two in `completion`, and in
    `label` whether it is the summary."""


class EmbeddedSource(Source):
    """Give a sample of documents as a dataset, its splits fixed by package."""

    Config: ClassVar[type | str] = EmbeddedConfig

    def __init__(self, config: EmbeddedConfig) -> None:
        known = embedded.dataset_names()
        if config.name not in known:
            raise DataError(
                f"embedded: no sample data is called {config.name!r}", hint=f"use one of {known}"
            )
        self._folder = embedded.dataset_path(config.name)
        makers: dict[str, Callable[..., list[dict[str, Any]]] | None] = {
            "mismatched": mismatch if config.mismatched else None,
            "dialogue": as_dialogues if config.dialogue else None,
            "likeness": with_likeness if config.likeness else None,
            "answers": {"pairs": pairs, "verdicts": verdicts}.get(config.answers or ""),
        }
        asked = {option: make for option, make in makers.items() if make}
        if len(asked) > 1:
            raise DataError(
                f"embedded: rows are made into one thing, not into {', '.join(asked)}",
                hint=f"keep one of {', '.join(asked)}",
            )
        if config.name != SUMMARIES and (asked or config.kinds):
            option = next(iter(asked), "kinds")
            raise DataError(
                f"embedded: {option} is made of documents and summaries, which {config.name} lacks",
                hint=f"use name: {SUMMARIES}",
            )
        self._make = next(iter(asked.values()), list)
        self._has_kinds = config.kinds

    def splits(self) -> list[str]:
        """List the splits, training first."""
        found = {file.stem for file in self._folder.glob("*.jsonl")}
        return [split for split in ("train", "validation", "test") if split in found]

    def load(self, split: str) -> Dataset:
        """Load one split with its columns as they are in the file.

        Raises: DataError for an unknown split.
        """
        from datasets import Dataset

        if split not in self.splits():
            raise DataError(f"embedded: no split {split!r}", hint=f"use one of {self.splits()}")
        with (self._folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        made = self._make(rows)
        return Dataset.from_list(
            [{**row, "kind": kind_of(row)} for row in made] if self._has_kinds else made
        )


def mismatch(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Give half of the documents, chosen by a hash, the summary of the next one of that half.

    Returns: the rows in their order, each with `match`: `yes` or `no`.
    """
    order = sorted(range(len(rows)), key=lambda at: _hash(rows[at]["document"]))
    half = order[: len(rows) // 2]
    made = [{**row, "match": "yes"} for row in rows]
    for place, at in enumerate(half):
        own = rows[at]["summary"]
        others = (rows[other]["summary"] for other in (*half[place + 1 :], *half[:place]))
        made[at] = {**rows[at], "match": "no", "summary": next(s for s in others if s != own)}
    return made


def kind_of(row: Mapping[str, str]) -> str:
    """Say what a row documents, by PEP 8's forms of names: classes begin with a capital.

    A document begins with its name and its signature, which no module has.
    """
    *above, name = row["name"].split(".")
    has_signature = row["document"].partition("\n")[0].removeprefix(row["name"]).startswith("(")
    if _is_class(name):
        return "class"
    if not has_signature:
        return "module"
    return "method" if above and _is_class(above[-1]) else "function"


def _is_class(name: str) -> bool:
    bare = name.lstrip("_")
    return bare[:1].isupper() and not bare.isupper()


def pairs(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Give each document two answers: its summary, and the sentence that it goes on with.

    Documents of one sentence alone, or whose next sentence is the summary, are left out.
    """
    made = []
    for row in rows:
        copied = next_sentence(row["document"])
        if copied and copied != row["summary"]:
            made.append({**row, "chosen": row["summary"], "rejected": copied})
    return made


def verdicts(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Give each document one of those two answers, by a hash, and whether it is the summary."""
    made = []
    for row in pairs(rows):
        is_good = _hash(row["document"])[0] % 2 == 0
        kept = {name: row[name] for name in row if name not in ("chosen", "rejected")}
        answer = row["chosen" if is_good else "rejected"]
        made.append({**kept, "completion": answer, "label": is_good})
    return made


def next_sentence(document: str) -> str:
    """Return the first sentence below a document's signature; empty where there is none."""
    prose = " ".join(document.partition("\n\n")[2].split())
    found = re.match(r".+?[.!?](?=\s|$)", prose)
    return found.group() if found else ""


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
