"""Pick what scores a model and what answers with it: the method's own, or that of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import DataError, UsageError
from peftkit.plugins.evaluation import (
    Answerer,
    Asking,
    Evaluator,
    Progress,
    Scoring,
    Shortened,
)
from peftkit.plugins.rows import checked_rows
from peftkit.preprocessing.encode import Encoded
from peftkit.preprocessing.too_long import document_column, excess_tokens
from peftkit.scoring.classifier import LabelAnswerer, LabelEvaluator
from peftkit.scoring.generative import GenerativeAnswerer, GenerativeEvaluator
from peftkit.scoring.regressor import NumberAnswerer, NumberEvaluator

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Example, Method
    from peftkit.recipe.build import Built

    Model: TypeAlias = PreTrainedModel | PeftModel

EVALUATORS: Mapping[str, type[Evaluator]] = {
    "text": GenerativeEvaluator,
    "labels": LabelEvaluator,
    "numbers": NumberEvaluator,
}
"""What a kind of model answers -> what scores it."""
ANSWERERS: Mapping[str, type[Answerer]] = {
    "text": GenerativeAnswerer,
    "labels": LabelAnswerer,
    "numbers": NumberAnswerer,
}
"""What a kind of model answers -> what answers with it."""


def evaluator_for(  # noqa: PLR0913
    built: Built,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    raw: Sequence[Mapping[str, Any]] = (),
    progress: Progress | None = None,
) -> Evaluator:
    """Make what scores the trained model of a recipe on these examples.

    Args:
        raw: their rows as the sources gave them; documents are shortened of those alone.

    Raises:
        UsageError: the method makes none, and its kind of model has none.
        DataError: an example cannot be scored.
    """
    method, options = built.method, built.recipe.scoring
    scoring = Scoring(
        task=built.task,
        model=model,
        tokenizer=tokenizer,
        examples=examples,
        rows=checked_rows(method.encode(examples, tokenizer)),
        source_limit=method.source_limit,
        batch_size=options.batch_size,
        generation=options.generation,
        progress=progress,
        raw=raw,
        shortened=_shortened(built) if raw else None,
    )
    own = method.evaluator(scoring)
    if own is not None:
        return own
    answers = _answers(built)
    if answers not in EVALUATORS:
        raise _refusal(built, "nothing here scores", "evaluate", "evaluator")
    return EVALUATORS[answers](scoring)


def answerer_for(  # noqa: PLR0913
    built: Built,
    load: Callable[[], Model],
    tokenizer: PreTrainedTokenizerBase,
    *,
    options: Mapping[str, Any],
    is_base: bool = False,
    system: str = "",
) -> Answerer:
    """Make what answers prompts with a model of a recipe.

    Args:
        load: loads the model.
        options: of `transformers.GenerationConfig`, over those of the recipe.
        is_base: whether it is the base, as it was before training.
        system: the system message before prompts that have none.

    Raises:
        UsageError: the method makes none, and its kind of model has none; or the options or the
            base are refused.
    """
    method, scoring = built.method, built.recipe.scoring
    asking = Asking(
        task=built.task,
        load=load,
        tokenizer=tokenizer,
        encode=lambda examples: checked_rows(method.encode(examples, tokenizer)),
        source_limit=method.source_limit,
        batch_size=scoring.batch_size,
        generation=scoring.generation,
        options=options,
        is_base=is_base,
        rendering=replace(built.recipe.data.dialogue, system=system or None),
        max_length=method.max_length,
        excess=lambda example: _excess(method.encode([example], tokenizer), method),
        shortened=_shortened(built),
    )
    own = method.answerer(asking)
    if own is not None:
        return own
    answers = _answers(built)
    if answers not in ANSWERERS:
        raise _refusal(built, "does not answer prompts", "generate", "answerer")
    return ANSWERERS[answers](asking)


def _excess(encoded: Encoded, method: Method) -> int:
    (rows,) = encoded
    return 0 if isinstance(rows, DataError) else excess_tokens(rows, method)


def _shortened(built: Built) -> Shortened | None:
    """Say what the recipe shortens of rows that are too long; None where it shortens none."""
    rows = built.recipe.data.rows
    if rows.too_long != "cut":
        return None
    number = next(n for n, one in enumerate(built.parts) if one.task is built.task)
    return Shortened(document_column(built, number), rows.keep)


def _answers(built: Built) -> str:
    """Say what a recipe's model answers: its kind's, but one number where the task is of one."""
    answers = built.method.kind.answers
    return "numbers" if answers == "labels" and built.task.is_regression else answers


def _refusal(built: Built, lack: str, verb: str, member: str) -> UsageError:
    return UsageError(
        f"the method {built.recipe.method.name!r} trains a model of"
        f" {built.method.kind.auto_class}, which {lack}",
        hint=f"{verb} works on language models and classifiers, and where a method has its own"
        f" {member}",
    )
