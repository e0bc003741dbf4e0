"""Training through the method's trainer leaves true measurements, and resumes into its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from training_fixture import cut_back, losses, train, write_recipe

from peftkit.run_dir import RunDir

SFT = {
    "learning_rate": 1e-3,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 5,
    "train_sampling_strategy": "sequential",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))


def _measured(run_dir: RunDir) -> dict:
    return json.loads(run_dir.measured.read_text())


def test_what_is_measured_adds_up(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT)
    run_dir = train(recipe, tmp_path / "run")
    measured = _measured(run_dir)
    lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]

    assert measured["num_steps"] == 6
    assert measured["final_loss"] == lines[-1]["loss"] == losses(run_dir)[-1]
    assert measured["train_seconds"] == lines[-1]["seconds"]
    speed = measured["num_tokens"] / measured["train_seconds"]
    assert measured["tokens_per_second"] == pytest.approx(speed, rel=1e-2)
    assert measured["peak_bytes"] == max(line["peak_bytes"] for line in lines)
    # 6 steps of 2 rows are all 8 rows and then the first 4 of some order: between one and two
    # passes over the real tokens, padding apart.
    num_tokens = json.loads(run_dir.data.read_text())["splits"]["train"]["num_tokens"]
    assert num_tokens < measured["num_tokens"] < 2 * num_tokens


def test_a_resumed_training_counts_on_and_repeats_no_step(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT)
    run_dir = train(recipe, tmp_path / "run")
    whole, first_losses = _measured(run_dir), losses(run_dir)
    seconds = [json.loads(line)["seconds"] for line in run_dir.metrics.read_text().splitlines()]
    cut_back(run_dir, step=4)

    train(recipe, run_dir.path)
    again = _measured(run_dir)
    assert losses(run_dir) == first_losses
    assert (again["num_steps"], again["num_tokens"]) == (6, whole["num_tokens"])
    resumed = [json.loads(line)["seconds"] for line in run_dir.metrics.read_text().splitlines()]
    assert resumed[:4] == seconds[:4]
    assert resumed == sorted(resumed)


def test_validation_rows_never_go_unread(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    sft = {**SFT, "eval_strategy": "no", "max_steps": 2}
    data = {
        "source": {"json": {"files": {"train": str(rows), "validation": str(rows)}}},
        "splits": {"train": "train", "validation": "validation"},
        "task": {"summarize": {"document": "document", "summary": "summary"}},
    }
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft, data=data)
    run_dir = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    (evaluation,) = [line for line in lines if "eval_loss" in line]
    assert evaluation["step"] == 2

    # Plain transformers' mean over the trained tokens of the same rows
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, run_dir.adapter).eval()
    nats, num_tokens = 0.0, 0
    for row in tiny.rows(8):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Summarize the text.\n\n{row['document']}"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([tokenizer(f"{prompt}{row['summary']}<|endoftext|>")["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0, start - 1 : -1].double()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        num_tokens += ids.shape[1] - start
    assert evaluation["eval_loss"] == pytest.approx(nats / num_tokens, rel=1e-5)
