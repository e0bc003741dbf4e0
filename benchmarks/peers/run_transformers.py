"""transformers and peft by hand: the loop that a tutorial writes."""

from __future__ import annotations

from given import Clock, Work, count, keep, left, main, own_command, pad, read_rows


def prepare(work: Work) -> list[str]:
    """Nothing to write."""
    return own_command(work)


def train(work: Work) -> None:
    """Train by a plain loop, the batch padded to its longest row."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    rows = read_rows(work)
    if work.best:
        rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(
            work.model, dtype=torch.bfloat16 if work.bf16 else torch.float32
        ),
        LoraConfig(
            task_type="CAUSAL_LM", r=work.rank, lora_alpha=work.alpha, target_modules="all-linear"
        ),
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work.learning_rate, weight_decay=0.0)
    clock = Clock()
    model.train()
    clock.start()
    for step in range(work.steps):
        batch = pad(rows[step * work.batch : (step + 1) * work.batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=work.bf16):
            loss = model(**{key: torch.tensor(value) for key, value in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick(loss.item())
    model.save_pretrained(work.path / "adapter")
    note = "sorted by length" if work.best else ""
    keep(work, clock.found(count(rows), note))


if __name__ == "__main__":
    main(prepare, left, train, packages=())
