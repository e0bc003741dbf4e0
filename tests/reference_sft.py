"""Fine-tune with plain trl and peft: what peftkit's run is compared with. Imports no peftkit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def train(model: str, rows: Path, *, lora: dict[str, Any], sft: dict[str, Any], out: Path) -> dict:
    """Train a LoRA on document/summary rows; return the losses, step by step, and the weights."""
    records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    messages = [
        [
            {"role": "user", "content": "Summarize the text.\n\n" + record["document"]},
            {"role": "assistant", "content": record["summary"]},
        ]
        for record in records
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(out),
            assistant_only_loss=True,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            logging_steps=1,
            save_strategy="no",
            **sft,
        ),
        train_dataset=Dataset.from_dict({"messages": messages}),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
    )
    trainer.train()
    return {
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "weights": {
            name: parameter.detach().clone()
            for name, parameter in trainer.model.named_parameters()
            if parameter.requires_grad
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--lora", type=json.loads, default={"target_modules": "all-linear"})
    parser.add_argument("--sft", type=json.loads, default={})
    parser.add_argument("--out", type=Path, default=Path("reference-out"))
    wanted = parser.parse_args()
    done = train(wanted.model, wanted.rows, lora=wanted.lora, sft=wanted.sft, out=wanted.out)
    print(json.dumps({"final_loss": done["losses"][-1], "num_steps": len(done["losses"])}))  # noqa: T201
