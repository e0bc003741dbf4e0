"""litgpt: `litgpt finetune_lora`, with a data module that gives the rows."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from given import Found, Work, main, read_rows, script

if "run_litgpt" in sys.modules and sys.argv[0].endswith("litgpt"):
    # Only within litgpt's own process: its command line wants a subclass of its DataModule.
    import torch
    from litgpt.data import DataModule
    from litgpt.data.base import get_sft_collate_fn
    from torch.utils.data import DataLoader

    class Rows(DataModule):
        """Give the rows in order."""

        prompt_style = "alpaca"  # kept beside the adapter, not used on tokens

        def __init__(self, file: str) -> None:
            super().__init__()
            work = Work(**json.loads(Path(file).read_text(encoding="utf-8")))
            rows = read_rows(work)
            if work.best:
                rows.sort(key=lambda row: len(row["input_ids"]))
            self.batch = work.batch
            self.rows = [
                {
                    "input_ids": torch.tensor(row["input_ids"]),
                    "labels": torch.tensor(row["labels"]),
                    "token_counts": {
                        "raw": len(row["input_ids"]),
                        "raw_plus_prompt_template": len(row["input_ids"]),
                    },
                }
                for row in rows
            ]

        def connect(self, *_: Any, **__: Any) -> None:
            """Take nothing: rows are tokens already."""

        def train_dataloader(self) -> DataLoader:
            """Return all rows."""
            return DataLoader(self.rows, self.batch, collate_fn=get_sft_collate_fn())

        def val_dataloader(self) -> DataLoader:
            """Return one row: litgpt tries its validation before it trains."""
            return DataLoader(self.rows[:1], 1, collate_fn=get_sft_collate_fn())


def prepare(work: Work) -> list[str]:
    """Convert the model as `litgpt convert_to_litgpt` does, which knows published sizes only."""
    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import save_config
    from safetensors.torch import load_file

    model = json.loads((Path(work.model) / "config.json").read_text(encoding="utf-8"))
    config = Config(
        name="peers", block_size=work.max_length, vocab_size=model["vocab_size"],
        padded_vocab_size=model["vocab_size"], n_layer=model["num_hidden_layers"],
        n_head=model["num_attention_heads"], n_query_groups=model["num_key_value_heads"],
        n_embd=model["hidden_size"], intermediate_size=model["intermediate_size"],
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
        norm_eps=model["rms_norm_eps"], mlp_class_name="LLaMAMLP", rope_base=10000,
    )  # fmt: skip
    folder = work.path / "model"
    shutil.copytree(work.model, folder)
    weights: dict[str, Any] = {}
    source: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
    copy_weights_hf_llama(config, {}, weights, source)
    torch.save(weights, folder / "lit_model.pth")
    save_config(config, folder)
    return [
        script("litgpt"), "finetune_lora", str(folder),
        "--data", "run_litgpt.Rows", "--data.file", str(work.path / "work.json"),
        "--out_dir", str(work.path / "out"),
        "--precision", "bf16-true" if work.bf16 else "32-true",
        "--lora_r", str(work.rank), "--lora_alpha", str(work.alpha), "--lora_dropout", "0.0",
        "--lora_key", "true", "--lora_projection", "true", "--lora_mlp", "true",
        "--train.micro_batch_size", str(work.batch), "--train.global_batch_size", str(work.batch),
        "--train.max_steps", str(work.steps), "--train.epochs", "2",
        "--train.lr_warmup_steps", "1", "--train.save_interval", "1000000",
        "--eval.interval", "1000000", "--eval.final_validation", "false",
        "--optimizer", json.dumps(
            {"class_path": "torch.optim.AdamW",
             "init_args": {"lr": work.learning_rate, "weight_decay": 0.0}}
        ),
    ]  # fmt: skip


def collect(work: Work) -> Found:
    """Read litgpt's own log."""
    (file,) = work.path.glob("out/logs/csv/**/metrics.csv")
    with file.open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    # By its own count, which begins after it tried its validation.
    note = "cosine from a first step of rate 0, no clipping" + (", sorted" if work.best else "")
    seconds = max(float(line["time"]) for line in lines if line["time"])
    losses = [float(line["loss"]) for line in lines if line["loss"]]
    num_tokens = max(int(line["total_tokens"]) for line in lines if line["total_tokens"])
    return Found(seconds, losses, num_tokens, note)


if __name__ == "__main__":
    main(prepare, collect, packages=("litgpt", "lightning"))
