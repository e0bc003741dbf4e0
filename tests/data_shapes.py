"""Files as people have them: what each is called, and what writes it into a folder."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny

ROWS = tiny.rows(60)
TEXTS = [row["document"] for row in ROWS]
ANSWERS = [row["summary"] for row in ROWS]
TURNS = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    for text, answer in zip(TEXTS, ANSWERS, strict=True)
]
Maker = Callable[[Path], Path]


def put(name: str, content: str | bytes) -> Maker:
    """Write one file."""

    def make(folder: Path) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return make


def lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def columns(**named: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]


def cells(sep: str = ",", *, header: bool = True, end: str = "\n", n: str = " ") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=sep, lineterminator=end)
    if header:
        writer.writerow(["document", "summary"])
    writer.writerows(
        [text.replace(" ", n, 1), answer] for text, answer in zip(TEXTS, ANSWERS, strict=True)
    )
    return out.getvalue()


def folder_of(files: Mapping[str, str]) -> Maker:
    def make(folder: Path) -> Path:
        for name, content in files.items():
            put(f"set/{name}", content)(folder)
        return folder / "set"

    return make


def parquet(rows: list[dict[str, Any]]) -> Maker:
    def make(folder: Path) -> Path:
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(folder / "a.parquet")
        return folder / "a.parquet"

    return make


def saved(rows: list[dict[str, Any]]) -> Maker:
    def make(folder: Path) -> Path:
        from datasets import Dataset

        Dataset.from_list(rows).save_to_disk(folder / "saved")
        return folder / "saved"

    return make


def kinds(*values: Any) -> list[Any]:
    return [values[at % len(values)] for at in range(len(TEXTS))]


SQUAD = [
    {"question": f"What is said of {at}?", "context": text,
     "answers": {"text": [text.split()[1]], "answer_start": [text.index(text.split()[1])]}}
    for at, text in enumerate(TEXTS)
]  # fmt: skip
PAIRS = columns(prompt=TEXTS, chosen=ANSWERS, rejected=[f"no: {one}" for one in ANSWERS])

SHAPES: dict[str, Maker] = {
    "jsonl": put("a.jsonl", lines(ROWS)),
    "ndjson with blank lines": put("a.ndjson", lines(ROWS).replace("\n", "\n\n")),
    "json list": put("a.json", json.dumps(ROWS)),
    "json list, indented": put("a.json", json.dumps(ROWS, indent=2)),
    "json under a key": put("a.json", json.dumps({"version": "1.0", "data": ROWS})),
    "json of several splits": put("a.json", json.dumps({"train": ROWS[:40], "test": ROWS[40:]})),
    "jsonl with a byte-order mark": put("a.jsonl", "\ufeff" + lines(ROWS)),
    "jsonl called .txt": put("a.txt", lines(ROWS)),
    "jsonl called .json": put("a.json", lines(ROWS)),
    "gzip": put("a.jsonl.gz", gzip.compress(lines(ROWS).encode())),
    "csv": put("a.csv", cells()),
    "csv, semicolons, Latin-1": put("a.csv", cells(";", n="é").encode("latin-1")),
    "csv, cp1252 quotes": put("a.csv", cells(n=" \u201cthe\u201d ").encode("cp1252")),
    "csv, pipes": put("a.csv", cells("|")),
    "csv, CRLF and newlines in cells": put("a.csv", cells(end="\r\n", n="\n")),
    "tsv": put("a.tsv", cells("\t")),
    "messages": put("a.jsonl", lines({"messages": turns} for turns in TURNS)),
    "messages as text": put("a.jsonl", lines({"messages": json.dumps(turns)} for turns in TURNS)),
    "messages in CSV": put("a.csv", "messages\n" + "\n".join(
        '"' + json.dumps(turns).replace('"', '""') + '"' for turns in TURNS)),
    "messages with a system": put("a.jsonl", lines(
        {"messages": [{"role": "system", "content": "Be brief."}, *turns]} for turns in TURNS)),
    "messages in Parquet": parquet([{"messages": turns} for turns in TURNS]),
    "ShareGPT": put("a.json", json.dumps([
        {"conversations": [{"from": "human", "value": turns[0]["content"]},
                           {"from": "gpt", "value": turns[1]["content"]}]} for turns in TURNS])),
    "Alpaca, inputs partly empty": put("a.json", json.dumps(columns(
        instruction=TEXTS, input=kinds("", "more"), output=ANSWERS))),
    "question and answer": put("a.jsonl", lines(columns(question=TEXTS, answer=ANSWERS))),
    "prompt and response": parquet(columns(prompt=TEXTS, response=ANSWERS)),
    "translation": put("a.jsonl", lines(
        {"translation": {"de": text, "en": answer}}
        for text, answer in zip(TEXTS, ANSWERS, strict=True))),
    "preferences": put("a.jsonl", lines(PAIRS)),
    "preferences in messages": put("a.jsonl", lines(
        {"chosen": turns, "rejected": [turns[0], {"role": "assistant", "content": "no"}]}
        for turns in TURNS)),
    "verdicts": put("a.jsonl", lines(columns(
        prompt=TEXTS, completion=ANSWERS, label=kinds(True, False)))),
    "texts": put("a.jsonl", lines({"text": text} for text in TEXTS)),
    "plain text": put("a.txt", "\n\n".join(TEXTS)),
    "folder of texts": folder_of({f"{at}.txt": text for at, text in enumerate(TEXTS)}),
    "folder of splits": folder_of(
        {"train.jsonl": lines(ROWS[:40]), "valid.jsonl": lines(ROWS[40:50]),
         "test.jsonl": lines(ROWS[50:])}),
    "arrow": saved(ROWS),
    "labels": put("a.csv", "text,label\n" + "".join(
        f'"{text}",{label}\n' for text, label in zip(TEXTS, kinds("spam", "ham"), strict=True))),
    "labels, numbers": put("a.jsonl", lines(columns(text=TEXTS, label=kinds(0, 1, 2)))),
    "labels, true and false": put("a.jsonl", lines(columns(text=TEXTS, toxic=kinds(True, False)))),
    "labels of pairs": put("a.jsonl", lines(columns(
        premise=TEXTS, hypothesis=ANSWERS, label=kinds("entailment", "neutral")))),
    "labels, some empty": put("a.jsonl", lines(columns(
        text=TEXTS, label=kinds(*["a", "b"] * 9, None)))),
    "scores": put("a.jsonl", lines(columns(text=TEXTS, score=[at / 7 for at in range(60)]))),
    "SQuAD": put("a.jsonl", lines(SQUAD)),
    "null texts": put("a.jsonl", lines(
        {**row, "summary": None} if at % 20 == 3 else row for at, row in enumerate(ROWS))),
    "long documents": put("a.jsonl", lines(
        {**row, "document": row["document"] * 200} if at % 9 == 3 else row
        for at, row in enumerate(ROWS))),
    "ids, dates and mixed columns": put("a.jsonl", lines(
        {"id": at, "when": "2026-01-01", "tags": "x" if at % 2 else ["x", 1], **row}
        for at, row in enumerate(ROWS))),
    "three rows": put("a.jsonl", lines(ROWS[:3])),
    "names in Chinese": put("数据 集.jsonl", lines(columns(question=TEXTS, answer=ANSWERS))),
}  # fmt: skip
"""Those of which `init` makes a recipe whose `check` and `data` pass."""

LACKING: dict[str, tuple[Maker, str]] = {
    "nothing": (put("a.jsonl", ""), "empty|no row"),
    "an empty folder": (folder_of({".keep": ""}), "no file|empty|hold"),
    "a workbook": (put("a.xlsx", b"PK\x03\x04" + b"\0" * 200), "xlsx|CSV"),
    "a PDF": (put("a.pdf", b"%PDF-1.7\n" + b"\0" * 200), "pdf|PDF"),
    "an archive": (put("a.zip", b"PK\x03\x04" + b"\0" * 200), "zip|unpack"),
    "broken lines": (put("a.jsonl", lines(ROWS).replace('"}', '"')), "a.jsonl"),
    "numbers alone": (put("a.csv", "x,y\n" + "1,2\n" * 40), "x|y"),
    "json two keys down": (
        put("a.json", json.dumps({"ok": True, "result": {"items": ROWS}})),
        "under result.items",
    ),
    "json by id": (
        put("a.json", json.dumps({f"id{at}": row for at, row in enumerate(ROWS)})),
        "each of its keys",
    ),
    "json by column": (
        put("a.json", json.dumps({"document": TEXTS, "summary": ANSWERS})),
        "by column",
    ),
    "jsonl in UTF-16": (put("a.jsonl", lines(ROWS).encode("utf-16")), "iconv"),
    "csv, UTF-16": (put("a.csv", cells().encode("utf-16")), "iconv"),
    "csv with an index column": (
        put(
            "a.csv",
            "\n".join(
                f"{'' if at == 0 else at},{line}" for at, line in enumerate(cells().splitlines())
            ),
        ),
        "without a name",
    ),
}
"""Those that lack something: what the one message says of it."""
