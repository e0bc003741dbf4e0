"""Predict how long a whole run takes on a device, and what it costs at a price per hour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.memory.settings import matrix_dtype, method_settings
from peftkit.planning.roofline import Speed, predict

if TYPE_CHECKING:
    from peftkit.memory.planner import Plan
    from peftkit.planning.devices import Device
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Forecast:
    """Hold what is predicted of one run on one device."""

    speed: Speed
    num_steps: int | None
    """Optimizer steps of the run; None where its rows are not known."""

    @property
    def run_seconds(self) -> float | None:
        """Return how long the training takes, start-up and evaluation left out."""
        return None if self.num_steps is None else self.num_steps * self.speed.seconds_per_step

    def cost(self, price_per_hour: float | None) -> float | None:
        """Return what the training costs, in the price's currency; None without a price."""
        if self.run_seconds is None or price_per_hour is None:
            return None
        return self.run_seconds / 3600 * price_per_hour

    def to_json(self, price_per_hour: float | None = None) -> dict[str, Any]:
        """Return plain data, labelled as a prediction."""
        return {
            **self.speed.to_json(),
            "num_steps": self.num_steps,
            "run_seconds": self.run_seconds,
            "price_per_hour": price_per_hour,
            "cost": self.cost(price_per_hour),
        }


def forecast(
    made: Plan, recipe: Recipe, device: Device, machine: Machine, *, num_rows: int | None
) -> Forecast | None:
    """Predict a run's time on a device; None where only the device's size is known.

    Args:
        machine: the device as the recipe's decisions see it.
        num_rows: training rows after packing, where they are known.
    """
    speed = predict(made, device, dtype=matrix_dtype(recipe, machine))
    if speed is None:
        return None
    return Forecast(speed, count_steps(method_settings(recipe, machine), num_rows))


def count_steps(settings: Mapping[str, Any], num_rows: int | None) -> int | None:
    """Return the optimizer steps of a training on one device, as transformers' trainer counts them.

    Args:
        settings: the method's options, see `peftkit.memory.settings.method_settings`.
        num_rows: training rows; None where they are not known.

    Returns: None where only the rows, which are not known, would tell.
    """
    max_steps = int(settings.get("max_steps") or -1)
    if max_steps > 0:
        return max_steps
    if num_rows is None:
        return None
    rows = int(settings["per_device_train_batch_size"])
    is_short_left_out = settings.get("dataloader_drop_last")
    batches = num_rows // rows if is_short_left_out else math.ceil(num_rows / rows)
    updates = max(1, math.ceil(batches / int(settings["gradient_accumulation_steps"])))
    return math.ceil(float(settings["num_train_epochs"]) * updates)
