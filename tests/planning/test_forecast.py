"""A run's predicted time: its steps as the trainer counts them, times a step's, times a price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_fixture import linear_plan

from peftkit.planning import devices, roofline
from peftkit.planning.forecast import Forecast, count_steps, forecast
from peftkit.recipe.load import load_recipe

H200 = devices.find("h200")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import torch
    from transformers import Trainer, TrainingArguments

    folder = tmp_path_factory.mktemp("trainer")
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
    return Trainer(torch.nn.Linear(1, 1), arguments)


@given(
    num_rows=st.integers(1, 200),
    rows=st.integers(1, 9),
    accumulation=st.integers(1, 5),
    epochs=st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]),
    max_steps=st.sampled_from([-1, 1, 70]),
    drop_last=st.booleans(),
)
def test_steps_are_those_of_the_trainer(trainer: Any, num_rows: int, **options: Any) -> None:
    from torch.utils.data import DataLoader

    settings = {
        "per_device_train_batch_size": options["rows"],
        "gradient_accumulation_steps": options["accumulation"],
        "num_train_epochs": options["epochs"],
        "max_steps": options["max_steps"],
        "dataloader_drop_last": options["drop_last"],
    }
    for name, value in settings.items():
        setattr(trainer.args, name, value)
    loader = DataLoader(
        list(range(num_rows)), batch_size=options["rows"], drop_last=options["drop_last"]
    )
    if len(loader) == 0:
        return  # the trainer has nothing to train on, and says so
    expected = trainer.set_initial_training_values(trainer.args, loader)[-1]
    assert count_steps(settings, num_rows) == expected


def test_without_rows_only_max_steps_tells() -> None:
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    assert count_steps({**settings, "num_train_epochs": 3.0, "max_steps": -1}, None) is None
    assert count_steps({**settings, "num_train_epochs": 3.0, "max_steps": 7}, None) == 7


def test_time_and_cost_are_the_steps_times_a_step() -> None:
    speed = roofline.predict(linear_plan(fixed=0, per_token=1), H200, dtype="bfloat16")
    assert speed is not None
    made = Forecast(speed, 1000)
    assert made.run_seconds == pytest.approx(1000 * speed.seconds_per_step)
    assert made.cost(3.6) == pytest.approx(speed.seconds_per_step)  # an hour: 0.001 a second
    assert made.cost(None) is None
    assert Forecast(speed, None).run_seconds is None
    assert Forecast(speed, None).cost(3.6) is None
    content = made.to_json(3.6)
    assert content["basis"] == "predicted"
    assert content["cost"] == made.cost(3.6)
    assert content["seconds_per_step"] == speed.seconds_per_step


def test_a_mere_size_has_no_forecast_and_a_card_has_its_own(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.sft.max_steps=4"])
    plan = linear_plan(fixed=0, per_token=1, flops=10**15)
    size = devices.of_size(24)
    assert forecast(plan, recipe, size, size.as_machine(), num_rows=10) is None
    made = forecast(plan, recipe, H200, H200.as_machine(), num_rows=10)
    assert made is not None
    # The weights are float32 and tf32 is not asked for: no matrix unit is used.
    expected = roofline.predict(plan, H200, dtype="float32")
    assert made.speed == expected
    assert made.num_steps == 4
