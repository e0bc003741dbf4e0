"""An embedded model is the run's weights rounded once, with a receipt that names them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tiny
import torch
from build_model import build
from transformers import AutoModelForCausalLM, AutoTokenizer

from peftkit.errors import ArtefactError
from peftkit.rundir.paths import RunDir, write_json


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    tiny.tiny_llama(run.model)
    run.recipe.write_text("name: pretrain-tiny\n", encoding="utf-8")
    write_json(run.versions, {"python": "3.11", "packages": {"torch": "2.13"}})
    write_json(run.data, {"fingerprint": "abc"})
    write_json(
        run.measured,
        {"num_parameters": 10, "num_tokens": 20, "train_seconds": 7200.0, "final_loss": 2.5,
         "device": "a CPU"},
    )  # fmt: skip
    lines = [{"step": step, "loss": 5.0 - step / 100} for step in range(1, 201)]
    lines.append({"step": 200, "eval_loss": 3.25})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return run


def test_weights_are_the_run_s_in_bfloat16(run: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-lm"
    receipt = build(run, folder)
    made = AutoModelForCausalLM.from_pretrained(folder)
    trained = AutoModelForCausalLM.from_pretrained(run.model)
    for one, other in zip(made.parameters(), trained.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other.to(torch.bfloat16))
    assert (
        receipt["weights_sha256"]
        == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    text = "a word or two"
    assert (
        AutoTokenizer.from_pretrained(folder)(text)
        == AutoTokenizer.from_pretrained(run.model)(text)
    )  # fmt: skip


def test_receipt_and_card_say_what_the_run_measured(run: RunDir, tmp_path: Path) -> None:
    build(run, tmp_path / "tiny-lm")
    receipt = json.loads((tmp_path / "tiny-lm" / "receipt.json").read_text(encoding="utf-8"))
    assert receipt["validation_loss"] == 3.25
    assert receipt["losses"][0] == [1, 4.99]
    assert len(receipt["losses"]) == 50
    card = (tmp_path / "tiny-lm" / "README.md").read_text(encoding="utf-8")
    assert "3.250 nats a token" in card
    assert "20 tokens in 2.0 h on a CPU" in card


def test_an_unfinished_run_is_refused(run: RunDir, tmp_path: Path) -> None:
    run.measured.unlink()
    with pytest.raises(ArtefactError, match="measured"):
        build(run, tmp_path / "tiny-lm")
