"""torchtune: `tune run lora_finetune_single_device`, with a dataset that gives the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from given import Clock, Found, Work, count, left, main, read_rows, script

_clock = Clock()


class Tokenizer:
    """Stand in for a tokenizer: rows are tokens already."""

    pad_id = 0
    max_seq_len = None


class Rows:
    """Give the rows; torchtune's dataset for a config's `_component_`."""

    def __init__(self, tokenizer: Tokenizer, file: str) -> None:
        del tokenizer
        work = Work(**json.loads(Path(file).read_text(encoding="utf-8")))
        self.rows = read_rows(work)
        if work.best:
            self.rows.sort(key=lambda row: len(row["input_ids"]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        return {"tokens": self.rows[at]["input_ids"], "labels": self.rows[at]["labels"]}


def constant(optimizer: Any, num_training_steps: int, last_epoch: int = -1) -> Any:
    """Keep the rate; the last thing that is made before the loop, so that its clock starts here."""
    from torch.optim.lr_scheduler import LambdaLR

    del num_training_steps
    _clock.start()
    return LambdaLR(optimizer, lambda _: 1.0, last_epoch)


class Logger:
    """Keep the losses, and write them at the end; torchtune's metric logger."""

    def __init__(self, file: str) -> None:
        self.work = Work(**json.loads(Path(file).read_text(encoding="utf-8")))

    def log_config(self, config: Any) -> None:
        """Keep nothing of it."""

    def log_dict(self, payload: dict[str, Any], step: int) -> None:
        """End a step."""
        del step
        _clock.tick(float(payload["loss"]))

    def close(self) -> None:
        """Write what was found."""
        from given import keep

        note = "sorted by length" if self.work.best else ""
        keep(self.work, _clock.found(count(read_rows(self.work)), note))


def prepare(work: Work) -> list[str]:
    """Write the config; JSON is YAML."""
    model = json.loads((Path(work.model) / "config.json").read_text(encoding="utf-8"))
    file = str(work.path / "work.json")
    config = {
        "output_dir": str(work.path / "out"),
        "model": {
            "_component_": "torchtune.models.llama3.lora_llama3",
            "vocab_size": model["vocab_size"], "num_layers": model["num_hidden_layers"],
            "num_heads": model["num_attention_heads"],
            "num_kv_heads": model["num_key_value_heads"], "embed_dim": model["hidden_size"],
            "intermediate_dim": model["intermediate_size"], "max_seq_len": work.max_length,
            "rope_base": 10000, "norm_eps": model["rms_norm_eps"],
            "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True, "lora_rank": work.rank, "lora_alpha": work.alpha,
            "lora_dropout": 0.0,
        },
        "tokenizer": {"_component_": "run_torchtune.Tokenizer"},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": str(_untied(work)), "checkpoint_files": ["model.safetensors"],
            "recipe_checkpoint": None, "output_dir": str(work.path / "out"),
            "model_type": "LLAMA3",
        },
        "resume_from_checkpoint": False, "save_adapter_weights_only": True,
        "dataset": {"_component_": "run_torchtune.Rows", "file": file},
        "seed": 1, "shuffle": False, "batch_size": work.batch,
        "optimizer": {
            "_component_": "torch.optim.AdamW", "fused": True, "weight_decay": 0.0,
            "lr": work.learning_rate,
        },
        "lr_scheduler": {"_component_": "run_torchtune.constant"},
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "epochs": 1, "max_steps_per_epoch": work.steps, "gradient_accumulation_steps": 1,
        "clip_grad_norm": 1.0, "compile": False,
        "metric_logger": {"_component_": "run_torchtune.Logger", "file": file},
        "log_every_n_steps": 1, "device": "cpu", "dtype": "bf16" if work.bf16 else "fp32",
        "enable_activation_checkpointing": False, "enable_activation_offloading": False,
    }  # fmt: skip
    written = work.path / "config.yaml"
    written.write_text(json.dumps(config), encoding="utf-8")
    return [script("tune"), "run", "lora_finetune_single_device", "--config", str(written)]


def _untied(work: Work) -> Path:
    """Write the model with a head of its own: the plain component has no tied one."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = work.path / "model"
    shutil.copytree(work.model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def collect(work: Work) -> Found:
    """Return what the logger left."""
    return left(work)


if __name__ == "__main__":
    main(prepare, collect, packages=("torchtune", "torchao"))
