"""LLaMA-Factory: `llamafactory-cli train` on rows that are tokenized."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

from given import Found, Work, count, main, pad, read_rows, script


def prepare(work: Work) -> list[str]:
    """Write the rows as its `tokenized_path` wants them, and the config; JSON is YAML."""
    from datasets import Dataset, DatasetDict

    rows = [{key: value[0] for key, value in pad([row]).items()} for row in read_rows(work)]
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(work.path / "rows"))
    config = {
        "model_name_or_path": work.model, "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "lora_rank": work.rank, "lora_alpha": work.alpha,
        "lora_dropout": 0.0, "lora_target": "all", "dataset": "rows",
        "tokenized_path": str(work.path / "rows"), "template": "empty",
        "cutoff_len": work.max_length, "per_device_train_batch_size": work.batch,
        "gradient_accumulation_steps": 1, "max_steps": work.steps,
        "learning_rate": work.learning_rate, "lr_scheduler_type": "constant",
        "disable_shuffling": not work.best,
        **({"train_sampling_strategy": "group_by_length"} if work.best else {}),
        "pure_bf16": work.bf16, "flash_attn": "sdpa", "disable_gradient_checkpointing": True,
        "use_cpu": True, "dataloader_pin_memory": False, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "output_dir": str(work.path / "out"),
    }  # fmt: skip
    file = work.path / "config.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    search = [os.environ["PYTHONPATH"]]
    if find_spec("torchaudio") is None:  # it imports it, and uses it for sounds alone
        empty = work.path / "empty"
        empty.mkdir()
        (empty / "torchaudio.py").touch()
        search.append(str(empty))
    # Its newest release asks for older libraries than these; its own switch lets it try.
    return [
        "/usr/bin/env",
        "DISABLE_VERSION_CHECK=1",
        f"PYTHONPATH={os.pathsep.join(search)}",
        script("llamafactory-cli"),
        "train",
        str(file),
    ]


def collect(work: Work) -> Found:
    """Read the trainer's state."""
    state = json.loads((work.path / "out" / "trainer_state.json").read_text(encoding="utf-8"))
    lines = state["log_history"]
    (seconds,) = [line["train_runtime"] for line in lines if "train_runtime" in line]
    losses = [line["loss"] for line in lines if "loss" in line]
    return Found(seconds, losses, count(read_rows(work)))


if __name__ == "__main__":
    main(prepare, collect, packages=("llamafactory", "trl"))
