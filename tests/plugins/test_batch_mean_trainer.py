"""Batches of an accumulated step count alike, where transformers would add their losses up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from peftkit.methods.classify import Classify
from peftkit.methods.question_answering import QuestionAnswering
from peftkit.methods.seq2seq import Seq2Seq
from peftkit.plugins.batch_mean_trainer import BatchMeanTrainer

SPANS = ["spans"]


def trained_head(folder: Path, labels: list, *, batch_size: int) -> torch.Tensor:
    """Train BERT's head for one step of four rows by plain gradient descent; return its weights."""
    from datasets import Dataset
    from transformers import (
        BertConfig,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        TrainingArguments,
    )

    config = BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8,
        num_labels=1 if isinstance(labels[0], float) else 2,
        hidden_dropout_prob=0, attention_probs_dropout_prob=0,
    )  # fmt: skip
    torch.manual_seed(0)
    ids = {"input_ids": [[at, at + 1, 3] for at in range(4)]}
    if labels == SPANS:
        trainer_class = QuestionAnswering().trainer_class
        model, head = BertForQuestionAnswering(config), "qa_outputs"
        rows = {**ids, "start_positions": [0, 1, 1, 2], "end_positions": [1, 1, 2, 2]}
    else:
        trainer_class = Classify().trainer_class
        model, head = BertForSequenceClassification(config), "classifier"
        rows = {**ids, "labels": labels}
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, max_steps=1, optim="sgd", learning_rate=0.1,
        per_device_train_batch_size=batch_size, gradient_accumulation_steps=4 // batch_size,
        max_grad_norm=0, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer_class(model=model, args=args, train_dataset=Dataset.from_dict(rows)).train()
    return model.get_submodule(head).weight.detach()


@pytest.mark.parametrize(
    "labels", [[0, 1, 1, 0], [0.5, 1.0, 2.0, 4.0], SPANS], ids=["labels", "numbers", "spans"]
)
def test_an_accumulated_step_is_the_step_of_its_rows_at_once(labels: list, tmp_path: Path) -> None:
    whole = trained_head(tmp_path, labels, batch_size=4)
    parts = trained_head(tmp_path, labels, batch_size=1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_a_loss_of_one_s_own_is_the_batch_s_in_training_and_in_evaluation() -> None:
    trainer = BatchMeanTrainer.__new__(BatchMeanTrainer)
    trainer._loss_of_batch = lambda _, batch: batch["labels"].float().mean()
    inputs = {"labels": torch.tensor([1, 3])}
    trainer.model = SimpleNamespace()
    assert trainer.compute_loss(torch.nn.Identity(), inputs, num_items_in_batch=9) == 2
    loss, outputs = trainer.compute_loss(torch.nn.Identity(), inputs, return_outputs=True)
    assert loss == outputs["loss"] == 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_encoder_decoder_s_accumulated_step_is_one_too(smoothing: float, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=16, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    rows = {
        "input_ids": [[at, at + 1, 3] for at in range(4)],
        "labels": [[5, at] for at in range(4)],
        "decoder_input_ids": [[0, 5]] * 4,
    }
    steps = []
    for batch_size in (4, 1):
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(config)
        args = Seq2SeqTrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, max_steps=1, optim="sgd", learning_rate=0.1,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=4 // batch_size,
            max_grad_norm=0, save_strategy="no", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False, lr_scheduler_type="constant",
            label_smoothing_factor=smoothing,
        )  # fmt: skip
        trainer = Seq2Seq().trainer_class
        trainer(model=model, args=args, train_dataset=Dataset.from_dict(rows)).train()
        steps.append(model.shared.weight.detach())
    torch.testing.assert_close(*steps, rtol=0, atol=1e-6)
