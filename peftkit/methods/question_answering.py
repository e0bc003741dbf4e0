"""Fine-tune a model to find the answer to a question in a text, through transformers' Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.plugins import (
    IGNORED,
    QUESTION_ANSWERING,
    Answerer,
    Asking,
    Evaluator,
    Method,
    Point,
    Row,
    RowCount,
    Scoring,
    Spans,
    Training,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from peftkit.errors import DataError

POSITIONS = ("start_positions", "end_positions")


class QuestionAnswering(Method):
    """Train two outputs that say of each token whether the answer begins or ends there.

    A context that is too long for one row becomes several windows, as of
    Devlin et al. 2018, arXiv 1810.04805, section 4.2.
    """

    Config = "peftkit.methods.question_answering:QuestionAnsweringArguments"
    kind = QUESTION_ANSWERING
    examples = (Spans,)
    loss_is = "cross-entropy of where answers begin and end"
    owned: ClassVar[Mapping[str, str]] = {
        **Method.owned,
        "label_smoothing_factor": "nothing: transformers smooths `labels`, and a span has none",
    }
    answer_options = frozenset({"n_best_size", "max_answer_length", "null_score_diff_threshold"})

    @property
    def limits_rows(self) -> bool:
        """Return False: a long context becomes several windows."""
        return False

    def encode(
        self, examples: Sequence[Spans], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return the windows of each example, with the first and last token of the answer."""
        from peftkit.preprocessing.windows import encode_windows

        config = self.config
        return encode_windows(
            examples, tokenizer, max_length=config.max_length, doc_stride=config.doc_stride
        )

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return a window; the tokens of its answer are the trained ones."""
        start, end = (int(row[name]) for name in POSITIONS)
        ids = row["input_ids"]
        return [(ids, [i if start <= at <= end else IGNORED for at, i in enumerate(ids)])]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a window's tokens, and those of the answer."""
        start, end = (int(row[name]) for name in POSITIONS)
        length = len(row["input_ids"])
        return RowCount(
            length=length, needed=1, num_tokens=length, num_trained=end - start + 1, is_cut=False,
            is_ended=True,
        )  # fmt: skip

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Pad rows to the longest of a batch, at their end: positions count from the start."""
        from peftkit.preprocessing.windows import pad_windows

        return {"data_collator": lambda rows: pad_windows(rows, parts.tokenizer)}

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return tokens, and two positions for each row."""
        shape = (point.micro_batch, point.length)
        return {"input_ids": shape, **dict.fromkeys(POSITIONS, (point.micro_batch,))}

    @property
    def scores_by_reading(self) -> bool:
        """Return True: an answer is found by reading its windows once."""
        return True

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Make what scores the answers that are found."""
        from peftkit.scoring.spans import SpanEvaluator

        return SpanEvaluator(scoring, self.config)

    def answerer(self, asking: Asking) -> Answerer:
        """Make what finds answers."""
        from peftkit.scoring.spans import SpanAnswerer

        return SpanAnswerer(asking, self.config, self.answer_options)


@cache
def _arguments_class() -> type[TrainingArguments]:
    """Extend transformers' TrainingArguments by what windows and answers need."""
    from transformers import TrainingArguments

    @dataclass
    class QuestionAnsweringArguments(TrainingArguments):  # type: ignore[misc]  # it is untyped
        """Extend TrainingArguments by windows and answers, named as transformers' run_qa does."""

        max_length: int = field(
            default=384, metadata={"help": "Tokens of a window, the question's included."}
        )
        doc_stride: int = field(
            default=128, metadata={"help": "Tokens that two windows of a context share."}
        )
        max_answer_length: int = field(
            default=30, metadata={"help": "Tokens that an answer may have when one is looked for."}
        )
        n_best_size: int = field(
            default=20, metadata={"help": "Candidates that are kept, over all windows."}
        )
        null_score_diff_threshold: float = field(
            default=0.0,
            metadata={
                "help": "How much better no answer must score than the best one to be given; only"
                " where the task says that there may be none."
            },
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    QuestionAnsweringArguments.__qualname__ = "QuestionAnsweringArguments"
    return QuestionAnsweringArguments


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make `QuestionAnsweringArguments` on first use: importing this must not import it all."""
    if name == "QuestionAnsweringArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
