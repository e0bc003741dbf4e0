"""What methods of causal models share that compute their trainer's own loss by less work."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import UsageError
from peftkit.plugins import Method, Training, make_trainer
from peftkit.plugins.rows import IGNORED
from peftkit.plugins.speed import Way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig, Trainer

    from peftkit.plugins.losses import Loss
    from peftkit.plugins.trained_loss import TrainedLoss


class FastSteps(Method):
    """Score trained positions only, and put rows one after another, where a model lets it."""

    speeds = frozenset({"loss"})
    balances_experts: ClassVar[bool] = False
    """Whether its trainer adds the loss that balances experts, and says what it weighs."""

    def way(self, config: PretrainedConfig) -> Way:
        """Say whether trained positions alone are scored, and rows not padded.

        Raises:
            UsageError: the recipe asks for one of them, which this model does not let.
        """
        if not self.speeds:
            return Way()
        from peftkit.methods.trained_positions import way_of

        return way_of(
            config, self.speed, is_flat=self.is_flat, balances_experts=self.balances_experts
        )

    def untrained(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row without a trained token: a step divides by those of all processes."""
        if not self.config.average_tokens_across_devices:
            return None
        return {**row, "labels": [IGNORED] * len(row["labels"])}

    def proved(self, model: Any) -> Way:
        """Try this method's way on two rows, and take it; else the trainer's own.

        Raises:
            UsageError: the recipe asks for a way on which the model computes something else.
        """
        way = self.way(model.config)
        if way.scores_trained or way.by_rows:
            way = self._tried(way, model)
        self.taken = way
        return way

    def _tried(self, way: Way, model: Any) -> Way:
        """Return a way on which a model computes what it should; rows are padded again first."""
        from peftkit.methods.proof import disagreement

        loss = self.trained_loss(model.config)
        found = disagreement(way, model, loss)
        if found is None:
            return way
        if self.speed.loss == "trained" or self.speed.unpad == "on":
            hint = "speed.loss=auto speed.unpad=auto, which go the trainer's own way"
            raise UsageError(f"speed: {found}", hint=hint)
        padded = dataclasses.replace(way, by_rows=False)
        if way.by_rows and way.scores_trained and disagreement(padded, model, loss) is None:
            self.speed = dataclasses.replace(self.speed, unpad="off")
            return dataclasses.replace(padded, why_not=(*way.why_not, f"padded rows: {found}"))
        self.speed = dataclasses.replace(self.speed, loss="native", unpad="off")
        return Way(why_not=(f"padded rows and the trainer's own loss: {found}",))

    def fast_trainer(
        self, trainer_class: type[Trainer], args: Any, parts: Training, **native: Any
    ) -> Trainer:
        """Make a trainer that computes the loss of trained positions."""
        from peftkit.methods.trained_positions import fast_trainer

        made = fast_trainer(trainer_class)  # type: ignore[arg-type] # a class is hashable
        trainer = make_trainer(made, args, parts, **native)
        trainer.trained_loss = self.trained_loss(parts.model.config)
        return trainer

    def loss_on(self, config: PretrainedConfig) -> Loss | None:
        """Return the loss of trained positions, where it is to be had."""
        return self.trained_loss(config) if self.way(config).scores_trained else self.loss()

    def trained_loss(self, config: PretrainedConfig) -> TrainedLoss:
        """Return the loss of trained positions on a model."""
        from peftkit.methods.trained_positions import scoring_of
        from peftkit.plugins.trained_loss import TrainedLoss

        return TrainedLoss(scoring_of(config, self.config))
