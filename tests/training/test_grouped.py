"""Rows that are grouped by length come in the same order wherever a run goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from peftkit.training.grouped import epoch_of, grouped


class Scale(torch.nn.Module):
    """Learn one number, and note which rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen += input_ids[:, 0].tolist()
        return {"loss": (self.scale * input_ids).float().square().mean()}


def seen(folder: Path, *, resume: Path | None = None, **options: Any) -> list[int]:
    """Train two epochs of 20 rows in steps of two; return the rows in order."""
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, num_train_epochs=2, per_device_train_batch_size=2,
        save_steps=3, save_total_limit=9, report_to="none", disable_tqdm=True, seed=3,
        train_sampling_strategy="group_by_length", **options,
    )  # fmt: skip
    model, rows = Scale(), [{"input_ids": [row, *[0] * (row % 5)]} for row in range(20)]

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        padded = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch]
        return {"input_ids": torch.tensor(padded)}

    trainer = grouped(Trainer)(model, args, data_collator=collate, train_dataset=rows)
    torch.rand(3 if resume else 1)  # a process's random state is its own
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return model.seen


@pytest.mark.parametrize("step", [3, 9, 12, 18])
def test_a_run_goes_on_with_the_rows_that_are_left(tmp_path: Path, step: int) -> None:
    whole = seen(tmp_path / "whole")
    assert sorted(whole[:20]) == sorted(whole[20:]) == list(range(20))
    assert whole[:20] != whole[20:]
    again = seen(tmp_path / "again", resume=tmp_path / "whole" / f"checkpoint-{step}")
    assert again == whole[2 * step :]


def test_the_seed_of_the_rows_draws_the_order(tmp_path: Path) -> None:
    one, same, other = (seen(tmp_path, data_seed=seed) for seed in (3, 3, 4))
    assert one == same != other


@pytest.mark.parametrize(("stated", "epoch"), [(None, 0), (0.0, 0), (1.75, 1), (1.9999999999, 2)])
def test_an_epoch_s_end_is_the_next_one_s_beginning(stated: float | None, epoch: int) -> None:
    assert epoch_of(SimpleNamespace(epoch=stated)) == epoch  # type: ignore[arg-type]
