"""The method and the task do what peftkit expects, and a step is plain trl's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peftkit_preferences.tpo import TPO, TripleConfig, TripleTask

from peftkit.plugins import Point, Training, checked_rows
from peftkit.recipe.build import construct
from peftkit.testing import check_method, check_task

NAMES = ("prompt", "chosen", "rejected", "reference")
ROWS = [
    dict(zip(NAMES, texts, strict=True))
    for texts in (
        ("Name a colour.", "Blue.", "A table of rows.", "It is blue."),
        ("Say yes.", "Yes, with pleasure, at once.", "Never.", "Yes."),
        ("What is a mean?", "A sum over a count.", "It is mean to ask such a thing.", "A sum."),
    )
]
QUIET = {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "report_to": "none"}


def method(**options: Any) -> TPO:
    return TPO(construct(TPO.Config, {"output_dir": "unused", **QUIET, **options}))


def examples() -> list[Any]:
    return [TripleTask(TripleConfig()).example(row) for row in ROWS]


def test_task_and_method_conform(tokenizer: Any) -> None:
    assert check_task(TripleTask, {}, ROWS) == {"rougeL": 1.0}
    check_method(TPO, {"max_length": 64}, tokenizer, examples())


@pytest.mark.parametrize("options", [{}, {"tpo_alpha": 0.0, "max_length": 24}], ids=str)
def test_rows_loss_and_gradients_are_plain_trls(
    tokenizer: Any, make_model: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    from trl.experimental.tpo import TPOTrainer

    one = method(beta=0.3, **options)
    rows = [row for rows in checked_rows(one.encode(examples(), tokenizer)) for row in rows]
    arranged = one.arrange(Dataset.from_list(rows), tokenizer)
    model = make_model()
    ours = one.trainer(Training(model, tokenizer, arranged, None, (), tmp_path))
    texts = Dataset.from_list([
        {
            name: [{"role": "user" if name == "prompt" else "assistant", "content": row[name]}]
            for name in NAMES
        }
        for row in ROWS
    ])  # fmt: skip
    theirs = TPOTrainer(
        make_model(), args=one.config, train_dataset=texts, processing_class=tokenizer
    )
    assert rows == [{name: row[name] for name in rows[0]} for row in theirs.train_dataset]
    batch = theirs.data_collator(list(theirs.train_dataset))
    mine = ours.data_collator(list(ours.train_dataset))
    assert {name: values.tolist() for name, values in batch.items()} == {
        name: values.tolist() for name, values in mine.items()
    }
    planned = one.columns(Point(3, batch["input_ids"].shape[1]))
    assert planned == {name: tuple(batch[name].shape) for name in planned}

    def gradients(loss: torch.Tensor, model: Any) -> tuple[float, list[torch.Tensor]]:
        trained = [p for p in model.parameters() if p.requires_grad]
        return float(loss.detach()), list(torch.autograd.grad(loss, trained))

    found = gradients(ours.compute_loss(ours.model, dict(mine)), model)
    expected = gradients(theirs.compute_loss(theirs.model, dict(batch)), theirs.model)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    for ours_of, theirs_of in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours_of, theirs_of, rtol=1e-5, atol=1e-7)


def test_chosen_and_rejected_are_compared(tokenizer: Any, make_model: Any) -> None:
    model, one = make_model(), method()
    rows = one.encode(examples(), tokenizer)
    task = SimpleNamespace(headline="rougeL")
    scoring: Any = SimpleNamespace(rows=rows, task=task, say=lambda _: None, generation={})
    found = one.evaluator(scoring).take(model, "tuned")
    assert set(found.metrics) == {"accuracy", "margin"} and len(found.margins) == len(ROWS)
