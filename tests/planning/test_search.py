"""The search plans as few settings as will do: what cannot win or cannot hold is not planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plan_fixture import GIB, linear_plan

from peftkit.errors import ResourceError
from peftkit.memory.planner import Plan
from peftkit.memory.settings import checkpoints_activations, method_settings
from peftkit.planning import devices, search
from peftkit.planning.levers import read_levers
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
LORA = ROOT / "recipes" / "summarize-lora.yaml"
ROWS = "method.sft.per_device_train_batch_size"


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool, int]]:
    """Plan by formula; gather (quantized, checkpointed, rows) of every plan that is made."""
    made: list[tuple[bool, bool, int]] = []

    def plan(
        recipe: Recipe, *, lengths: Any = None, machine: Any = None, num_processes: int = 1
    ) -> Plan:
        options = method_settings(recipe, machine)
        quantized = recipe.model.quantize is not None
        checkpointed = checkpoints_activations(options)
        rows = int(options["per_device_train_batch_size"])
        made.append((quantized, checkpointed, rows))
        return linear_plan(
            fixed=(2 if quantized else 8) * GIB,
            per_token=(1 << 20) // (10 if checkpointed else 1),
            rows=rows,
            length=1024,
            flops=rows * 10**13 * (4 if checkpointed else 3) * (11 if quantized else 10),
        )

    monkeypatch.setattr(search, "plan", plan)
    return made


def searched(gib: float, *, free: tuple[str, ...] = ()) -> search.Search:
    recipe, device = load_recipe(LORA), devices.of_size(gib)
    levers = read_levers(recipe, device.as_machine(), free=free)
    return search.Search(recipe, device, levers, None)


def test_where_the_fastest_fits_nothing_slower_is_planned(planned: list[Any]) -> None:
    found = searched(48)
    found.as_it_is()
    assert [setup.settings for setup in found.setups()] == [
        {"method.sft.activation_checkpointing": False}
    ]
    assert planned == [(False, True, 16), (False, False, 16)]


def test_a_base_that_is_too_large_alone_is_not_planned_again(planned: list[Any]) -> None:
    found = searched(5)
    found.as_it_is()
    (best,) = found.setups()
    assert best.settings.keys() == {"model.quantize"}
    assert planned == [(False, True, 16), (True, False, 16), (True, True, 16)]


def test_what_is_shown_is_planned_at_its_own_micro_batch(planned: list[Any]) -> None:
    found = searched(3, free=(ROWS,))
    found.as_it_is()
    shown = found.setups()[: search.NUM_SHOWN]
    assert all(setup.micro_batch * setup.accumulation == 16 for setup in shown)
    assert min(setup.micro_batch for setup in shown) < 16
    assert {setup.micro_batch for setup in shown} <= {rows for _, _, rows in planned}


def test_nothing_is_planned_twice(planned: list[Any]) -> None:
    found = searched(12, free=(ROWS,))
    for _ in range(2):
        found.as_it_is()
        found.setups()
    assert len(planned) == len(set(planned))


def test_a_refusal_names_the_smallest_that_was_planned(planned: list[Any]) -> None:
    found = searched(1)
    assert found.setups() == []
    assert isinstance(found.refusal(), ResourceError)
    assert "bnb_4bit_quant_type: nf4" in found.refusal().message
    assert f"--free {ROWS}" in str(found.refusal().hint)
