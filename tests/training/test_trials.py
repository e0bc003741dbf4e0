"""A trial succeeds only if the thing it tries really happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from peftkit.training import trials
from peftkit.training.trials import (
    Bench,
    multiply,
    quantizations,
    relative_error,
    small_base,
    train_lora,
    write_safetensors,
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with small_base("cpu") as made:
        yield made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_right_and_timed(dtype: str) -> None:
    trial = multiply("cpu", dtype)
    assert trial.works
    assert trial.gflops > 0
    assert trial.detail.startswith(f"{trial.gflops:,.0f} GFLOP/s, off by ")


def test_a_wrong_product_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.Tensor.__matmul__

    def wrong(left: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        product = right(left, other)
        return product if product.dtype == torch.float64 else product * 1.001

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    assert not multiply("cpu", "float32").works


def test_a_device_that_is_not_there_says_so() -> None:
    trial = multiply("cuda:63", "float32")
    assert not trial.works
    assert trial.detail


def test_a_folder_is_written_and_left_as_it_was(tmp_path: Path) -> None:
    assert write_safetensors(tmp_path).works
    assert list(tmp_path.iterdir()) == []
    trial = write_safetensors(Path("/proc"))
    assert not trial.works
    assert "/proc" in trial.detail


def test_an_adapter_trains_on_the_plain_base(bench: Bench) -> None:
    trial = train_lora(bench, "lora")
    assert trial == trials.Trial("lora", True, "trains a LoRA; logits are off by 0.0%")


def test_every_quantization_is_tried_and_those_of_bitsandbytes_work_here(bench: Bench) -> None:
    from peftkit.plugins import plugin_names

    found = {trial.name: trial for trial in quantizations(bench)}
    kinds = {"nf4", "nf4, double", "fp4", "int8", "torchao int8"}
    named = set(plugin_names("quantizers")) - {"bitsandbytes", "torchao"}
    assert set(found) == named | kinds
    for kind in kinds:
        assert found[kind].works, found[kind].detail
        assert "trains a LoRA" in found[kind].detail
    # Four bits lose more than eight.
    errors = {k: float(found[k].detail.rpartition(" ")[2].rstrip("%")) for k in kinds}
    assert 0 < errors["int8"] < errors["nf4"] < 20
    assert all(trial.detail for trial in found.values())


def test_a_base_whose_gradients_are_cut_does_not_train(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.adapters.peft_types import Lora

    attach = Lora.attach

    def attach_cut(self: Lora, base: torch.nn.Module) -> torch.nn.Module:
        model = attach(self, base)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.register_hook(torch.zeros_like)
        return model

    monkeypatch.setattr(Lora, "attach", attach_cut)
    trial = train_lora(bench, "lora")
    assert not trial.works
    assert trial.detail.startswith("no gradient reaches the adapter")


def test_the_small_base_is_the_same_each_time_and_leaves_chance_alone() -> None:
    before = torch.get_rng_state()
    with small_base("cpu") as one, small_base("cpu") as two:
        assert torch.equal(one.logits, two.logits)
        folder = one.folder
        assert (folder / "model.safetensors").is_file()
    assert not folder.exists()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_is_relative_to_the_truth() -> None:
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == pytest.approx(
        1 / 18**0.5
    )
