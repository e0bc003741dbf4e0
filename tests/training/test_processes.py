"""What processes of one run share, and what is said when one is lost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from peftkit.errors import DataError, ResourceError, UsageError
from peftkit.recipe.load import load_recipe
from peftkit.system.process import ALONE, Process
from peftkit.system.signals import StopRequest
from peftkit.training.processes import (
    check_alike,
    check_device,
    check_sharding,
    loss_of_others_explained,
    repeated_rows,
)

TWO = Process(rank=1, world_size=2, local_rank=1)


class Beside(Process):
    """Be process 0, beside one that differs."""

    def gather(self, value: Any) -> list[Any]:
        other = {**value, "versions": {**value["versions"], "torch": "1.0"}}
        return [value, other]


def test_a_host_has_a_device_for_each_of_its_processes() -> None:
    check_device(ALONE)
    with patch("torch.accelerator.is_available", return_value=False):
        check_device(TWO)
    with (
        patch("torch.accelerator.is_available", return_value=True),
        patch("torch.accelerator.device_count", return_value=1),
        pytest.raises(UsageError, match=r"process 1 .* which has 1 device\n"),
    ):
        check_device(TWO)


def test_shards_that_only_the_launcher_knows_of_are_refused(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(tiny_recipe)
    check_sharding(recipe, TWO)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match=r"method\.sft\.fsdp says nothing of it") as caught:
        check_sharding(recipe, TWO)
    assert caught.value.hint == "method.sft.fsdp=true"
    check_sharding(recipe, ALONE)


def test_another_stack_is_named_with_both_versions(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    check_alike(recipe, ALONE)
    with pytest.raises(UsageError, match=r"process 1 .* versions\.torch .* -> 1\.0"):
        check_alike(recipe, Beside(0, 2))


def test_rows_are_read_again_only_where_none_can_be_blank() -> None:
    config = SimpleNamespace(per_device_train_batch_size=4)
    whole = SimpleNamespace(config=config, untrained=lambda _: None)
    blank = SimpleNamespace(config=config, untrained=lambda row: row)
    rows = [{}] * 21
    assert repeated_rows(whole, rows, TWO) == 3  # type: ignore[arg-type]
    assert repeated_rows(blank, rows, TWO) == 0  # type: ignore[arg-type]
    assert repeated_rows(whole, rows, ALONE) == 0  # type: ignore[arg-type]


def test_a_broken_exchange_says_what_is_on_disk() -> None:
    stop = StopRequest(TWO)
    stop.consequence = "the same command resumes at step 7"
    with (
        pytest.raises(ResourceError, match="resumes at step 7"),
        loss_of_others_explained(TWO, stop),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")
    for error in (RuntimeError("shapes differ"), DataError("no rows")):
        with pytest.raises(type(error), match=str(error)), loss_of_others_explained(TWO, stop):
            raise error
    with pytest.raises(RuntimeError, match="gloo"), loss_of_others_explained(ALONE, stop):
        raise RuntimeError("gloo")
