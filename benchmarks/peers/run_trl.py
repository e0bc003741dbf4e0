"""trl: SFTTrainer on tokenized rows, in one process."""

from __future__ import annotations

import time

from given import Found, Work, count, keep, left, main, own_command, read_rows


def prepare(work: Work) -> list[str]:
    """Nothing to write."""
    return own_command(work)


def train(work: Work) -> None:
    """Train as trl's own documentation has it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = read_rows(work)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            work.model, dtype=torch.bfloat16 if work.bf16 else torch.float32
        ),
        args=SFTConfig(
            output_dir=str(work.path / "out"),
            learning_rate=work.learning_rate,
            max_steps=work.steps,
            lr_scheduler_type="constant",
            per_device_train_batch_size=work.batch,
            max_length=work.max_length,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="group_by_length" if work.best else "sequential",
            activation_checkpointing=False,
            use_cpu=True,
            bf16=work.bf16,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(work.model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=work.rank, lora_alpha=work.alpha, target_modules="all-linear"
        ),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    trainer.save_model()
    keep(work, Found(seconds, losses, count(rows)))


if __name__ == "__main__":
    main(prepare, left, train, packages=("trl",))
