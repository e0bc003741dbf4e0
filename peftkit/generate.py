"""Answer with what a run trained: one prompt, a conversation, or a file of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from peftkit.errors import DataError, ResourceError, UsageError
from peftkit.plugins.evaluation import Answerer, Reply
from peftkit.plugins.examples import Message, Question
from peftkit.rundir.paths import RunDir
from peftkit.scoring.asked import ask_row, ask_text
from peftkit.scoring.by_kind import answerer_for
from peftkit.scoring.prompts import answered_of_row, question_of_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from peftkit.sources.rows import BadLines, Row

    Model: TypeAlias = PreTrainedModel | PeftModel

BATCHES_AT_ONCE = 8
"""Batches of a file that share one sorting by length, and that a stop can lose."""


class Conversation:
    """Keep a conversation with a model, as far as its run learned to hold one.

    A run whose task asks one question about one text (`summarize`) never saw a second turn, so
    each of its prompts stands alone.
    """

    def __init__(self, answerer: Answerer) -> None:
        """Begin a conversation.

        Raises:
            UsageError: the model answers one text at a time.
        """
        if answerer.no_conversation:
            raise UsageError(
                f"{answerer.no_conversation} and holds no conversation",
                hint="peftkit generate RUN 'a text', or --file ROWS.jsonl",
            )
        self._answerer = answerer
        self._messages: list[Message] = []
        self._num_asked = 0
        probe = question_of_text(answerer.task, "a")
        self.is_kept = probe.messages == ({"role": "user", "content": "a"},)
        """Whether earlier turns are part of the next prompt."""

    def say(self, prompt: str, write: Callable[[str], None]) -> Reply:
        """Answer the next prompt; the oldest turns are left out where they leave no room."""
        question = ask_text(self._answerer, prompt)
        self._num_asked += 1
        if not self.is_kept:
            return self._answerer.reply(question, write, seed=self._num_asked)
        self._messages += question.messages
        num_before = len(self._messages)
        while len(self._messages) > 1 and not self._answerer.fits(self._asked):
            del self._messages[:2]
        num_left_out = num_before - len(self._messages)
        asked = self._asked
        reply = self._answerer.reply(asked, write, seed=self._num_asked)
        self._messages.append({"role": "assistant", "content": reply.text})
        if not num_left_out:
            return reply
        note = f"the first {num_left_out} messages were left out to make room"
        return replace(reply, notes=(note, *reply.notes))

    @property
    def _asked(self) -> Question:
        return Question(messages=tuple(self._messages))

    def forget_last(self) -> None:
        """Take back a prompt whose answer was stopped."""
        if self._messages and self._messages[-1]["role"] == "user":
            self._messages.pop()


def open_answerer(  # noqa: PLR0913
    path: str | Path,
    *,
    options: Sequence[str] = (),
    untrained: bool = False,
    base: str | None = None,
    system: str | None = None,
    allow_other_base: bool = False,
) -> Answerer:
    """Load a finished run, or any model or adapter, to answer prompts or to name labels.

    Args:
        path: a run directory; the folder of a model or of an adapter; `embedded:NAME`; a Hub id.
        options: `KEY=VALUE` of `transformers.GenerationConfig`, over those of the recipe.
        untrained: answer with a run's base model, as it was before training.
        base: where the base lies now; where the run says when absent.
        system: the system message before prompts that have none; that under which the run was
            trained when None, and none when empty.
        allow_other_base: answer although the base's weights are other ones than in training.

    Raises:
        ArtefactError: the directory holds no trained model.
        UsageError: an option is unknown or impossible; or there is no base, or none that knows
            labels; or nothing answers with a model of this kind.
    """
    from peftkit.system.exhaustion import exhaustion_explained
    from peftkit.training.open_model import is_model, open_model
    from peftkit.training.open_run import load_tuned, load_untrained, open_run

    path, stated = Path(path), dict(_pairs(options))
    if not RunDir(path).resolved.exists() and is_model(str(path)):
        if untrained:
            raise UsageError(f"{path} is no run, so nothing says what it was before training")
        found = open_model(str(path), base=base, allow_other_base=allow_other_base)
        return answerer_for(found.built, found.load, found.tokenizer, options=stated)
    run = open_run(RunDir(path), use="generate", base=base, allow_other_base=allow_other_base)
    if untrained and run.built.recipe.model.config is not None:
        raise UsageError(f"{path} trained a model from scratch: it has no base")

    def load() -> Model:
        with exhaustion_explained("loading the model"):
            return load_untrained(run) if untrained else load_tuned(run)

    if system is None:
        own = run.built.recipe.data.dialogue.system or ""
        system = trained_system(run.run_dir) or own
    return answerer_for(
        run.built, load, run.tokenizer, options=stated, is_base=untrained, system=system
    )


def ask(answerer: Answerer, prompt: str, **columns: str) -> str:
    """Return the answer to one prompt: a text, or a label's name.

    Args:
        columns: what else the task asks with, e.g. `context=page` of questions about a text.

    Raises:
        UsageError: the prompt is empty, or the question needs columns that nobody gave.
    """
    return answerer.reply(ask_text(answerer, prompt, columns), lambda _: None).text


def trained_system(run_dir: RunDir) -> str:
    """Return the system message that a run was trained under; empty where its rows share none."""
    return str(run_dir.read_if_there(run_dir.data).get("system", ""))


def read_questions(
    answerer: Answerer, file: str | Path
) -> list[tuple[Mapping[str, Any], Question]]:
    """Read a file of rows, each with the question that the run's task makes of it.

    Args:
        file: JSON, JSONL, CSV, Parquet, Arrow ..., or a text with a prompt in every line.

    Raises:
        DataError: lines are malformed, or rows lack what the task asks about; shows the first ten.
        UsageError: nothing reads a file of this name.
    """
    from peftkit.sources.json_rows import HINT
    from peftkit.sources.rows import BadLines

    bad = BadLines()
    asked = []
    for row in _rows_of(Path(file), bad):
        try:
            for column in answerer.columns:
                if column in row.values:
                    raise DataError(f"the row has a column {column!r} already")
            judged = answerer.judges
            question = (
                answered_of_row(answerer.task, row.values)
                if judged
                else ask_row(answerer, row.values)
            )
            asked.append((row.values, question))
        except (DataError, UsageError) as error:
            bad.add(row.place, error.message)
    bad.check(hint=f"rows as the run's data, or objects with a prompt; {HINT}")
    if not asked:
        raise DataError(f"{file} holds no rows")
    return asked


def _rows_of(file: Path, bad: BadLines) -> Iterator[Row]:
    """Give a file's rows by whatever source reads it."""
    from peftkit.plugins import find
    from peftkit.sources.json_rows import read_json
    from peftkit.sources.paths import lines_of, open_bytes
    from peftkit.sources.recognise import recognise
    from peftkit.sources.rows import Row

    found = recognise(file)
    if found.source == "json" and "field" not in found.options:
        yield from read_json([file], None, bad)
    elif found.source == "text":
        with open_bytes(file) as stream:
            for number, line in lines_of(file, stream):
                try:
                    prompt = line.decode("utf-8").strip()
                except UnicodeDecodeError:
                    bad.add(f"{file}:{number}", "is not UTF-8")
                    continue
                if prompt:
                    yield Row(f"{file}:", number, {"prompt": prompt})
    else:
        plugin = find("sources", found.source)
        source = plugin(plugin.Config(**found.options))
        for split in source.splits() or ("train",):
            for number, values in enumerate(source.load(split)):
                yield Row(f"{file} row ", number, values)


def answer_file(
    answerer: Answerer,
    asked: Sequence[tuple[Mapping[str, Any], Question]],
    out: TextIO,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write each row as a JSON line with its answer's columns, as soon as the answer is known."""
    rows = iter(asked)
    done = 0
    while chunk := list(islice(rows, answerer.batch_size * BATCHES_AT_ONCE)):
        answers = answerer.reply_many([question for _, question in chunk])
        for (row, _), answer in zip(chunk, answers, strict=True):
            # What JSON lacks, as a date of a Parquet file, is written as its text.
            line = json.dumps({**row, **answer}, ensure_ascii=False, default=str)
            out.write(line + "\n")
        out.flush()
        done += len(chunk)
        if progress:
            progress(done, len(asked))


def open_out(file: Path) -> TextIO:
    """Create the file of a batch's answers.

    Raises:
        UsageError: it exists already.
        ResourceError: it cannot be created.
    """
    try:
        return file.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{file} exists already", hint="name another file with --out") from None
    except OSError as error:
        raise ResourceError(f"cannot write {file}: {error.strerror}") from error


def _pairs(options: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from peftkit.recipe.yaml_file import parse_value

    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(
                f"{option!r} is not KEY=VALUE", hint="e.g. --option max_new_tokens=128"
            )
        yield key.strip(), parse_value(value, "--option")
