"""What every runner is given and gives back. Standard library only: each has its own environment.

A runner is a file with two functions and ends in `main(prepare, collect)`, or in
`main(prepare, collect, train)` where the peer is driven from Python:

- `prepare(work)` writes what the peer reads, untimed, and returns the command that is timed;
- `train(work)` is what that command runs, where it is this file again (`own_command`);
- `collect(work)` reads, untimed, what the command left.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

IGNORED = -100
"""The label of a position that is not trained, to every peer."""


@dataclass(frozen=True)
class Work:
    """Say what is trained, the same to every peer."""

    model: str
    """Folder of the model, as transformers saves one, with a tokenizer of a word a token."""
    rows: str
    """JSON lines with `ids` and `num_trained`: how many of the last ids are trained."""
    folder: str
    """Where the runner may write, empty before `prepare`."""
    steps: int = 100
    batch: int = 8
    max_length: int = 2048
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 1e-3
    best: bool = False
    """Whether the peer takes what makes it fastest here, instead of rows in order and float32."""
    bf16: bool = False
    """Whether that is bfloat16: without instructions for it, it takes ten times as long."""

    @property
    def path(self) -> Path:
        """Return the runner's own folder."""
        return Path(self.folder)


@dataclass(frozen=True)
class Found:
    """Say what a peer did."""

    loop_seconds: float
    losses: list[float]
    num_tokens: int
    """Real tokens, without padding, that the steps read."""
    note: str = ""
    """What differs from the others, in a few words."""


def read_rows(work: Work) -> list[dict[str, list[int]]]:
    """Return the rows of the asked steps with their labels."""
    rows = []
    with Path(work.rows).open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            ids, num_trained = row["ids"], row["num_trained"]
            labels = [IGNORED] * (len(ids) - num_trained) + ids[len(ids) - num_trained :]
            rows.append({"input_ids": ids, "labels": labels})
    return rows[: work.steps * work.batch]


def pad(rows: Sequence[dict[str, list[int]]]) -> dict[str, list[list[int]]]:
    """Pad rows to the longest, to the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    gaps = [longest - len(row["input_ids"]) for row in rows]
    pairs = list(zip(rows, gaps, strict=True))
    return {
        "input_ids": [row["input_ids"] + [0] * gap for row, gap in pairs],
        "labels": [row["labels"] + [IGNORED] * gap for row, gap in pairs],
        "attention_mask": [[1] * len(row["input_ids"]) + [0] * gap for row, gap in pairs],
    }


def count(rows: Sequence[dict[str, list[int]]]) -> int:
    """Count the tokens of rows."""
    return sum(len(row["input_ids"]) for row in rows)


def own_command(work: Work) -> list[str]:
    """Return the command that calls the runner's own `train`."""
    return [sys.executable, sys.argv[0], "train", str(work.path / "work.json")]


def script(name: str) -> str:
    """Return a console script of the runner's own environment."""
    return str(Path(sys.executable).with_name(name))


def keep(work: Work, found: Found) -> None:
    """Leave what `train` found for `left`."""
    (work.path / "found.json").write_text(json.dumps(asdict(found)), encoding="utf-8")


def left(work: Work) -> Found:
    """Return what `train` left: the `collect` of a peer that is driven from Python."""
    return Found(**json.loads((work.path / "found.json").read_text(encoding="utf-8")))


class Clock:
    """Time a loop from `start` to the last `tick`, and keep the losses of its steps."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.losses: list[float] = []

    def start(self) -> None:
        """Begin the loop."""
        self.began = self.ended = time.perf_counter()

    def tick(self, loss: float | None = None) -> None:
        """End a step."""
        self.ended = time.perf_counter()
        if loss is not None:
            self.losses.append(loss)

    def found(self, num_tokens: int, note: str = "") -> Found:
        """Sum it up."""
        return Found(self.ended - self.began, self.losses, num_tokens, note)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed here."""
    installed: dict[str, str] = {}
    for one in distributions():  # the first on the path is the one that is imported
        installed.setdefault(one.metadata["Name"].lower().replace("_", "-"), one.version)
    return {name: installed[name] for name in names if name in installed}


def main(
    prepare: Callable[[Work], list[str]],
    collect: Callable[[Work], Found],
    train: Callable[[Work], None] | None = None,
    *,
    packages: Sequence[str],
) -> None:
    """Do what the driver asks for: `RUNNER prepare|train|collect WORK.json`."""
    verb, file = sys.argv[1:]
    work = Work(**json.loads(Path(file).read_text(encoding="utf-8")))
    answer: Any = None
    if verb == "prepare":
        answer = {"command": prepare(work)}
    elif verb == "collect":
        stack = ("torch", "transformers", "peft")
        answer = {**asdict(collect(work)), "versions": versions([*packages, *stack])}
    elif train is not None:
        train(work)
    if answer is not None:
        (work.path / f"{verb}.json").write_text(json.dumps(answer), encoding="utf-8")
