"""Answers to compare, tiny models to train on them, and trl's own trainers to compare with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tiny

PAIRS = (
    ("sort keys by name", "sort the keys.", "a table of rows"),
    ("read a file from disk and say how", "read it.", "no"),
    ("write rows", "write rows to a table, at once", "never"),
    ("compute the mean over an axis", "a sum over a count", "it is mean to ask such a thing"),
)
SYSTEM = "be brief"
ROWS = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
VERDICTS = [
    {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}
    for row in ROWS
    for good in (True, False)
]
QUIET = {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "report_to": "none"}


def method(name: str, **options: Any) -> Any:
    """Make a method by its name, with its native options."""
    from peftkit.plugins import find
    from peftkit.recipe.build import construct

    cls = find("methods", name)
    return cls(construct(cls.Config, {"output_dir": "unused", **QUIET, **options}))


def examples(*, judged: bool = False, system: str | None = SYSTEM) -> list[Any]:
    """Make the examples of the pairs, or of their verdicts."""
    from peftkit.tasks.feedback import Feedback, FeedbackConfig
    from peftkit.tasks.preference import PreferenceConfig, PreferenceTask

    if judged:
        return [Feedback(FeedbackConfig(system=system)).example(row) for row in VERDICTS]
    return [PreferenceTask(PreferenceConfig(system=system)).example(row) for row in ROWS]


def conversations(*, judged: bool = False) -> Any:
    """Give the same rows in trl's own format."""
    from datasets import Dataset

    def turns(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return Dataset.from_list([
        {
            "prompt": turns("system", SYSTEM) + turns("user", row["prompt"]),
            **{
                name: value if isinstance(value, bool) else turns("assistant", value)
                for name, value in row.items()
                if name != "prompt"
            },
        }
        for row in (VERDICTS if judged else ROWS)
    ])  # fmt: skip


def tiny_policy(
    folder: Path, *, head: bool = False, moved: bool = False, dropout: float = 0.0,
    adapted: bool = True,
) -> Any:  # fmt: skip
    """Make the same small model with the same LoRA each time; `moved`, a trained one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    cls = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    options = {"num_labels": 1} if head else {}
    model = cls.from_pretrained(folder, dtype=torch.float32, **options)
    if not adapted:
        return model
    lora = LoraConfig(
        r=4, target_modules="all-linear", lora_dropout=dropout,
        task_type="SEQ_CLS" if head else "CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(model, lora)
    if moved:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B.default" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def encoded(one: Any, tokenizer: Any, made: list[Any]) -> Any:
    """Encode examples as a run does, cut and in the trainer's order."""
    from datasets import Dataset

    from peftkit.plugins import checked_rows

    rows = [row for rows in checked_rows(one.encode(made, tokenizer)) for row in rows]
    return one.arrange(Dataset.from_list(rows), tokenizer)


def our_trainer(one: Any, model: Any, tokenizer: Any, rows: Any, out: Path) -> Any:
    """Make a method's trainer as a run does."""
    from peftkit.plugins import Training

    return one.trainer(Training(model, tokenizer, rows, None, (), out))


def trained(trainer: Any) -> tuple[list[float], dict[str, Any]]:
    """Train from the trainer's own seed; return the losses and what was trained."""
    from transformers import set_seed

    set_seed(trainer.args.seed)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    weights = {
        name: p.detach().clone()
        for name, p in trainer.model.named_parameters()
        if p.requires_grad and ".ref." not in name
    }
    return losses, weights


def their_trainer(  # noqa: PLR0917
    cls: Any, one: Any, model: Any, tokenizer: Any, texts: Any, out: Path
) -> Any:
    """Make plain trl's trainer of the same options over texts."""
    args = copy.copy(one.config)
    args.output_dir = str(out)
    return cls(args=args, model=model, processing_class=tokenizer, train_dataset=texts)


def assert_same_training(ours: Any, theirs: Any) -> None:
    """Hold losses and trained weights against each other."""
    import pytest

    (our_losses, our_weights), (losses, weights) = trained(ours), trained(theirs)
    assert len(losses) > 1
    assert our_losses == pytest.approx(losses, rel=1e-6, abs=1e-7)
    assert our_weights.keys() == weights.keys()
    for name, values in weights.items():
        assert float((our_weights[name] - values).abs().max()) < 1e-6, name


def write_recipe(file: Path, name: str, model: Path, rows: Path, **options: Any) -> Path:
    """Write a recipe of a few steps over a file of pairs, or of verdicts for kto."""
    import json

    options = {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 0.01,
               "max_length": 128, "use_cpu": True, **options}  # fmt: skip
    recipe = {
        "name": name,
        "model": {"path": str(model), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": str(rows)}},
            "splits": {"train": "train", "test": "30%"},
            "task": {"feedback" if name == "kto" else "preference": {}},
        },
        "adapter": {"lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}},
        "method": {name: options},
        "evaluate": {"split": "test"},
    }
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


def write_rows(file: Path, *, judged: bool = False, num: int = 24) -> Path:
    """Write prompts with their own summaries and others'."""
    rows = tiny.rows(num)
    made = [
        {"prompt": row["document"], "chosen": row["summary"], "rejected": f"no {other['summary']}"}
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    if judged:
        made = [
            {"prompt": row["prompt"], "completion": row["chosen" if at % 2 else "rejected"],
             "label": bool(at % 2)}
            for at, row in enumerate(made)
        ]  # fmt: skip
    return tiny.write_jsonl(file, made)
