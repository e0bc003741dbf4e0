"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306), through trl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError
from peftkit.methods.answers import PROMPT, AnswersMethod, log_probabilities, on_encoded_rows
from peftkit.plugins import Evaluator, Point, Preference, Row, Scoring, Verdict

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from peftkit.plugins.losses import Loss
    from peftkit.preprocessing.answer_rows import Answered

COMPLETION, OTHER, LABEL = "completion_ids", "KL_completion_ids", "label"
"""Columns of a row: its answer, another row's answer, and whether its own is a good one."""
REFERENCES = ("ref_logps", "ref_KL_logps")
"""What trl adds to rows and batches where `precompute_ref_log_probs` is true."""


class KTO(AnswersMethod):
    """Train a causal model towards answers called good and away from those called bad."""

    Config = "trl:KTOConfig"
    examples = (Verdict, Preference)
    loss_is = "loss of the answers, by what each is worth"
    answers = (COMPLETION,)
    owned: ClassVar[Mapping[str, str]] = {
        **AnswersMethod.owned,
        "train_sampling_strategy": "nothing: rows are shuffled once by `seed`, and stay in that"
        " order, in which each batch lends its answers to one another",
    }

    def answered(self, example: Any) -> Answered:
        """Return the prompt and its answer, or both answers of a pair."""
        return example.messages, [answer for answer, _ in _verdicts(example)]

    def rows(self, example: Any, prompt: list[int], answers: list[list[int]]) -> list[Row]:
        """Make a row of each answer."""
        pairs = zip(answers, _verdicts(example), strict=True)
        return [
            {PROMPT: prompt, COMPLETION: answer, LABEL: int(is_good)}
            for answer, (_, is_good) in pairs
        ]

    def columns_of_answers(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Name the row's own answer, and the other row's once there is one."""
        return [name for name in (COMPLETION, OTHER) if not row or name in row]

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Shuffle rows, lend each the answer of its neighbour in the batch, and cut both.

        The loss estimates how far the policy has moved from answers to other prompts; trl takes
        those of the same batch, in the fixed order of the rows.
        """
        rows = rows.shuffle(seed=self.config.seed)
        if self._lends:
            rows = rows.map(_lend, batched=True, batch_size=self.config.per_device_train_batch_size)
        return super().arrange(rows, tokenizer)

    def check_rows(self, rows: Dataset) -> None:
        """Refuse rows of one kind alone."""
        labels = set(rows[LABEL])
        if len(labels) > 1:
            return
        verdict = "good" if labels == {1} else "bad"
        raise DataError(
            f"every row's answer is called {verdict}, so that nothing can be compared",
            hint="give rows of both kinds, or train on good answers alone with sft",
        )

    @property
    def _lends(self) -> bool:
        return bool(self.config.loss_type != "apo_zero_unpaired")

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's KTOTrainer, for rows that are encoded."""
        from trl import KTOTrainer

        return on_encoded_rows(KTOTrainer)

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return each row's answer, another row's, and the reference's view where it is known."""
        shape = (point.micro_batch, point.length)
        names = ("input_ids", "attention_mask", "completion_mask")
        lent = {f"KL_{name}": shape for name in names if self._lends}
        known = REFERENCES[: 1 + self._lends] if self.config.precompute_ref_log_probs else ()
        rows = dict.fromkeys((LABEL, *known), (point.micro_batch,))
        return {**super().columns(point), **lent, **rows}

    def loss(self) -> Loss:
        """Return trl's loss."""
        return lambda model, batch: judged_loss(model, batch, self.config)

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Make what compares likelihoods: of pairs, or of good answers and bad ones."""
        if all(len(rows) == 2 for rows in scoring.rows):
            return super().evaluator(scoring)
        from peftkit.scoring.preferences import VerdictEvaluator

        rows = [sequences[0] for sequences in self.compared(scoring)]
        return VerdictEvaluator(scoring, rows, [bool(row[LABEL]) for (row,) in scoring.rows])


def _verdicts(example: Any) -> list[tuple[Any, bool]]:
    if isinstance(example, Preference):
        return [(example.chosen, True), (example.rejected, False)]
    return [(example.completion, example.is_good)]


def _lend(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    answers = batch[COMPLETION]
    return {OTHER: [answers[-1], *answers[:-1]]}


def judged_loss(model: Any, batch: Mapping[str, Any], args: Any) -> torch.Tensor:
    """Return trl's loss of a batch: what its answers are worth, a good one more and a bad one less.

    arXiv 2402.01306, equation 7; `apo_zero_unpaired` measures from zero instead of from how far
    the policy has moved.
    """
    import torch

    moved: Any = 0.0
    if "KL_input_ids" in batch:
        with torch.no_grad():
            moved = log_probabilities(model, batch, prefix="KL_")
    policy = log_probabilities(model, batch)
    known = [batch[name] for name in REFERENCES if name in batch]
    if not known:
        with torch.no_grad(), model.disable_adapter():
            if "KL_input_ids" in batch:
                known = [log_probabilities(model, batch, prefix="KL_")]
            known.insert(0, log_probabilities(model, batch))
    ratios = policy - known[0]
    if "KL_input_ids" in batch:
        moved = (moved - known[1]).mean().detach().clamp(min=0)
    is_good = batch[LABEL] > 0
    signs = torch.where(is_good, 1.0, -1.0)
    weights = torch.where(is_good, args.desirable_weight, args.undesirable_weight)
    losses: torch.Tensor = weights * (1 - torch.sigmoid(args.beta * signs * (ratios - moved)))
    return losses.mean()
