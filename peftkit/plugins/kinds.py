"""What kinds of models are trained, and what follows from a model's kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class ModelKind:
    """Describe a kind of model: how it is loaded, adapted and shown, and what it answers."""

    auto_class: str
    """The transformers class that loads it, e.g. `AutoModelForCausalLM`."""
    task_type: str | None
    """PEFT's word for it; None where PEFT has no wrapper of its own."""
    answers: str = ""
    """`text`, `labels`, `scores` or `spans`; empty where nothing is asked of it."""
    pipeline_tag: str | None = None
    """The Hub's word for what it does."""
    heads: tuple[str, ...] = ()
    """What transformers calls the modules that are new over a base that was only pretrained."""
    endings: tuple[str, ...] = ()
    """How the names of its classes end, where the name alone tells the kind."""
    num_outputs: int | None = None
    """What its head gives for each token, whatever a configuration says; None where that varies."""
    reads_with: Literal["tokenizer", "processor"] = "tokenizer"
    """What makes its inputs: a tokenizer, or a processor that takes pictures too."""
    counts_items: bool = False
    """Whether its loss is divided by the trained tokens of a whole step; by default each batch of
    an accumulated step counts alike, which is right for any model."""

    @property
    def has_new_head(self) -> bool:
        """Tell whether a pretrained base lacks this kind's head and has one that is left over."""
        return bool(self.heads)

    @property
    def head_options(self) -> dict[str, int]:
        """Return what a configuration must say of the head; a checkpoint's own may be another's."""
        return {} if self.num_outputs is None else {"num_labels": self.num_outputs}

    @property
    def reads_rows(self) -> bool:
        """Tell whether its head reads whole rows: a decoder finds the last token of each by its
        padding token's id, so that a configuration with it is kept beside an adapter."""
        return self.answers in ("labels", "scores")


CAUSAL_LM = ModelKind(
    "AutoModelForCausalLM",
    task_type="CAUSAL_LM",
    answers="text",
    pipeline_tag="text-generation",
    counts_items=True,
    endings=("ForCausalLM", "LMHeadModel"),
)
SEQ_2_SEQ_LM = ModelKind(
    "AutoModelForSeq2SeqLM",
    task_type="SEQ_2_SEQ_LM",
    answers="text",
)
IMAGE_TEXT_TO_TEXT = ModelKind(
    "AutoModelForImageTextToText",
    task_type="CAUSAL_LM",
    answers="text",
    pipeline_tag="image-text-to-text",
    reads_with="processor",
)
SEQUENCE_CLASSIFICATION = ModelKind(
    "AutoModelForSequenceClassification",
    task_type="SEQ_CLS",
    answers="labels",
    pipeline_tag="text-classification",
    heads=("classifier", "pre_classifier", "classification_head", "score"),
    endings=("ForSequenceClassification",),
)
REWARD = replace(SEQUENCE_CLASSIFICATION, answers="scores", endings=(), num_outputs=1)
TOKEN_CLASSIFICATION = ModelKind(
    "AutoModelForTokenClassification",
    task_type="TOKEN_CLS",
    pipeline_tag="token-classification",
    heads=("classifier", "score"),
    endings=("ForTokenClassification",),
)
QUESTION_ANSWERING = ModelKind(
    "AutoModelForQuestionAnswering",
    task_type="QUESTION_ANS",
    answers="spans",
    pipeline_tag="question-answering",
    heads=("qa_outputs",),
    endings=("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
    num_outputs=2,
)
MASKED_LM = ModelKind(
    "AutoModelForMaskedLM",
    task_type=None,
    pipeline_tag="fill-mask",
    endings=("ForMaskedLM",),
)
PRETRAINING = ModelKind(
    "AutoModelForPreTraining",
    task_type=None,
    pipeline_tag="fill-mask",
    endings=("ForPreTraining",),
)

SCORED = ("text", "labels")
"""What of a kind's answers is scored where a method has no evaluator of its own."""

KINDS = (
    CAUSAL_LM,
    SEQ_2_SEQ_LM,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    QUESTION_ANSWERING,
    MASKED_LM,
    PRETRAINING,
)


def kind_of_class(name: str) -> ModelKind | None:
    """Return the kind of a transformers class by its name; None for one of another kind."""
    return next((kind for kind in KINDS if kind.endings and name.endswith(kind.endings)), None)
