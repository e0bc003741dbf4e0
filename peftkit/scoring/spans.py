"""Find the answer to a question in the windows of a text, and score what was found.

Every stretch of the context within the longest answer is a candidate, and the best ones over all
windows are kept: not only those of the likeliest starts and ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import DataError, UsageError
from peftkit.plugins import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.native import accepted_inputs, trains_head
from peftkit.preprocessing.windows import Window, cut_windows, pad_windows
from peftkit.scoring.reading import longest_first

if TYPE_CHECKING:
    import numpy as np
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Question

    Model: TypeAlias = PreTrainedModel | PeftModel

COLUMNS = ("predicted", "probability", "predicted_start")
"""Keys that hold an answer, how likely it is, and its first character, in a file of answers."""
SHOWN_CANDIDATES = 5


@dataclass(frozen=True)
class Options:
    """Say how windows are cut and which of their stretches may answer."""

    max_length: int
    doc_stride: int
    max_answer_length: int
    n_best_size: int
    null_score_diff_threshold: float
    has_unanswerable: bool

    @classmethod
    def of(cls, config: Any, *, has_unanswerable: bool) -> Options:
        """Read them off a method's arguments.

        Raises:
            UsageError: nothing could be found by them.
        """
        found = cls(
            config.max_length, config.doc_stride, config.max_answer_length, config.n_best_size,
            config.null_score_diff_threshold, has_unanswerable,
        )  # fmt: skip
        for name in ("max_answer_length", "n_best_size"):
            if getattr(found, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(found, name)}")
        return found


@dataclass(frozen=True)
class Candidate:
    """Hold a stretch of a context that may answer; without characters it stands for none."""

    start: int
    end: int
    score: float
    """The logits of its first and last token, added up."""
    probability: float = 0.0
    """Among the candidates that are kept."""


@dataclass(frozen=True)
class Found:
    """Hold what was found for one question."""

    text: str
    """The answer; empty for none."""
    best: Candidate
    candidates: tuple[Candidate, ...]
    """The best ones, the likeliest first, and none where that may be."""
    null_odds: float | None
    """Score of no answer less that of the best one; None where there must be one."""


def find_answers(  # noqa: PLR0913 - a model with what it reads, and how much at once
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, ...]],
    options: Options,
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Answer questions about contexts, in their order.

    Raises:
        DataError: a question leaves no room for its context.
        ResourceError: even one window does not fit into device memory.
    """
    cut = cut_windows(
        pairs, tokenizer, max_length=options.max_length, doc_stride=options.doc_stride
    )
    windows: list[Window] = []
    bounds = [0]
    for one in cut:
        if isinstance(one, DataError):
            raise one
        windows += one
        bounds.append(len(windows))
    logits = read_windows(model, tokenizer, windows, batch_size=batch_size, progress=progress)
    return [
        pick_answer(windows[first:last], logits[first:last], context, options)
        for first, last, (_, context) in zip(bounds, bounds[1:], pairs, strict=False)
    ]


def read_windows(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    windows: Sequence[Window],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Return each window's logits of starts and ends, `[2, tokens]`, in their order."""

    def read(chosen: Sequence[int]) -> list[np.ndarray]:
        return _logits(model, tokenizer, [windows[i].row for i in chosen])

    lengths = [len(window.row["input_ids"]) for window in windows]
    return longest_first(
        model, lengths, read, batch_size=batch_size, progress=progress, called="window"
    )


def _logits(
    model: Model, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> list[np.ndarray]:
    import torch

    taken = accepted_inputs(model)
    batch = pad_windows([{k: v for k, v in row.items() if k in taken} for row in rows], tokenizer)
    device = model.get_input_embeddings().weight.device
    outputs = model(**{name: tensor.to(device) for name, tensor in batch.items()})
    both = torch.stack([outputs.start_logits, outputs.end_logits], 1).float().cpu().numpy()
    return [one[:, : len(row["input_ids"])] for one, row in zip(both, rows, strict=True)]


def pick_answer(
    windows: Sequence[Window], logits: Sequence[np.ndarray], context: str, options: Options
) -> Found:
    """Choose the best stretch over all windows of a question, or none where that may be.

    None is taken where its score, the least of any window's, exceeds the best stretch's by more
    than the threshold: as SQuAD's own baselines do.
    """
    best: dict[tuple[int, int], float] = {}
    for window, scores in zip(windows, logits, strict=True):
        for span, score in _best_spans(window, scores, context, options):
            best[span] = max(score, best.get(span, -math.inf))
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[: options.n_best_size]
    candidates = [Candidate(*span, score) for span, score in ranked]
    null_odds = None
    if options.has_unanswerable or not candidates:
        nulls = (float(s[:, w.no_answer].sum()) for w, s in zip(windows, logits, strict=True))
        none = Candidate(0, 0, min(nulls))
        null_odds = none.score - candidates[0].score if candidates else math.inf
        candidates.append(none)
    candidates = _with_probabilities(candidates)
    best_one = candidates[0]
    if null_odds is not None:
        is_none = null_odds > options.null_score_diff_threshold
        best_one = next(c for c in candidates if (c.start == c.end) == is_none)
    return Found(context[best_one.start : best_one.end], best_one, tuple(candidates), null_odds)


def _best_spans(
    window: Window, scores: np.ndarray, context: str, options: Options
) -> Iterator[tuple[tuple[int, int], float]]:
    """Give a window's best stretches, of any start and up to the longest answer."""
    import numpy as np

    count = len(window.offsets)
    starts, ends = scores[:, window.first : window.first + count]
    width = min(options.max_answer_length, count)
    padded = np.concatenate([ends, np.full(width - 1, -np.inf, ends.dtype)])
    sums = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, width)
    # Several tokens may share their characters, so more are taken than are kept.
    wanted = min(2 * options.n_best_size, sums.size)
    chosen = np.argpartition(-sums, wanted - 1, axis=None)[:wanted]
    for flat in chosen.tolist():
        first, length = divmod(flat, width)
        if first + length < count:
            span = _trimmed(context, window.offsets[first][0], window.offsets[first + length][1])
            if span[0] < span[1]:
                yield span, float(sums[first, length])


def _trimmed(context: str, start: int, end: int) -> tuple[int, int]:
    """Leave out whitespace at either end, which some tokenizers count to a word."""
    text = context[start:end]
    return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())


def _with_probabilities(candidates: Sequence[Candidate]) -> list[Candidate]:
    ranked = sorted(candidates, key=lambda one: -one.score)
    weights = [math.exp(one.score - ranked[0].score) for one in ranked]
    return [
        replace(one, probability=weight / sum(weights))
        for one, weight in zip(ranked, weights, strict=True)
    ]


class SpanEvaluator(Evaluator):
    """Let one model after the other answer the same questions."""

    def __init__(self, scoring: Scoring, config: Any) -> None:
        super().__init__(scoring)
        self._options = Options.of(config, has_unanswerable=scoring.task.has_unanswerable)
        self._pairs = [example.texts for example in scoring.examples]
        self.references = [example.reference for example in scoring.examples]
        self.scores_base = not trains_head(scoring.model)
        if not self.scores_base:
            self.notes = ("The base has no scores: the head that finds answers is new.",)

    def take(self, model: Model, name: str) -> Contestant:
        """Let a model answer every question."""
        scoring = self.scoring
        found = find_answers(
            model,
            scoring.tokenizer,
            self._pairs,
            self._options,
            batch_size=scoring.batch_size,
            progress=scoring.say(f"{name} reads"),
        )
        texts = tuple(one.text for one in found)
        if name == "tuned" and self._options.has_unanswerable:
            self.notes = (*self.notes, *self._threshold_note(found))
        return Contestant(
            metrics={**scoring.task.score(texts, self.references)},
            texts=texts,
            probabilities=tuple(one.best.probability for one in found),
        )

    def _threshold_note(self, found: Sequence[Found]) -> Iterator[str]:
        """Say which threshold these rows would want; it is theirs, and no score of new ones."""
        contexts = [context for _, context in self._pairs]
        texts = tuple(map(_best_text, found, contexts))
        answered = self.row_scores(Contestant({}, texts))
        silent = self.row_scores(Contestant({}, ("",) * len(texts)))
        odds = [math.inf if one.null_odds is None else one.null_odds for one in found]
        best, threshold = best_threshold(answered, silent, odds)
        yield (
            f"The null_score_diff_threshold {self._options.null_score_diff_threshold:g} was in"
            f" force; on these very rows {threshold:.3g} would give the best F1, {best:.3f}."
        )


def _best_text(found: Found, context: str) -> str:
    """Return the best stretch, whether or not none was preferred."""
    best = next((one for one in found.candidates if one.start < one.end), found.best)
    return context[best.start : best.end]


def best_threshold(
    answered: Sequence[float], silent: Sequence[float], odds: Iterable[float]
) -> tuple[float, float]:
    """Return the best mean score over all thresholds of `odds`, and the threshold that gives it.

    Args:
        answered: each row's score if it is answered.
        silent: the same if no answer is given.
        odds: a row is answered where they do not exceed the threshold.
    """
    total = sum(silent)
    best, threshold = total, -math.inf
    rows = sorted(zip(odds, answered, silent, strict=True), key=lambda row: row[0])
    for at, (odd, one, other) in enumerate(rows):
        total += one - other
        is_last_of_equals = at + 1 == len(rows) or rows[at + 1][0] > odd
        if is_last_of_equals and total > best:
            best, threshold = total, odd
    return best / len(rows), threshold


class SpanAnswerer(Answerer):
    """Find answers in texts."""

    columns = COLUMNS
    no_conversation = "this model finds the answer to one question in one text"

    def __init__(self, asking: Asking, config: Any, known: Iterable[str]) -> None:
        """Load the model.

        Raises:
            UsageError: an option does not say how answers are found; or the base is asked, whose
                head is new.
        """
        unknown = [name for name in asking.options if name not in known]
        if unknown:
            raise UsageError(
                f"{unknown[0]} does not say how an answer is found in a text",
                hint=f"one of {', '.join(sorted(known))}",
            )
        options = Options.of(config, has_unanswerable=asking.task.has_unanswerable)
        self._options = replace(options, **_numbers(asking.options))
        super().__init__(asking)

    def find_many(self, questions: Sequence[Question]) -> list[Found]:
        """Answer several questions in batches, in their order."""
        pairs = [question.texts for question in questions]
        return find_answers(
            self.model, self.tokenizer, pairs, self._options, batch_size=self.batch_size
        )

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, and write the answer."""
        del seed
        (found,) = self.find_many([question])
        write(found.text or "(no answer)")
        context = question.texts[1]
        candidates = [
            {"text": context[one.start : one.end], "start": one.start,
             "probability": one.probability}
            for one in found.candidates[:SHOWN_CANDIDATES]
        ]  # fmt: skip
        others = ", ".join(
            f"{one['text'] or '(no answer)'!r} {one['probability']:.2f}" for one in candidates
        )
        values = {**_values(found), "candidates": candidates}
        return Reply(found.text, (f"the likeliest: {others}",), values)

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Answer several questions in batches, in their order."""
        for found in self.find_many(questions):
            yield _values(found)


def _numbers(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in options.items():
        is_whole = name != "null_score_diff_threshold"
        if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
            noun = "a whole number" if is_whole else "a number"
            raise UsageError(f"{name} takes {noun}, got {value!r}")
        if is_whole and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return options


def _values(found: Found) -> dict[str, Any]:
    start = found.best.start if found.text else None
    return dict(zip(COLUMNS, (found.text, found.best.probability, start), strict=True))
