"""One real training step on the CPU, tracked: what the planner's fake one is compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peftkit.memory.trace import compile_trace
from peftkit.plugins import Machine

CPU = Machine("cpu", True, 1 << 34, 1 << 34, "test CPU")

LLAMA = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 16, "num_hidden_layers": 5}
QWEN2 = {**LLAMA, "model_type": "qwen2", "tie_word_embeddings": True}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 32}
GEMMA2 = {
    **LLAMA, "model_type": "gemma2", "head_dim": 16, "num_hidden_layers": 8, "sliding_window": 32,
}  # fmt: skip
PHI3 = {**LLAMA, "model_type": "phi3", "pad_token_id": 0}
GPT2 = {
    "model_type": "gpt2", "vocab_size": 1000, "n_embd": 64, "n_layer": 6, "n_head": 4,
    "n_positions": 512, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def save_model(folder: Path, config: dict[str, Any], auto_class: str) -> Path:
    """Save a model with random weights; return its folder."""
    import torch
    import transformers

    options = {key: value for key, value in config.items() if key != "model_type"}
    built = transformers.AutoConfig.for_model(config["model_type"], **options)
    torch.manual_seed(0)
    model = getattr(transformers, auto_class).from_config(built)
    model.save_pretrained(folder)
    return folder


def recipe_for(folder: Path, **changes: Any) -> Any:
    """Write and load a recipe for a saved model; `changes` are dotted keys."""
    from peftkit.recipe.load import load_recipe

    file = folder / "recipe.yaml"
    data = folder / "rows.jsonl"
    data.write_text(json.dumps({"document": "a", "summary": "b"}) + "\n")
    document: dict[str, Any] = {
        "name": "cell",
        "model": {"path": str(folder), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": str(data)}},
            "task": {"summarize": {"document": "document", "summary": "summary"}},
        },
        "adapter": {"lora": {"r": 4, "target_modules": "all-linear"}},
        "method": {"sft": {"per_device_train_batch_size": 2, "max_length": 48, "use_cpu": True}},
    }
    for key, value in changes.items():
        parent = document
        *parts, last = key.split(".")
        for part in parts:
            parent = (
                parent[part] if isinstance(parent.get(part), dict) else parent.setdefault(part, {})
            )
        if value is None:
            parent.pop(last, None)
        else:
            parent[last] = value
    file.write_text(json.dumps(document))
    return load_recipe(file)


def real_peaks(recipe: Any, batch: dict[str, Any]) -> dict[str, int]:
    """Run two real steps and return the second's peak by phase, and in all under `all`."""
    from peftkit import step
    from peftkit.memory.simulate import track_step
    from peftkit.model import load_base
    from peftkit.recipe.build import build

    built = build(recipe, CPU)
    base = load_base(
        recipe.model,
        auto_class=built.method.auto_class,
        quantization_config=built.quantization_config,
    )
    model = built.adapter.attach(base).train()
    args = built.method.config
    step.set_checkpointing(model, args)
    fuses = getattr(built.method, "fuses_head", False)
    if fuses:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(
            model.get_base_model() if hasattr(model, "peft_config") else model,
            outputs=("log_probs", "entropy", "is_top1"),
        )
    loss_of = step.fused_loss if fuses else step.model_loss
    settings = step.StepSettings.of(args, "cpu")
    optimizer = step.make_optimizer(model, args)
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(settings.accumulation):
        step.forward_backward(model, dict(batch), loss_of, settings, _ignore)
    step.update(trained, optimizer, settings, _ignore)
    for _ in range(settings.accumulation - 1):
        step.forward_backward(model, dict(batch), loss_of, settings, _ignore)
    trace = track_step(
        model, lambda: {key: value.clone() for key, value in batch.items()},
        loss_of, optimizer, settings,
    )  # fmt: skip
    import numpy as np

    live = compile_trace(trace).live(np.array(trace.num_bytes, np.int64))
    return {**live.phase_peaks(), "all": int(live.total.max())}


def _ignore(_phase: str) -> None:
    pass


def token_batch(
    rows: int, length: int, *, vocabulary: int = 1000, padded: bool = False
) -> dict[str, Any]:
    """Make a real batch as trl's collator does; with `padded`, the last row is half as long."""
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, vocabulary, (rows, length), generator=generator)
    mask, labels = torch.ones_like(ids), ids.clone()
    if padded:
        mask[-1, length // 2 :] = 0
        labels[-1, length // 2 :] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
