"""Answer with what a run trained: one prompt, a conversation, or a file of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from peftkit.errors import DataError, ResourceError, UsageError
from peftkit.plugins.examples import Labeled
from peftkit.preprocessing.encode import source_limit
from peftkit.rundir.paths import RunDir
from peftkit.scoring.prompts import Question, question_of_row, question_of_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Method, Task
    from peftkit.scoring.classifier import Prediction
    from peftkit.scoring.generation import Prompts
    from peftkit.training.open_run import TrainedRun

    Model: TypeAlias = PreTrainedModel | PeftModel

ANSWER = "generated"
"""Key that holds the answer in a batch's lines."""
LABEL = ("predicted", "probabilities")
"""Keys that hold a classifier's answer."""
BATCHES_AT_ONCE = 8
"""Batches of a file that share one sorting by length, and that a stop can lose."""


@dataclass(frozen=True)
class Reply:
    """Hold one answer."""

    text: str
    notes: tuple[str, ...] = ()
    """What the text does not show: that it, or the prompt, was cut."""


@dataclass(frozen=True)
class Answerer:
    """Hold a run's model, loaded and ready to answer."""

    task: Task
    model: Model
    tokenizer: PreTrainedTokenizerBase
    config: GenerationConfig
    batch_size: int
    max_tokens: int | None
    """Longest prompt that leaves room for an answer; None where positions are unbounded."""

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, writing the answer piece by piece."""
        from peftkit.scoring.generation import stream_answer

        prompts = self._encode([question])
        text, is_finished = stream_answer(
            self.model,
            self.tokenizer,
            prompts.input_ids[0],
            config=self.config,
            write=write,
            seed=seed,
        )
        notes = []
        if prompts.num_cut:
            notes.append(f"the prompt was cut to the {self.max_tokens} tokens that leave room")
        if not is_finished:
            limit = self.config.max_new_tokens
            notes.append(f"the answer was cut at max_new_tokens {limit}")
        return Reply(text, tuple(notes))

    def reply_many(self, questions: Sequence[Question]) -> list[str]:
        """Answer several questions in batches, in their order."""
        from peftkit.scoring.generation import answer

        found = answer(
            self.model,
            self.tokenizer,
            self._encode(questions),
            config=self.config,
            batch_size=self.batch_size,
        )
        return list(found.texts)

    def fits(self, messages: Sequence[Mapping[str, str]]) -> bool:
        """Tell whether a conversation leaves room for an answer."""
        return self._encode([Question(messages=tuple(messages))]).num_cut == 0

    def _encode(self, questions: Sequence[Question]) -> Prompts:
        from peftkit.scoring.generation import Prompts, encode_prompts, prompt_encoder

        if not any(question.text for question in questions):
            asked = [question.messages for question in questions]
            return encode_prompts(
                asked,
                self.tokenizer,
                max_tokens=self.max_tokens,
                encode=prompt_encoder(self.model),
            )
        encoded = [self.tokenizer(question.text)["input_ids"] for question in questions]
        kept = [ids[-self.max_tokens :] if self.max_tokens else ids for ids in encoded]
        num_cut = sum(len(ids) > len(rest) for ids, rest in zip(encoded, kept, strict=True))
        return Prompts(tuple(map(tuple, kept)), num_cut, self.max_tokens)


@dataclass(frozen=True)
class Labeler:
    """Hold a run's classifier, loaded and ready to name labels."""

    task: Task
    method: Method
    model: Model
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def label_many(self, questions: Sequence[Question]) -> list[Prediction]:
        """Name the label of several texts in batches, in their order."""
        from peftkit.scoring.classifier import classify, encoded_rows

        asked = [Labeled(question.texts, "") for question in questions]
        rows = encoded_rows(self.method, asked, self.tokenizer)
        return classify(self.model, self.tokenizer, rows, batch_size=self.batch_size)


class Conversation:
    """Keep a conversation with a model, as far as its run learned to hold one.

    A run whose task asks one question about one text (`summarize`) never saw a second turn, so
    each of its prompts stands alone.
    """

    def __init__(self, answerer: Answerer) -> None:
        """Begin a conversation.

        Raises:
            UsageError: an encoder reads one text, and none of these models saw a second turn.
        """
        if answerer.model.config.is_encoder_decoder:
            raise UsageError(
                "an encoder-decoder answers one text at a time and holds no conversation",
                hint="peftkit generate RUN 'a text', or --file ROWS.jsonl",
            )
        self._answerer = answerer
        self._messages: list[Mapping[str, str]] = []
        self._num_asked = 0
        probe = question_of_text(answerer.task, "a")
        self.is_kept = probe.messages == ({"role": "user", "content": "a"},)
        """Whether earlier turns are part of the next prompt."""

    def say(self, prompt: str, write: Callable[[str], None]) -> Reply:
        """Answer the next prompt; the oldest turns are left out where they leave no room."""
        question = question_of_text(self._answerer.task, prompt)
        self._num_asked += 1
        if not self.is_kept:
            return self._answerer.reply(question, write, seed=self._num_asked)
        self._messages += question.messages
        num_before = len(self._messages)
        while len(self._messages) > 1 and not self._answerer.fits(self._messages):
            del self._messages[:2]
        num_left_out = num_before - len(self._messages)
        asked = Question(messages=tuple(self._messages))
        reply = self._answerer.reply(asked, write, seed=self._num_asked)
        self._messages.append({"role": "assistant", "content": reply.text})
        if not num_left_out:
            return reply
        note = f"the first {num_left_out} messages were left out to make room"
        return Reply(reply.text, (note, *reply.notes))

    def forget_last(self) -> None:
        """Take back a prompt whose answer was stopped."""
        if self._messages and self._messages[-1]["role"] == "user":
            self._messages.pop()


def open_answerer(
    path: Path, *, options: Sequence[str] = (), with_base: bool = False
) -> Answerer | Labeler:
    """Load a finished run to answer prompts, or to name labels.

    Args:
        options: `KEY=VALUE` of `transformers.GenerationConfig`, over those of the recipe.
        with_base: answer with the base model, as it was before training.

    Raises:
        ArtefactError: the directory holds no trained model.
        UsageError: an option is unknown or impossible; or there is no base, or none that knows
            labels.
    """
    from peftkit.scoring import generation
    from peftkit.system.exhaustion import exhaustion_explained
    from peftkit.training.open_run import load_base_of, load_tuned, open_run

    stated = dict(_pairs(options))
    run = open_run(RunDir(path))
    if with_base and run.built.recipe.model.config is not None:
        raise UsageError(f"{path} trained a model from scratch: it has no base")
    if Labeled in run.built.method.examples:
        return _open_labeler(run, stated, with_base=with_base)
    with exhaustion_explained("loading the model"):
        model = load_base_of(run.built, run.device) if with_base else load_tuned(run)
    scoring = run.built.recipe.scoring
    config = generation.generation_config(
        {**scoring.generation, **stated},
        run.tokenizer,
        stop_ids=generation.stop_token_ids(model, run.tokenizer),
    )
    return Answerer(
        task=run.built.task,
        model=model,
        tokenizer=run.tokenizer,
        config=config,
        batch_size=scoring.batch_size,
        max_tokens=generation.max_prompt_tokens(
            model, config, longest=source_limit(run.built.method)
        ),
    )


def _open_labeler(run: TrainedRun, stated: Mapping[str, Any], *, with_base: bool) -> Labeler:
    from peftkit.system.exhaustion import exhaustion_explained
    from peftkit.training.open_run import load_tuned

    if with_base:
        raise UsageError("the base knows no labels: its classification head is new and untrained")
    if stated:
        raise UsageError(f"a classifier generates nothing, so {next(iter(stated))} has no use")
    with exhaustion_explained("loading the model"):
        model = load_tuned(run)
    return Labeler(
        run.built.task, run.built.method, model, run.tokenizer, run.built.recipe.scoring.batch_size
    )


def read_questions(task: Task, file: Path) -> list[tuple[Mapping[str, Any], Question]]:
    """Read a JSON or JSONL file of rows, each with the question that its task makes of it.

    Raises:
        DataError: lines are malformed, or rows lack what the task asks about; shows the first ten.
    """
    from peftkit.sources.json_rows import HINT, read_json
    from peftkit.sources.rows import BadLines

    bad = BadLines()
    asked = []
    for row in read_json([file], None, bad):
        try:
            for column in (ANSWER, *LABEL):
                if column in row.values:
                    raise DataError(f"the row has a column {column!r} already")
            asked.append((row.values, question_of_row(task, row.values)))
        except (DataError, UsageError) as error:
            bad.add(row.place, error.message)
    bad.check(hint=f"rows as the run's data, or objects with a prompt; {HINT}")
    if not asked:
        raise DataError(f"{file} holds no rows")
    return asked


def answer_file(
    answerer: Answerer | Labeler,
    asked: Sequence[tuple[Mapping[str, Any], Question]],
    out: TextIO,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write each row as a JSON line, as soon as its answer is known.

    The answer stands under `generated`; a label under `predicted`, all of them with their
    probabilities under `probabilities`.
    """
    rows = iter(asked)
    done = 0
    while chunk := list(islice(rows, answerer.batch_size * BATCHES_AT_ONCE)):
        answers = _answers(answerer, [question for _, question in chunk])
        for (row, _), answer in zip(chunk, answers, strict=True):
            out.write(json.dumps({**row, **answer}, ensure_ascii=False) + "\n")
        out.flush()
        done += len(chunk)
        if progress:
            progress(done, len(asked))


def _answers(
    answerer: Answerer | Labeler, questions: Sequence[Question]
) -> Iterator[Mapping[str, Any]]:
    if isinstance(answerer, Labeler):
        for one in answerer.label_many(questions):
            yield dict(zip(LABEL, (one.label, one.probabilities), strict=True))
    else:
        for text in answerer.reply_many(questions):
            yield {ANSWER: text}


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
