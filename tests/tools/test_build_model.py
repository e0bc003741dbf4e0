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


def test_an_encoder_stays_in_float32_and_its_card_has_its_scores(
    run: RunDir, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertForPreTraining

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForPreTraining(BertConfig(vocab_size=512, intermediate_size=32, **sizes)).save_pretrained(
        run.model
    )
    tuned = {"mlm_accuracy": 0.25, "mlm_loss": 4.5, "nsp_accuracy": 0.75, "nsp_loss": 0.5}
    write_json(run.scores, {"num_rows": 9, "tuned": tuned, "notes": ["By frequency: 0.1."]})
    receipt = build(run, tmp_path / "tiny-bert")
    assert receipt["scores"]["tuned"] == tuned
    made = BertForPreTraining.from_pretrained(tmp_path / "tiny-bert")
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    card = (tmp_path / "tiny-bert" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: fill-mask" in card
    assert "masked words 0.250 right" in card
    assert "- By frequency: 0.1." in card


def test_an_unfinished_run_is_refused(run: RunDir, tmp_path: Path) -> None:
    run.measured.unlink()
    with pytest.raises(ArtefactError, match="measured"):
        build(run, tmp_path / "tiny-lm")
