"""Draw the order of rows that are grouped by length from the seed and the epoch.

transformers draws it from the process's random state, which a run that goes on in the midst of an
epoch does not have again: it would read other rows in what is left of it (5.23.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer, TrainerState


def epoch_of(state: TrainerState) -> int:
    """Return the epoch that a training is in, or begins: the first is 0."""
    return int((state.epoch or 0) + 1e-6)  # in steps of a fraction, whose sum may fall short


def grouped(trainer_class: type[Trainer]) -> type[Trainer]:
    """Make a trainer one that groups the same rows in the same epoch, wherever it begins."""
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class Grouped(LengthGroupedSampler):  # type: ignore[misc] # transformers is untyped
        """Group by length, by a seed of the epoch's own."""

        def __init__(self, drawn: LengthGroupedSampler, trainer: Trainer) -> None:
            super().__init__(drawn.batch_size, lengths=drawn.lengths)
            self.trainer = trainer

        def __iter__(self) -> Iterator[int]:
            args = self.trainer.args
            seed = args.seed if args.data_seed is None else args.data_seed
            epoch = epoch_of(self.trainer.state)
            self.generator = torch.Generator().manual_seed(seed + epoch)
            return iter(super().__iter__())

    class GroupedTrainer(trainer_class):  # type: ignore[misc] # transformers is untyped
        """Draw the order of training rows by the epoch where they are grouped."""

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            """Return the sampler of training rows."""
            drawn = super()._get_train_sampler(*args, **kwargs)
            return Grouped(drawn, self) if isinstance(drawn, LengthGroupedSampler) else drawn

    return GroupedTrainer
