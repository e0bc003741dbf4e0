"""Build the sample of translations from Django's catalogues, a column for each language.

    python tools/build_translations.py FOLDER SEEN

FOLDER is where Django was put, SEEN where the packages of recipes/pretrain-seq2seq.txt were: a
message that the embedded encoder-decoder was pretrained on is never held out. The choice of rows
depends on the text alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from peftkit.sources.gettext import GettextConfig, GettextSource

NAME = "django-translations"
LANGUAGES = (
    "ca", "da", "de", "es", "fr", "gl", "it", "ja", "nl", "pl", "pt_BR", "ru", "sr", "sr_Latn",
    "sv", "zh_Hans",
)  # fmt: skip
SHARES = {"test": 15, "validation": 8}
"""Percent of the messages, by a hash of what they say."""
MAX_CHARS = 160
PLACEHOLDER = re.compile(r"%\(\w+\)\w|%\w|\{\w*\}|<[^>]+>|\W+")
MARKUP = re.compile(r"<|://|[MD]{2}|/\w+/")


def read(folder: Path, language: str) -> dict[str, str]:
    """Read a language's messages; of one that stands twice, the first."""
    pattern = folder / "**/locale*" / language / "LC_MESSAGES/*.po"
    found: dict[str, str] = {}
    for row in GettextSource(GettextConfig(pattern)).load("train"):
        found.setdefault(row["source"], row["target"])
    return found


def topic(message: str) -> str:
    """Return what singular and plural, or two of a kind, have in common."""
    words = PLACEHOLDER.sub(" ", message.lower()).split()
    return " ".join(word.removesuffix("s") for word in words)


def is_prose(message: str) -> bool:
    """Say whether a message is mostly words: no markup, formats or addresses, which are copied."""
    words = PLACEHOLDER.sub("", message)
    return 2 * len(words) > len(message) and not MARKUP.search(message)


def split_of(message: str, seen: set[str]) -> str:
    """Choose a message's split: `train` for one that the base has seen."""
    key = topic(message)
    if not key or key in seen:
        return "train"
    number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 100
    for split, share in SHARES.items():
        if number < share:
            return split
        number -= share
    return "train"


def build(django: Path, seen: Iterable[str], folder: Path) -> dict[str, int]:
    """Write `SPLIT.jsonl` for every split; return the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    by_language = {language: read(django, language) for language in LANGUAGES}
    known = {topic(message) for message in seen}
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for message in by_language[LANGUAGES[0]]:
        texts = {language: found.get(message, "") for language, found in by_language.items()}
        if (
            all(texts.values())
            and max(map(len, (message, *texts.values()))) <= MAX_CHARS
            and is_prose(message)
        ):
            rows[split_of(message, known)].append({"en": message, **texts})
    for split, found in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {split: len(found) for split, found in rows.items()}


def main(django: str, seen: str) -> None:
    """Build the sample from the folders of Django and of the pretraining's packages."""
    pattern = Path(seen) / "**/locale*/es/LC_MESSAGES/*.po"
    messages = GettextSource(GettextConfig(pattern)).load("train")["source"]
    folder = Path(__file__).parent.parent / "peftkit" / "embedded" / NAME
    sys.stdout.write(f"{build(Path(django), messages, folder)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
