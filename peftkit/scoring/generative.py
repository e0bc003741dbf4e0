"""Score language models by their answers and by how well they read, and answer with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import UsageError
from peftkit.models.load import max_positions
from peftkit.plugins.evaluation import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.examples import Question
from peftkit.plugins.native import num_virtual_tokens
from peftkit.scoring import generation, perplexity
from peftkit.scoring.asked import ask_again
from peftkit.sources.formats import rendering_for

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from peftkit.plugins import Example, Row

    Model: TypeAlias = PreTrainedModel | PeftModel

ANSWER = "generated"
"""Key that holds the answer in a file of answers."""


class GenerativeEvaluator(Evaluator):
    """Let each model answer every prompt and read every row; running text is only read."""

    def __init__(self, scoring: Scoring) -> None:
        """Encode the questions and the rows, for every contestant alike.

        Raises:
            UsageError: a generation option is impossible, or the rows hold nothing to read.
        """
        super().__init__(scoring)
        self.prompts: generation.Prompts | None = None
        asked = [example for example in scoring.examples if example.prompt]
        if asked:
            self._prepare_questions(asked)
        else:
            self.headline = "bits_per_byte"
        self._rows: list[Mapping[str, Sequence[int]]] = []
        self._num_bytes = 0
        self._prepare_rows()

    def _prepare_questions(self, asked: Sequence[Example]) -> None:
        scoring = self.scoring
        stops = generation.stop_token_ids(scoring.model, scoring.tokenizer)
        self._config = generation.generation_config(
            scoring.generation, scoring.tokenizer, stop_ids=stops
        )
        self.options = {
            key: value for key, value in self._config.to_diff_dict().items()
            if key != "transformers_version"
        }  # fmt: skip
        encode = generation.prompt_encoder(scoring.model)
        max_tokens = generation.max_prompt_tokens(
            scoring.model, self._config, longest=scoring.source_limit
        )
        self.prompts = generation.encode_prompts(
            list(self._questions(encode, max_tokens)),
            scoring.tokenizer,
            max_tokens=max_tokens,
            encode=encode,
        )
        self.references = [example.reference for example in asked]
        self.num_cut = self.prompts.num_cut
        self.notes = tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        from peftkit.scoring.decoding import why_not

        if reason := why_not(self.scoring.model, self._config):
            yield f"transformers' own loop, which takes longer, wrote the answers: {reason}."
        if self.num_cut and self.prompts:
            yield (
                f"{self.num_cut} prompts were longer than {self.prompts.max_tokens} tokens and"
                " lost the end of their last message, for base and tuned alike."
            )

    def _questions(self, encode: generation.Encode, max_tokens: int | None) -> Iterator[Question]:
        """Give each prompt; its document is shortened to make room, where rows' documents were."""
        scoring = self.scoring
        for at, example in enumerate(scoring.examples):
            question = example.question()
            if example.prompt and scoring.shortened and max_tokens is not None:
                question = ask_again(
                    scoring.task,
                    scoring.raw[at],
                    question,
                    lambda one: len(encode(one, scoring.tokenizer)) - max_tokens,
                    shortened=scoring.shortened,
                    tokenizer=scoring.tokenizer,
                )
            if example.prompt:
                yield question

    def _prepare_rows(self) -> None:
        model = self.scoring.model
        positions = max_positions(model.config)
        room = None if positions is None else positions - num_virtual_tokens(model)
        sources = iter(self.prompts.input_ids if self.prompts else ())
        for example, rows in zip(self.scoring.examples, self.scoring.rows, strict=True):
            for row in rows:
                _check_read(row)
            if not example.prompt:
                self._add_text(example, rows, room)
            elif model.config.is_encoder_decoder:
                source = next(sources)
                targets = [list(row["labels"])[:positions] for row in rows]
                self._rows += [{"input_ids": source, "labels": target} for target in targets]
            else:
                self._rows += [
                    {key: list(row[key])[:room] for key in ("input_ids", "labels")} for row in rows
                ]

    def _add_text(self, example: Example, rows: Sequence[Row], room: int | None) -> None:
        for row in rows:
            self._rows += perplexity.windows(row, room)
        # Nothing comes before the first token, so that nobody predicts it.
        first = self.scoring.tokenizer.decode(rows[0]["input_ids"][:1])
        self._num_bytes += sum(len(text.encode()) for text in example.texts) - len(first.encode())

    def take(self, model: Model, name: str) -> Contestant:
        """Let one model answer every prompt and read every row."""
        scoring = self.scoring
        texts: tuple[str, ...] = ()
        num_unfinished = 0
        metrics: dict[str, float | None] = {}
        if self.prompts:
            answers = generation.answer(
                model, scoring.tokenizer, self.prompts, config=self._config,
                batch_size=scoring.batch_size, progress=scoring.say(f"{name} answers"),
            )  # fmt: skip
            texts, num_unfinished = answers.texts, answers.num_unfinished
            metrics.update(scoring.task.score(texts, self.references))
        loss = perplexity.token_loss(model, self._rows, progress=scoring.say(f"{name} reads"))
        metrics["perplexity"] = loss.perplexity
        if not self.prompts:
            metrics["bits_per_byte"] = loss.bits_per_byte(self._num_bytes)
        return Contestant(metrics, texts, num_unfinished)


def _check_read(row: Row) -> None:
    """Refuse rows that say not which of their tokens are expected."""
    missing = [key for key in ("input_ids", "labels") if key not in row]
    if missing:
        raise UsageError(
            f"the method's rows have no {' and no '.join(missing)}, and a language model is scored"
            " by how well it expects them",
            hint="give the method an evaluator of its own: docs/plugins.md",
        )


class GenerativeAnswerer(Answerer):
    """Answer with a language model, as an evaluation lets it answer."""

    columns = (ANSWER,)

    def __init__(self, asking: Asking) -> None:
        """Load the model and settle how it answers.

        Raises:
            UsageError: a generation option is unknown or impossible.
        """
        super().__init__(asking)
        self._rendering = rendering_for(asking.rendering, {})
        self.config = generation.generation_config(
            {**asking.generation, **asking.options},
            self.tokenizer,
            stop_ids=generation.stop_token_ids(self.model, self.tokenizer),
        )
        self.max_tokens = generation.max_prompt_tokens(
            self.model, self.config, longest=asking.source_limit
        )
        """Longest prompt that leaves room for an answer; None where positions are unbounded."""
        self._max_length = asking.max_length
        # An encoder reads one text, and none of these models saw a second turn.
        is_apart = self.model.config.is_encoder_decoder
        self.no_conversation = "an encoder-decoder answers one text at a time" if is_apart else ""

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, writing the answer piece by piece."""
        prompts = self._encode([question])
        text, is_finished = generation.stream_answer(
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

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Answer several questions in batches, in their order."""
        found = generation.answer(
            self.model,
            self.tokenizer,
            self._encode(questions),
            config=self.config,
            batch_size=self.batch_size,
        )
        for text in found.texts:
            yield {ANSWER: text}

    def excess(self, question: Question) -> int:
        """Return by how many tokens a prompt, with its answer, is longer than rows of training."""
        encode = generation.prompt_encoder(self.model)
        num_tokens = len(encode(question.rendered(self._rendering), self.tokenizer))
        limits = [] if self.max_tokens is None else [self.max_tokens]
        if self._max_length is not None:
            is_apart = self.model.config.is_encoder_decoder
            num_new = min(self.config.max_new_tokens or 1, self._max_length // 2)
            limits.append(self._max_length - (0 if is_apart else num_new))
        return num_tokens - min(limits, default=num_tokens)

    def fits(self, question: Question) -> bool:
        """Tell whether a conversation leaves room for an answer."""
        return self._encode([question]).num_cut == 0

    def _encode(self, questions: Sequence[Question]) -> generation.Prompts:
        if not any(question.text for question in questions):
            return generation.encode_prompts(
                [question.rendered(self._rendering) for question in questions],
                self.tokenizer,
                max_tokens=self.max_tokens,
                encode=generation.prompt_encoder(self.model),
            )
        encoded = [self.tokenizer(question.text)["input_ids"] for question in questions]
        kept = [ids[-self.max_tokens :] if self.max_tokens else ids for ids in encoded]
        num_cut = sum(len(ids) > len(rest) for ids, rest in zip(encoded, kept, strict=True))
        return generation.Prompts(tuple(map(tuple, kept)), num_cut, self.max_tokens)
