"""Let models that see answer about pictures: for scores, and for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.plugins.evaluation import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.examples import Question
from peftkit.preprocessing.pictures import process, prompt_text
from peftkit.scoring import generation
from peftkit.scoring.answer_text import AnswerText

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

    Model: TypeAlias = PreTrainedModel | PeftModel

ANSWER = "generated"


class PictureEvaluator(Evaluator):
    """Let each model answer about every row's pictures."""

    notes = ("Answers alone are scored: how well rows with pictures are expected is not measured.",)

    def __init__(self, scoring: Scoring, processor: ProcessorMixin) -> None:
        """Render the prompts, for every contestant alike.

        Raises:
            UsageError: a generation option is impossible.
        """
        super().__init__(scoring)
        self._processor = processor
        stops = generation.stop_token_ids(scoring.model, scoring.tokenizer)
        self._config = generation.generation_config(
            scoring.generation, scoring.tokenizer, stop_ids=stops
        )
        diff = self._config.to_diff_dict()
        self.options = {key: value for key, value in diff.items() if key != "transformers_version"}
        self._questions = [example.question() for example in scoring.examples]
        self.references = [example.reference for example in scoring.examples]

    def take(self, model: Model, name: str) -> Contestant:
        """Let one model answer every prompt."""
        scoring, answers = self.scoring, []
        say = scoring.say(f"{name} answers")
        for start in range(0, len(self._questions), scoring.batch_size):
            batch = self._questions[start : start + scoring.batch_size]
            answers += answer(model, self._processor, batch, self._config)
            if say:
                say(len(answers), len(self._questions))
        texts = tuple(text for text, _ in answers)
        metrics: dict[str, float | None] = {**scoring.task.score(texts, self.references)}
        return Contestant(metrics, texts, sum(not is_finished for _, is_finished in answers))


class PictureAnswerer(Answerer):
    """Answer about pictures, as an evaluation lets it answer."""

    columns = (ANSWER,)
    no_conversation = "a model that sees answers one question at a time here"

    def __init__(self, asking: Asking, processor: ProcessorMixin) -> None:
        """Load the model and settle how it answers.

        Raises:
            UsageError: a generation option is unknown or impossible.
        """
        super().__init__(asking)
        self._processor, self._rendering = processor, asking.rendering
        self.config = generation.generation_config(
            {**asking.generation, **asking.options},
            self.tokenizer,
            stop_ids=generation.stop_token_ids(self.model, self.tokenizer),
        )

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, and write the answer."""
        ((text, is_finished),) = self._answer([question], seed)
        write(text)
        limit = f"the answer was cut at max_new_tokens {self.config.max_new_tokens}"
        return Reply(text, () if is_finished else (limit,))

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Answer several questions in batches, in their order."""
        for start in range(0, len(questions), self.batch_size):
            for text, _ in self._answer(questions[start : start + self.batch_size], 0):
                yield {ANSWER: text}

    def _answer(self, questions: Sequence[Question], seed: int) -> list[tuple[str, bool]]:
        asked = [replace(question, rendering=self._rendering) for question in questions]
        return answer(self.model, self._processor, asked, self.config, seed=seed)


def answer(
    model: Model,
    processor: ProcessorMixin,
    questions: Sequence[Question],
    config: GenerationConfig,
    *,
    seed: int = 0,
) -> list[tuple[str, bool]]:
    """Generate an answer to each question of one batch; say whether it came to an end by itself.

    Args:
        seed: of consequence only where the config asks for sampling.

    Raises:
        DataError: a picture cannot be read, or the template refuses a question.
    """
    import torch

    texts = [prompt_text(question, processor) for question in questions]
    images = [[picture.open() for picture in question.pictures] for question in questions]
    made = process(
        processor, texts, images, padding=True, padding_side="left", return_tensors="pt"
    ).to(model.get_input_embeddings().weight.device)
    text_of, stops = AnswerText(processor.tokenizer), set(config.eos_token_id or [])
    with generation.evaluating(model), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        written = model.generate(**made, generation_config=config)
    found = []
    for ids in written[:, made["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        found.append((text_of.decode(ids if end is None else ids[:end]), end is not None))
    return found
