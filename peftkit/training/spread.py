"""How several processes read the rows of one: the same rows a step, in the same order.

accelerate deals a sampler's batches out to the processes in turn. Left alone, samplers may draw
another order in each process, group rows by the batch of one process, and an epoch's last step
reads rows a second time so that all processes have as many. Here the main process draws the order
for all, and what is missing from a last batch is filled with rows of which nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.system.process import Process
from peftkit.training.grouped import epoch_of, grouped

if TYPE_CHECKING:
    from transformers import Trainer

    Blank = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class FilledRows:
    """Hold rows, and behind them one that nothing is learned from, under every further number."""

    rows: Any
    blank: Mapping[str, Any]

    def __len__(self) -> int:
        """Count the rows themselves: what is gathered from the processes is cut to as many."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] if index < len(self.rows) else dict(self.blank)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return a batch's rows, as torch's loader asks for them."""
        return [self[index] for index in indices]


@dataclass
class OneOrder:
    """Give every process the order that the main one draws, and then the numbers of blank rows."""

    drawn: Any
    """The sampler whose order it is."""
    process: Process
    num_blank: int
    epoch: Callable[[], int] = lambda: 0
    """Says which epoch is read: accelerate tells the sampler, but not where a resumed run skips
    batches of several processes, which would read the first epoch's order again."""

    def __len__(self) -> int:
        return len(self.drawn) + self.num_blank

    def __iter__(self) -> Iterator[int]:
        self.set_epoch(self.epoch())
        # Drawn by all, so that their random states stay alike; read from one.
        order = self.process.agree([int(index) for index in self.drawn])
        yield from order
        yield from range(len(order), len(order) + self.num_blank)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next, where the sampler knows of epochs."""
        if (set_epoch := getattr(self.drawn, "set_epoch", None)) is not None:
            set_epoch(epoch)


def spread(trainer_class: type[Trainer], process: Process, blank_of: Blank) -> type[Trainer]:
    """Make a trainer one whose processes read together what one process would read.

    Args:
        blank_of: `Method.untrained`
    """

    class SpreadTrainer(grouped(trainer_class)):  # type: ignore[misc] # transformers is untyped
        """Let the main process draw the order, and fill up last batches."""

        def _get_dataloader(
            self,
            dataset: Any,
            description: str,
            batch_size: int,
            sampler_fn: Any = None,
            **rest: Any,
        ) -> Any:
            """Return the loader of training or evaluation rows.

            Source: of transformers' Trainer, from which both come.
            """
            from torch.utils.data import RandomSampler, SequentialSampler
            from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

            rows, num_together = dataset, batch_size * process.world_size
            blank = blank_of(rows[0]) if len(rows) else None

            def sampler_of(_: Any) -> Any:
                drawn = sampler_fn(rows) if sampler_fn is not None else None
                if isinstance(drawn, BatchRebalanceSampler):
                    return drawn  # it knows of the processes, and draws by its own seed
                if isinstance(drawn, RandomSampler):
                    drawn = seeded(drawn, self.args.data_seed)
                elif isinstance(drawn, LengthGroupedSampler):
                    drawn.batch_size *= process.world_size
                drawn = SequentialSampler(rows) if drawn is None else drawn
                num_blank = 0 if blank is None else -len(rows) % num_together
                return OneOrder(drawn, process, num_blank, lambda: epoch_of(self.state))

            filled = rows if blank is None else FilledRows(rows, blank)
            return super()._get_dataloader(
                filled, description, batch_size, sampler_fn=sampler_of, **rest
            )

    return SpreadTrainer


def seeded(sampler: Any, seed: int | None) -> Any:
    """Return the sampler that accelerate would replace torch's by: each epoch has its own seed."""
    from accelerate.data_loader import SeedableRandomSampler

    return SeedableRandomSampler(
        data_source=sampler.data_source,
        replacement=sampler.replacement,
        num_samples=sampler._num_samples,
        generator=sampler.generator,
        data_seed=seed,
    )
