"""Training on trained positions without padding is trl's own training, up to reordered sums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from training_fixture import LORA, losses, train, write_recipe
from transformers import AutoConfig, AutoModelForCausalLM

from peftkit.errors import UsageError
from peftkit.methods.trained_positions import FlatCollator, logit_scale
from peftkit.plugins import IGNORED

PLAIN = "speed={loss: native, unpad: off, fused_adapter: off}"
SFT = {
    "learning_rate": 1e-3,
    "max_steps": 6,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "max_length": 128,
    "seed": 7,
    "logging_steps": 1,
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(11))


def trained(folder: Path, *args: Any, overrides: tuple[str, ...] = (), **options: Any):
    """Train the usual way and the fast way; return the losses and the weights of both."""
    recipe = write_recipe(folder / "r.json", *args, lora=LORA, **options)
    found = []
    for name, extra in (("plain", (PLAIN,)), ("fast", ())):
        run_dir = train(recipe, folder / name, *extra, *overrides)
        weights = load_file(run_dir.adapter / "adapter_model.safetensors")
        lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
        evaluated = [line["eval_loss"] for line in lines if "eval_loss" in line]
        found.append((losses(run_dir), weights, evaluated, lines))
    return found


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing_factor": 0.1},
        {"loss_type": "dft"},
        {"packing": True},
        {"average_tokens_across_devices": False, "train_sampling_strategy": "group_by_length"},
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_losses_and_weights_are_those_of_trl(
    tmp_path: Path, tiny_model: Path, rows: Path, options: dict[str, Any]
) -> None:
    plain, fast = trained(tmp_path, tiny_model, rows, sft={**SFT, **options})
    assert fast[0] == pytest.approx(plain[0], abs=2e-5)
    assert fast[1].keys() == plain[1].keys()
    for name, weights in plain[1].items():
        # AdamW turns the smallest gradients' noise into steps of the size of the learning rate.
        distance = (fast[1][name] - weights).norm() / weights.norm()
        assert distance < 2e-2, (name, float(distance))


def test_an_evaluation_weighs_its_batches_as_trl_does(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    plain, fast = trained(
        tmp_path, tiny_model, rows,
        sft={**SFT, "eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 4},
        data={
            "source": {"json": {"files": {"train": str(rows), "test": str(rows)}}},
            "splits": {"train": "train", "validation": "test"},
            "task": {"summarize": {"document": "document", "summary": "summary"}},
        },
    )  # fmt: skip
    assert len(plain[2]) == len(fast[2]) > 0
    assert fast[2] == pytest.approx(plain[2], abs=2e-5)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing_factor": 0.1}], ids=["plain", "smoothed"]
)
@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_experts_are_balanced_as_by_trl(
    tmp_path: Path, tiny_model: Path, rows: Path, options: dict[str, Any]
) -> None:
    """Over two micro-batches a step, padded ones in trl's way; not where trl smooths labels."""
    base = tmp_path / "experts"
    shutil.copytree(tiny_model, base, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mixtral", vocab_size=AutoConfig.from_pretrained(tiny_model).vocab_size,
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    sft = {**SFT, "max_steps": 3, "router_aux_loss_coef": 0.5, **options}
    plain, fast = trained(tmp_path, base, rows, sft=sft)
    assert plain[0][0] > 6 or options, "the balancing loss is a part of it"
    assert fast[0] == pytest.approx(plain[0], abs=2e-5)


def test_tokens_are_counted_without_padding(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    plain, fast = trained(tmp_path, tiny_model, rows, sft=SFT)
    counts = [
        [line["num_tokens"] for line in one[3] if "num_tokens" in line] for one in (plain, fast)
    ]
    assert counts[0] == counts[1]


def test_the_checkpoints_configuration_names_no_attention_of_ours(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft={**SFT, "max_steps": 2, "save_steps": 1},
        adapter="full",
    )  # fmt: skip
    run_dir = train(recipe, tmp_path / "run")
    files = list(run_dir.path.rglob("config.json"))
    assert files
    assert not [file for file in files if "peftkit_rows" in file.read_text(encoding="utf-8")]


def test_a_way_that_is_asked_for_and_wrong_is_an_error(
    tmp_path: Path, tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftkit.methods.proof.disagreement", lambda *_: "it computes others")
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft={**SFT, "max_steps": 1})
    with pytest.raises(UsageError, match="speed: it computes others"):
        train(recipe, tmp_path / "asked", "speed.unpad=on")
    train(recipe, tmp_path / "left")  # goes trl's own way


def test_rows_lie_one_after_another() -> None:
    examples = [
        {"input_ids": [5, 6, 7], "labels": [5, 6, 7]},
        {"input_ids": [8, 9], "labels": [8, 9]},
    ]
    batch = FlatCollator(pad_token_id=0)(examples)
    assert next(iter(batch)) == "row_lengths", "by whose first dimension Trainer counts rows"
    assert batch["row_lengths"].tolist() == [3, 2]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9]]


def test_documents_that_were_packed_stay_rows() -> None:
    packed = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3], "seq_lengths": [2, 1]}]
    assert FlatCollator(pad_token_id=0)(packed)["row_lengths"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("family", "options", "scale"),
    [
        ("llama", {}, 1.0),
        ("cohere", {"logit_scale": 0.5}, 0.5),
        ("granite", {"logits_scaling": 4.0}, 0.25),
    ],
)
def test_a_familys_scale_is_read_off_its_configuration(
    family: str, options: dict[str, float], scale: float
) -> None:
    from transformers import AutoConfig

    assert logit_scale(AutoConfig.for_model(family, **options)) == scale
    assert torch.isfinite(torch.tensor(scale))
