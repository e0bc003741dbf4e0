"""peftkit: the command, on a recipe."""

from __future__ import annotations

import json

from given import Found, Work, main, read_rows, script


def prepare(work: Work) -> list[str]:
    """Write rows as prompts and completions, and the recipe; JSON is YAML."""
    lines = []
    for row in read_rows(work):
        words = [f"w{token}" for token in row["input_ids"]]
        cut = sum(label < 0 for label in row["labels"])
        # The template ends the answer with the end of text, which is the row's last token.
        lines.append({"prompt": " ".join(words[:cut]), "completion": " ".join(words[cut:-1])})
    data = work.path / "rows.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    method = {
        "learning_rate": work.learning_rate, "max_steps": work.steps,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": work.batch, "max_length": work.max_length,
        "activation_checkpointing": False, "logging_steps": 1, "save_strategy": "no",
        "use_cpu": True, "bf16": work.bf16,
        "train_sampling_strategy": "group_by_length" if work.best else "sequential",
    }  # fmt: skip
    recipe = {
        "name": "peers",
        "model": {"path": work.model, "dtype": "bfloat16" if work.bf16 else "float32"},
        "data": {
            "source": {"json": {"files": str(data)}},
            "splits": {"train": "train"},
            "task": {"prompt_completion": {}},
        },
        "adapter": {
            "lora": {"r": work.rank, "lora_alpha": work.alpha, "target_modules": "all-linear"}
        },
        "method": {"sft": method},
    }
    file = work.path / "recipe.yaml"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return [script("peftkit"), "run", str(file), "--out", str(work.path / "run")]


def collect(work: Work) -> Found:
    """Read the run's metrics."""
    text = (work.path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    steps = [line for line in map(json.loads, text.splitlines()) if "seconds" in line]
    return Found(steps[-1]["seconds"], [line["loss"] for line in steps], steps[-1]["num_tokens"])


if __name__ == "__main__":
    main(prepare, collect, packages=("peftkit", "trl"))
