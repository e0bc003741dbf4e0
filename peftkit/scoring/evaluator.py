"""Put the same questions to one model after the other, and mark the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import DataError
from peftkit.plugins.examples import Conversation, Example, Text
from peftkit.preprocessing.encode import source_limit

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Method
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import EvaluateSection
    from peftkit.scoring.generation import Prompts

    Model: TypeAlias = PreTrainedModel | PeftModel

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the rows done and their total."""


@dataclass(frozen=True)
class Contestant:
    """Hold one model's part of an evaluation."""

    metrics: dict[str, float | None]
    texts: tuple[str, ...]
    """Answers in the rows' order; empty when nothing is generated."""
    num_unfinished: int
    """Answers that reached the limit of new tokens without an end."""
    probabilities: tuple[float, ...] = ()
    """Of each answer, where it is a label."""


class Exam:
    """Put the same questions to one model after the other."""

    def __init__(
        self,
        built: Built,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        model: Model,
        progress: Progress | None,
    ) -> None:
        self._task, self._tokenizer, self._progress = built.task, tokenizer, progress
        scoring = built.recipe.scoring
        self._batch_size = scoring.batch_size
        self.notes: tuple[str, ...] = ()
        self.prompts: Prompts | None = None
        self.options: dict[str, Any] = {}
        self.references: list[str] = []
        asked = [example for example in examples if isinstance(example, Conversation)]
        if asked:
            self._prepare_questions(asked, scoring, model, built.method)
        self._encode(built, examples, model)

    def _prepare_questions(
        self,
        asked: Sequence[Conversation],
        scoring: EvaluateSection,
        model: Model,
        method: Method,
    ) -> None:
        from peftkit.scoring import generation

        stops = generation.stop_token_ids(model, self._tokenizer)
        self._config = generation.generation_config(
            scoring.generation, self._tokenizer, stop_ids=stops
        )
        self.options = {
            key: value for key, value in self._config.to_diff_dict().items()
            if key != "transformers_version"
        }  # fmt: skip
        self.prompts = generation.encode_prompts(
            [example.prompt for example in asked],
            self._tokenizer,
            max_tokens=generation.max_prompt_tokens(
                model, self._config, longest=source_limit(method)
            ),
            encode=generation.prompt_encoder(model),
        )
        self.references = [example.reference for example in asked]

    def _encode(self, built: Built, examples: Sequence[Example], model: Model) -> None:
        from peftkit.models.load import max_positions
        from peftkit.scoring.generation import num_virtual_tokens
        from peftkit.scoring.perplexity import windows

        positions = max_positions(model.config)
        room = None if positions is None else positions - num_virtual_tokens(model)
        encode = getattr(built.method, "encode_many", None)
        encoded = (
            encode(examples, self._tokenizer) if encode
            else [built.method.encode(example, self._tokenizer) for example in examples]
        )  # fmt: skip
        self._rows: list[Mapping[str, Sequence[int]]] = []
        self._num_bytes = 0
        for example, row in zip(examples, encoded, strict=True):
            if isinstance(row, DataError):
                raise row
            if isinstance(example, Text):
                self._rows += windows(row, room)
                first = self._tokenizer.decode(row["input_ids"][:1])
                self._num_bytes += len(example.text.encode()) - len(first.encode())
            elif self.prompts and model.config.is_encoder_decoder:
                source = self.prompts.input_ids[len(self._rows)]
                self._rows.append({"input_ids": source, "labels": list(row["labels"])[:positions]})
            else:
                self._rows.append({key: list(ids)[:room] for key, ids in row.items()})

    def take(self, model: Model, name: str) -> Contestant:
        """Let one model answer every prompt and read every row."""
        from peftkit.scoring import generation, perplexity

        texts: tuple[str, ...] = ()
        num_unfinished = 0
        metrics: dict[str, float | None] = {}
        if self.prompts:
            answers = generation.answer(
                model, self._tokenizer, self.prompts, config=self._config,
                batch_size=self._batch_size, progress=self._say(f"{name} answers"),
            )  # fmt: skip
            texts, num_unfinished = answers.texts, answers.num_unfinished
            metrics.update(self._task.score(texts, self.references))
        loss = perplexity.token_loss(model, self._rows, progress=self._say(f"{name} reads"))
        metrics["perplexity"] = loss.perplexity
        if not self.prompts:
            metrics["bits_per_byte"] = loss.bits_per_byte(self._num_bytes)
        return Contestant(metrics, texts, num_unfinished)

    def _say(self, what: str) -> Callable[[int, int], None] | None:
        progress = self._progress
        return (lambda done, total: progress(what, done, total)) if progress else None
