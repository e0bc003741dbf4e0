"""Look at a data file and write the recipe for it."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import files as files_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit import embedded
from peftkit.errors import DataError, EmptyValueError, UsageError
from peftkit.plugins import Source, Task, find
from peftkit.plugins.examples import Example
from peftkit.preprocessing.audit import describe_dropped
from peftkit.preprocessing.guess_task import Guess, guess_task, take_task
from peftkit.preprocessing.splits import assign, split_key
from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import write_atomically
from peftkit.sources.recognise import recognise

if TYPE_CHECKING:
    from datasets import Dataset

SIBLINGS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}
SEEN_ROWS = 1000
"""Rows that are looked at to guess the task."""
MEASURED_ROWS = 20_000
"""Rows whose lengths are measured."""
TOLERATED = 0.05
"""Share of unusable rows that the audit takes without being told."""
NEAR = 16
"""Tokens of the longest row that a chat template may add unseen."""
SHARES = (5, 10, 20, 30)
"""Percentages that are tried for the held-out splits, the smallest first."""
ENOUGH_ROWS = 20
WANTED_STEPS = 200
BATCH_SIZE = 8
EMBEDDED_MODEL = "docstring-lm"
EMBEDDED_ENCODER = "docstring-bert"
ENCODED = ("question_answering",)
"""Tasks whose model reads and writes nothing."""
HUB_MODEL = "Qwen/Qwen3-0.6B"
HUB_ENCODER = "google-bert/bert-base-uncased"


@dataclass(frozen=True)
class NewRecipe:
    """Say which recipe was written and why it says what it says."""

    file: Path
    text: str
    task: str
    notes: tuple[str, ...]
    """What was seen and decided, a line each."""

    def __str__(self) -> str:
        """Return the lines that the command prints."""
        next_step = f"next: peftkit data {self.file}, then peftkit run {self.file}"
        return "\n".join([*self.notes, f"wrote {self.file}", next_step])


@dataclass(frozen=True)
class Lengths:
    """Hold what the data's lengths ask for, in tokens of the embedded model."""

    p99: int
    """Tokens of a whole row that 99 % of rows do not exceed."""
    longest: int
    """Tokens of the longest row."""
    answer_p99: int
    """The same of the answer alone; 0 where nothing is answered."""
    positions: int
    """The longest sequence that the embedded model reads."""
    share_beyond: float
    """Share of rows longer than that."""


@dataclass(frozen=True)
class Draft:
    """Hold what a new recipe is filled with."""

    name: str
    data_name: str
    source: Mapping[str, Any]
    splits: Mapping[str, str]
    guess: Guess
    lengths: Lengths
    num_rows: int
    dropped: float = 0.0
    """Share of the file's rows that the task cannot use, though they are not empty."""
    rows: Mapping[str, Any] = field(default_factory=dict)
    """`data.rows`: what becomes of rows that are empty or too long."""


def init(
    data_file: str | Path,
    *,
    out: str | Path | None = None,
    task: str | None = None,
    columns: Sequence[str] = (),
) -> NewRecipe:
    """Write a commented recipe that trains on a file.

    Args:
        out: where to write it; in the working directory, by the data file's name, when absent.
        task: what the rows mean; guessed from the columns when absent.
        columns: `option=column` each, for those that cannot be guessed, e.g. `document=body`.

    Raises:
        UsageError: the columns fit no task or several, the format is unknown, or the recipe exists.
        DataError: the file is missing, malformed or empty.
    """
    data_file = Path(data_file)
    out = Path(out or f"{_slug(data_file)}.yaml")
    if out.exists():
        raise UsageError(
            f"{out} exists already", hint="delete it first, or write another: --out FILE.yaml"
        )
    found = recognise(data_file)
    name, options = found.source, found.options
    source = _construct("sources", name, options)
    rows, left_out = _read(source)
    guess = _choose(rows, task, columns, str(data_file))
    chosen = _construct("tasks", guess.task, guess.options)
    examples, num_empty = _examples(rows, chosen, str(data_file))
    lengths = measure(examples[:MEASURED_ROWS], embedded_model(guess.task))
    splits, files = choose_splits(data_file, examples, source.splits())
    out.parent.mkdir(parents=True, exist_ok=True)
    written = {name: {**options, "files": _relative(files, out.parent)}}
    dropped = 1 - (len(examples) + num_empty) / len(rows)
    unfit = choose_rows(chosen, lengths, num_empty, has_windows=guess.task in ENCODED)
    draft = Draft(
        _slug(out), data_file.name, written, splits, guess, lengths, len(examples), dropped, unfit
    )
    text = write_recipe(draft)
    write_atomically(out, text)
    load_recipe(out)
    notes = (
        f"{data_file}: {len(rows):,} rows with the columns {', '.join(rows.column_names)}",
        *found.reasons,
        *left_out,
        f"task {guess.task}: {guess.reason}",
        *_describe_dropped(dropped, num_empty),
        *_describe_splits(splits, files),
        *_describe_lengths(lengths, guess.task),
    )
    return NewRecipe(out, text, guess.task, notes)


def _read(source: Source) -> tuple[Dataset, tuple[str, ...]]:
    """Read the training rows, without columns of which no dataset could be made; say which."""
    try:
        return source.load("train"), ()
    except DataError as error:
        try:
            rows = source.load_columns("train", ())
        except DataError:
            raise error from None
        if not rows.column_names:
            raise
        return rows, (f"a column is left out: {error.message}",)


def measure(examples: Sequence[Example], model: str = EMBEDDED_MODEL) -> Lengths:
    """Measure rows with an embedded model's tokenizer, a few tokens a message added."""
    from tokenizers import Tokenizer

    folder = embedded.model_path(model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    positions = int(config["max_position_embeddings"])
    totals, answers = [], []
    for example in examples:
        encodings = tokenizer.encode_batch([*example.texts, example.answer])
        *counts, answer = (len(encoding.ids) for encoding in encodings)
        totals.append(sum(counts) + 4 * len(counts))
        answers.append(answer + 1 if example.answer else 0)
    num_beyond = sum(total > positions for total in totals)
    return Lengths(_p99(totals), max(totals), _p99(answers), positions, num_beyond / len(totals))


def choose_splits(
    data_file: Path, examples: Sequence[Example], native: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, Path]]:
    """Take the files beside `train.*` as the other splits, or cut shares that hold enough rows.

    Args:
        native: splits that a folder's files are named for.
    """
    files = {"train": data_file}
    if data_file.name.lower().startswith("train"):
        for split, stems in SIBLINGS.items():
            ending = data_file.name[len("train") :]
            paths = (data_file.with_name(stem + ending) for stem in stems)
            beside = next((path for path in paths if path.is_file()), None)
            if beside:
                files[split] = beside
    known = [split for split in ("train", "validation", "test") if split in {*files, *native}]
    if "test" in known:
        return {split: split for split in known}, files
    wanted = [split for split in ("validation", "test") if split not in known]
    keys = [split_key({}, example) for example in examples]
    share = next((share for share in SHARES if _holds_enough(keys, wanted, share)), SHARES[-1])
    return {**{split: split for split in known}, **dict.fromkeys(wanted, f"{share}%")}, files


def choose_rows(
    task: Task, lengths: Lengths, num_empty: int, *, has_windows: bool
) -> dict[str, str]:
    """Say what becomes of rows that are empty, or longer than the model reads."""
    chosen = {}
    if lengths.longest > lengths.positions - NEAR and not has_windows:
        chosen["too_long"] = "drop" if task.document is None else "cut"
    if num_empty:
        chosen["empty"] = "drop"
    return chosen


def embedded_model(task: str) -> str:
    """Name the embedded model that a task's recipe begins with."""
    return EMBEDDED_ENCODER if task in ENCODED else EMBEDDED_MODEL


def write_recipe(draft: Draft) -> str:
    """Fill the recipe's template."""
    import jinja2

    template = Path(str(files_of("peftkit.recipe"))) / "new_recipe.yaml.j2"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - YAML, not HTML; values pass through `flow`
    )
    guess, lengths = draft.guess, draft.lengths
    longest = lengths.p99 if guess.task in ENCODED else lengths.longest  # windows hold the rest
    max_length = min(_round_up(longest, 32), lengths.positions)
    answer_length = _round_up(max(lengths.answer_p99, 8), 8)
    epochs = min(max(math.ceil(WANTED_STEPS * BATCH_SIZE / draft.num_rows), 1), 10)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        name=flow(draft.name),
        data_name=" ".join(draft.data_name.split()),
        task=guess.task,
        hub_model=HUB_ENCODER if guess.task in ("classify", *ENCODED) else HUB_MODEL,
        embedded_model=embedded_model(guess.task),
        source=flow(draft.source),
        splits=flow(draft.splits),
        has_validation="validation" in draft.splits,
        task_choice=flow({guess.task: guess.options}),
        num_rows=draft.num_rows,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        max_length=max_length,
        # no answer may be cut by every window, and each must hold new words
        doc_stride=min(max(max_length // 4, answer_length), max_length // 2),
        p99=lengths.p99,
        longest=lengths.longest,
        rows=flow(draft.rows) if draft.rows else "",
        max_dropped=math.ceil(draft.dropped * 100) / 100 if draft.dropped > TOLERATED else None,
        positions=lengths.positions,
        answer_length=answer_length,
        num_new_tokens=min(_round_up(lengths.answer_p99, 16), 512),
    )


def flow(value: Any) -> str:
    """Write plain data as YAML on one line, quoting what YAML would take for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    """Escape as YAML does: unlike JSON, it reads a surrogate pair as two characters."""
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


_PLAIN = re.compile(r"[A-Za-z_][\w./-]*|\.{0,2}/[\w./-]+|\d+%", re.ASCII)
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})


def _choose(rows: Dataset, task: str | None, columns: Sequence[str], file: str) -> Guess:
    pairs = [column.partition("=") for column in columns]
    for option, equals, column in pairs:
        if not (option and equals and column):
            raise UsageError(
                f"--map {option}{equals}{column} is not OPTION=COLUMN", hint="--map document=body"
            )
    seen = rows.select(range(min(SEEN_ROWS, len(rows)))).to_list()
    if task is not None:
        return take_task(task, {o: c for o, _, c in pairs}, seen, file=file)
    if columns:
        raise UsageError("--map needs --task", hint="e.g. --task summarize --map document=body")
    return guess_task(seen, file=file)


def _construct(group: str, name: str, options: Mapping[str, Any]) -> Any:
    plugin = find(group, name)
    return plugin(plugin.Config(**options))


def _examples(rows: Dataset, task: Any, file: str) -> tuple[list[Example], int]:
    """Make the examples of all usable rows, and count those that are empty.

    Raises:
        DataError: none is; says why.
    """
    made: list[Example] = []
    reasons: Counter[str] = Counter()
    num_empty = 0
    for row in rows:
        try:
            made.append(task.example(row))
        except DataError as error:
            reasons[error.message] += 1
            num_empty += isinstance(error, EmptyValueError)
    if not made:
        raise DataError(
            f"{file}: none of {len(rows)} rows can be used: {describe_dropped(reasons)}",
            hint="mend the file, or name other columns with --map",
        )
    return made, num_empty


def _holds_enough(keys: Sequence[bytes], wanted: Sequence[str], share: int) -> bool:
    cuts = {split: Fraction(share, 100) for split in sorted(wanted)}
    found = Counter(assign(key, cuts) for key in keys)
    enough = min(ENOUGH_ROWS, max(1, len(keys) // 10))
    return all(found[split] >= enough for split in wanted)


def _relative(files: Mapping[str, Path], folder: Path) -> Any:
    """Write paths as seen from the recipe's folder, where its relative paths start."""
    written = {split: os.path.relpath(path, folder) for split, path in files.items()}
    return written if len(written) > 1 else written["train"]


def _describe_splits(splits: Mapping[str, str], files: Mapping[str, Path]) -> Iterator[str]:
    for split, value in splits.items():
        if split != "train":
            place = f"the file {files[split]}" if split in files else f"{value} of the rows"
            yield f"{split}: {place}"


def _describe_dropped(share: float, num_empty: int) -> Iterator[str]:
    if num_empty:
        rows = "1 row lacks" if num_empty == 1 else f"{num_empty:,} rows lack"
        yield f"{rows} a text, a label or an answer; the recipe leaves them out"
    if share > TOLERATED:
        yield f"{share:.0%} of rows cannot be used; the recipe says that they may be left out"


def _describe_lengths(lengths: Lengths, task: str) -> Iterator[str]:
    yield f"99 % of rows have at most {lengths.p99} tokens"
    if task in ENCODED and lengths.p99 > lengths.positions:
        yield f"longer contexts become windows of {lengths.positions} tokens"
    elif lengths.share_beyond > 0.01:
        yield (
            f"{lengths.share_beyond:.0%} of rows are longer than the {lengths.positions} tokens"
            f" that embedded:{EMBEDDED_MODEL} reads: the recipe says what becomes of them, or take"
            " its line for a Hub model"
        )


def _slug(file: Path) -> str:
    stem = file.name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "recipe"


def _p99(counts: Sequence[int]) -> int:
    ordered = sorted(counts)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple
