"""Train a reward model: a number for each answer, the higher the better, through trl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.methods.answers import OWNED, AnswersMethod, on_encoded_rows
from peftkit.plugins import (
    REWARD,
    Answerer,
    Asking,
    Evaluator,
    Point,
    Preference,
    Row,
    RowCount,
    Scoring,
    column_lengths,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from peftkit.plugins.losses import Loss
    from peftkit.preprocessing.answer_rows import Answered


class Reward(AnswersMethod):
    """Train a head of one output to give the preferred of two answers the higher score."""

    Config = "trl:RewardConfig"
    kind = REWARD
    examples = (Preference,)
    loss_is = "negative log-likelihood that better answers win"
    answers = ("chosen_ids", "rejected_ids")
    num_sequences = 2
    refers = False
    fuses_head = False
    owned: ClassVar[Mapping[str, str]] = {
        **OWNED,
        "chat_template_path": "model.chat_template",
        "eos_token": "a tokenizer whose end token is right: the chat template must write it",
        "pad_token": "a tokenizer with a padding token; peftkit picks one where it is missing",
        "train_sampling_strategy": "nothing: trl's rows have no length to be grouped by",
    }

    def answered(self, example: Preference) -> Answered:
        """Return the prompt, the better answer and the worse one."""
        return example.messages, (example.chosen, example.rejected)

    def rows(self, example: Preference, prompt: list[int], answers: list[list[int]]) -> list[Row]:
        """Make a row of both conversations, each whole."""
        del example
        wholes = [prompt + answer for answer in answers]
        return [dict(zip(self.answers, wholes, strict=True))]

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return both conversations, all of which is read."""
        return [(list(row[name]), list(row[name])) for name in self.answers]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count both conversations; a pair that does not fit is left out, as trl does."""
        lengths = [len(row[name]) for name in self.answers]
        fits = self.max_length is None or max(lengths) <= self.max_length
        return RowCount(
            length=max(lengths),
            needed=max(lengths),
            num_tokens=sum(lengths) if fits else 0,
            num_trained=int(fits),
            is_cut=not fits,
            is_ended=fits,
        )

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Return the rows, all of which fit."""
        del tokenizer
        return rows

    def lengths(self, rows: Dataset) -> list[int]:
        """Return the tokens of each row's longer conversation."""
        return list(map(max, *(column_lengths(rows, name) for name in self.answers)))

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's RewardTrainer, for rows that are encoded."""
        from trl import RewardTrainer

        return on_encoded_rows(RewardTrainer)

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return all better conversations, then all worse ones."""
        return {"input_ids": super().columns(point)["input_ids"]}

    def loss(self) -> Loss:
        """Return trl's loss."""
        return lambda model, batch: reward_loss(
            model, batch, center=self.config.center_rewards_coefficient
        )

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Make what scores both answers."""
        from peftkit.scoring.rewards import RewardEvaluator

        return RewardEvaluator(scoring, self._whole(scoring.rows))

    def answerer(self, asking: Asking) -> Answerer:
        """Make what scores answers."""
        from peftkit.preprocessing.chat_labels import encode_chats
        from peftkit.scoring.rewards import RewardAnswerer

        def encode(chats: Sequence[Sequence[Mapping[str, str]]]) -> list[list[int]]:
            return encode_chats([[dict(m) for m in chat] for chat in chats], asking.tokenizer)

        return RewardAnswerer(asking, encode)

    def _whole(self, examples: Sequence[Sequence[Row]]) -> list[tuple[list[int], ...]]:
        return [
            tuple(list(row[name]) for name in self.answers) for rows in examples for row in rows
        ]


def reward_loss(model: Any, batch: Mapping[str, Any], *, center: float | None) -> torch.Tensor:
    """Return trl's loss: Bradley and Terry's of a better answer over a worse one.

    Args:
        center: how dear it is that the rewards of a pair do not add up to 0.
    """
    from torch.nn.functional import logsigmoid

    outputs = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    )
    better, worse = outputs.logits.squeeze(-1).chunk(2)
    loss: torch.Tensor = -logsigmoid(better - worse).mean()
    return loss if center is None else loss + center * ((better + worse) ** 2).mean()
