"""Build the sample of questions about parameters from the pretraining recipe's packages.

    python tools/build_questions.py recipes/pretrain-docstring-lm.yaml FOLDER

FOLDER is where the recipe's packages were put. A context is a docstring that describes at least two
parameters in numpy's or Google's style; a question asks for the type, the default, the name or the
meaning of one of them, or what is raised. The choice of rows depends on the text alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from build_sample import digest, take_turns

from peftkit.sources.docstrings import (
    DocstringsConfig,
    Row,
    Seen,
    docstring_of,
    read_package,
)

OUT = Path(__file__).resolve().parent.parent / "peftkit" / "embedded" / "docstring-questions"
NUM_ROWS = {"train": 2400, "validation": 200, "test": 300}
MAX_ROWS_PER_PACKAGE = {"train": 30, "validation": 40, "test": 40}
MAX_READ_PER_PACKAGE = 150
MAX_CONTEXT_CHARS = 900
MAX_ANSWER_WORDS = 12
ASKS = {
    "type": (
        "What is the type of {name}?", "Of what type is the parameter {name}?",
        "Which type does {name} take?",
    ),
    "default": (
        "What is the default of {name}?", "Which value does {name} have by default?",
        "What is used if {name} is not given?",
    ),
    "meaning": ("What is {name}?", "What does {name} mean?", "What does the parameter {name} say?"),
    "name": ("Which parameter is this: {meaning}?", "What is the name of: {meaning}?"),
    "raises": ("When is {name} raised?", "What leads to {name}?"),
}  # fmt: skip
"""Kind of question -> ways to ask it; a hash picks one."""

SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+):?[ \t]*\n(?:[ \t]*-{3,}[ \t]*\n)?", re.MULTILINE)
PARAMETERS = {"parameters", "args", "arguments", "other parameters", "keyword args", "attributes"}
RAISES = {"raises"}
NUMPY_ENTRY = re.compile(
    r"^(?P<name>\*{0,2}[A-Za-z_]\w*)[ ]?:[ ](?P<type>[^\n]+)\n(?P<text>(?:[ \t]+[^\n]+(?:\n|$))+)",
    re.MULTILINE,
)
GOOGLE_ENTRY = re.compile(
    r"^[ ]{2,8}(?P<name>\*{0,2}[A-Za-z_][\w.]*)(?:[ ]\((?P<type>[^()\n]+)\))?:[ ]+"
    r"(?P<text>[^\n]+(?:\n[ ]{6,}[^\n]+)*)",
    re.MULTILINE,
)
NUMPY_RAISES = re.compile(r"^(?P<name>[A-Z]\w+)[ \t]*\n(?P<text>(?:[ \t]+[^\n]+(?:\n|$))+)", re.M)
NOT_A_TYPE = re.compile(r"[,;]?\s*(?:optional|required|keyword.only|\(?defaults?\b.*)", re.I)
DEFAULT = re.compile(
    r"(?:\bdefaults?(?:\s+value)?(?:\s+is|\s+to|\s*[:=])?\s+|\bdefault\s*=\s*)"
    r"(?P<value>[`'\"]*[\w.+-]+(?:\([^()\n]*\))?[`'\"]*)(?=[,;)\]\n]|\.?(?:\s|$))",
    re.IGNORECASE,
)
VALUE = re.compile(
    r"[`'\"]+\S+[`'\"]+|[+-]?\d[\w.+-]*|True|False|None|null|true|false|[A-Za-z]\w*(?:\.\w+)+|"
    r"[A-Z_]{3,}|\w+\([^()]*\)"
)
"""What looks like a value rather than the next word of a sentence."""


@dataclass(frozen=True)
class Place:
    """Hold a stretch of a docstring."""

    text: str
    start: int


@dataclass(frozen=True)
class Entry:
    """Hold what a docstring says of one parameter or exception."""

    name: Place
    kind: Place | None
    default: Place | None
    meaning: Place | None
    is_raised: bool = False


def entries_of(context: str) -> Iterator[Entry]:
    """Give what a docstring's sections describe, in their order."""
    found = list(SECTION.finditer(context))
    for match, after in zip_longest(found, found[1:]):
        title = match["title"].strip().lower()
        if title not in PARAMETERS | RAISES:
            continue
        start, end = match.end(), after.start() if after else len(context)
        is_numpy = "---" in match.group()
        patterns = (NUMPY_RAISES,) if is_numpy and title in RAISES else (
            (NUMPY_ENTRY,) if is_numpy else (GOOGLE_ENTRY,)
        )  # fmt: skip
        for pattern in patterns:
            for one in pattern.finditer(context, start, end):
                yield _entry(one, is_raised=title in RAISES)


def _entry(match: re.Match[str], *, is_raised: bool) -> Entry:
    kind = match.groupdict().get("type")
    typed = _trim(kind, match.start("type")) if kind else None
    if typed:
        cut = NOT_A_TYPE.search(typed.text)
        typed = _trim(typed.text[: cut.start()] if cut else typed.text, typed.start, ",;. ")
    default = None
    for group in ("type", "text"):
        text = match.groupdict().get(group) or ""
        stated = DEFAULT.search(text)
        if stated and VALUE.fullmatch(stated["value"].strip(".")):
            at = match.start(group) + stated.start("value")
            default = _trim(stated["value"], at, "`'\".,;")
            break
    sentence = re.match(r"[^.;:(\n]+(?:\n[^.;:(\n]+)?", match["text"])
    meaning = _trim(sentence[0], match.start("text"), " \n\t.,`") if sentence else None
    return Entry(_trim(match["name"], match.start("name"), "*") or Place("", 0), typed, default,
                 meaning, is_raised)  # fmt: skip


def _trim(text: str, start: int, chars: str = " \n\t") -> Place | None:
    kept = text.lstrip(chars)
    start += len(text) - len(kept)
    kept = kept.rstrip(chars)
    return Place(kept, start) if kept else None


def rows_of(context: str) -> Iterator[dict[str, Any]]:
    """Give every question that a docstring answers."""
    entries = list(entries_of(context))
    named = [entry for entry in entries if not entry.is_raised]
    counts = Counter(entry.name.text for entry in entries)
    if len(named) < 2:
        return
    for entry in entries:
        name = entry.name.text
        if counts[name] > 1 or len(name) < 2:
            continue
        kinds: dict[str, Place | None] = {"raises": entry.meaning} if entry.is_raised else {
            "type": entry.kind, "default": entry.default, "meaning": entry.meaning,
            "name": entry.name if entry.meaning else None,
        }  # fmt: skip
        for kind, place in kinds.items():
            if place is None or not 1 <= len(place.text.split()) <= MAX_ANSWER_WORDS:
                continue
            meaning = entry.meaning.text if entry.meaning else ""
            if kind in ("name", "meaning", "raises") and len(meaning.split()) < 3:
                continue
            if kind == "name" and name.lower() in meaning.lower().split():
                continue
            yield {"kind": kind, "name": name, "meaning": " ".join(meaning.split()), "place": place}


def make_row(context: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Write a row as SQuAD has it."""
    place = asked["place"]
    ways = ASKS[asked["kind"]]
    way = ways[int(digest(context + asked["kind"] + asked["name"])[:2], 16) % len(ways)]
    meaning = asked["meaning"][:1].lower() + asked["meaning"][1:]
    return {
        "question": way.format(name=asked["name"], meaning=meaning),
        "context": context,
        "answers": {"text": [place.text], "answer_start": [place.start]},
        "kind": asked["kind"],
    }


def pick(rows: Iterable[Row], seen: Seen, *, per_package: int) -> list[dict[str, Any]]:
    """Pick a package's rows evenly over kinds of questions, one a context, by a hash.

    Args:
        seen: texts of the splits picked before, which are not repeated.
    """
    groups: dict[str, list[Any]] = defaultdict(list)
    per_kind = -(-per_package // len(ASKS))
    fitting = [row for row in rows if _may_ask(docstring_of(row))]
    for row in sorted(fitting, key=lambda row: digest(row["text"]))[:MAX_READ_PER_PACKAGE]:
        context = docstring_of(row)
        by_kind = {o["kind"]: o for o in sorted(rows_of(context), key=lambda o: digest(str(o)))}
        open_kinds = [kind for kind in by_kind if len(groups[kind]) < per_kind]
        if open_kinds and seen.is_new(context):
            kind = min(open_kinds, key=lambda kind: (len(groups[kind]), kind))
            made = make_row(context, by_kind[kind])
            groups[kind].append({**made, "package": row["package"], "name": row["name"]})
    return list(take_turns(groups))


def _may_ask(context: str) -> bool:
    """Tell whether a docstring is short enough and describes parameters, before it is parsed."""
    has_section = "\n---" in context or "Args:" in context or "Arguments:" in context
    return has_section and len(context) <= MAX_CONTEXT_CHARS and context.isascii()


def build(config: DocstringsConfig, folder: Path) -> dict[str, int]:
    """Write `SPLIT.jsonl` for every split, the held-out ones choosing first.

    Returns: the number of rows of each split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = [str(config.folder), *sys.path]
    packages = {"test": config.test_packages, "validation": config.validation_packages,
                "train": config.packages}  # fmt: skip
    seen, counts = Seen(), {}
    for split, names in packages.items():
        found = {
            name: pick(read_package(name, path), seen, per_package=MAX_ROWS_PER_PACKAGE[split])
            for name in names
        }
        rows = list(take_turns(found))[: NUM_ROWS[split]]
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[split] = len(rows)
    return counts


def main(recipe: str, packages_folder: str) -> None:
    """Build the sample from a recipe file and the folder of its packages."""
    text = Path(recipe).read_text(encoding="utf-8")
    config = DocstringsConfig(**yaml.safe_load(text)["data"]["source"]["docstrings"])
    sys.stdout.write(f"{build(replace(config, folder=packages_folder), OUT)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
