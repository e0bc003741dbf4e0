"""One real training step on the CPU, tracked: what the planner's fake one is compared with."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from peftkit.memory.trace import Trace, compile_trace
from peftkit.plugins import CAUSAL_LM, SEQUENCE_CLASSIFICATION, Machine, ModelKind, find
from peftkit.plugins.native import native_model

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

T5 = {
    "model_type": "t5", "vocab_size": 1000, "d_model": 64, "d_kv": 16, "d_ff": 128,
    "num_layers": 6, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "model_type": "bart", "vocab_size": 1000, "d_model": 64, "encoder_layers": 5,
    "decoder_layers": 6, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 512,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 6,
    "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 512,
}  # fmt: skip
ROBERTA = {**BERT, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 0}
NATIVE = {"loss": "native", "unpad": "off", "fused_adapter": "off"}
"""`speed` for the trainer's own way."""
NUM_WRITTEN = 20
"""Tokens of an encoder-decoder's targets."""
NUM_LABELS = 3
SEQ2SEQ = {
    "method": {
        "seq2seq": {
            "per_device_train_batch_size": 2, "max_source_length": 48,
            "max_target_length": NUM_WRITTEN, "use_cpu": True,
        },
    },
}  # fmt: skip
CLASSIFY = {
    "method": {"classify": {"per_device_train_batch_size": 2, "max_length": 48, "use_cpu": True}},
    "data.task": {"classify": {"text": "document", "label": "summary"}},
}
QUESTIONS = {
    "method": {
        "question_answering": {"per_device_train_batch_size": 2, "max_length": 48,
                               "doc_stride": 8, "use_cpu": True},
    },
    "data.task": {"question_answering": {"question": "document", "context": "document",
                                         "answers": "summary"}},
}  # fmt: skip
NUM_MASKED = 7
"""Words that are masked of 48."""
MASKED_WORDS = {
    name: {
        "adapter": "full",
        "method": {name: {"per_device_train_batch_size": 2, "max_length": 48, "use_cpu": True}},
        "data.task": {"text": {"text": "document"}},
    }
    for name in ("pretrain_bert", "pretrain_mlm")
}


def kind_of(changes: dict[str, Any]) -> ModelKind:
    """Return the kind of model that a cell's method loads."""
    (name,) = changes.get("method", {"sft": {}})
    kind: ModelKind = find("methods", name).kind
    return kind


def save_model(folder: Path, config: dict[str, Any], kind: ModelKind = CAUSAL_LM) -> Path:
    """Save a model with random weights; return its folder."""
    import torch
    import transformers

    options = {key: value for key, value in config.items() if key != "model_type"}
    if kind is SEQUENCE_CLASSIFICATION:
        options |= {"pad_token_id": 0, "num_labels": NUM_LABELS}
    built = transformers.AutoConfig.for_model(config["model_type"], **options)
    torch.manual_seed(0)
    model = getattr(transformers, kind.auto_class).from_config(built)
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
    for key, value in copy.deepcopy(changes).items():  # what one recipe adds stays its own
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
    from peftkit.memory import step
    from peftkit.memory.fake import storage_of
    from peftkit.methods.trained_positions import go_by_rows
    from peftkit.models.base import load_base
    from peftkit.recipe.build import build

    built = build(recipe, CPU)
    base = load_base(
        recipe.model,
        kind=built.method.kind,
        quantizer=built.quantizer,
    )
    model = built.adapter.attach(base).train()
    method, args = built.method, built.method.config
    step.set_checkpointing(model, args)
    if method.fuses_head:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(native_model(model), outputs=("log_probs", "entropy", "is_top1"))
    method.prepare_model(model)
    loss_of = method.loss_on(base.config)
    if method.way(base.config).by_rows:
        batch = flat_batch(batch)
        go_by_rows(model)
    settings = step.StepSettings.of(args, "cpu")
    optimizer = step.make_optimizer(model, method)
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(settings.accumulation):
        step.forward_backward(model, dict(batch), loss_of, settings, _ignore)
    step.update(trained, optimizer, settings, _ignore)
    for _ in range(settings.accumulation - 1):
        step.forward_backward(model, dict(batch), loss_of, settings, _ignore)
    storage = storage_of(built.quantizer)
    trace = track_step(model, batch, loss_of, optimizer, settings, storage=storage)
    import numpy as np

    live = compile_trace(trace).live(np.array(trace.num_bytes, np.int64))
    return {**live.phase_peaks(), "all": int(live.total.max())}


def flat_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Make of a padded batch what the collator makes of its rows where they are not padded."""
    from peftkit.methods.trained_positions import FlatCollator

    lengths = batch["attention_mask"].sum(dim=1).tolist()
    rows = zip(batch["input_ids"], batch["labels"], lengths, strict=True)
    return FlatCollator(pad_token_id=0)(
        [
            {"input_ids": ids[:length].tolist(), "labels": labels[:length].tolist()}
            for ids, labels, length in rows
        ]
    )


def track_step(
    model: Any, batch: dict[str, Any], loss_of: Any, optimizer: Any, settings: Any, *, storage: Any
) -> Trace:
    """Follow one whole step, the last of its micro-batches and the update, on a live model."""
    from peftkit.memory import step
    from peftkit.memory.simulate import Marks, hold_model, state_tensors
    from peftkit.memory.tracker import Tracker

    tracker = Tracker(storage)
    trained = [p for p in model.parameters() if p.requires_grad]
    tracker.hold(trained, "adapter")
    hold_model(tracker, model)
    tracker.hold(state_tensors(optimizer), "optimizer")
    tracker.hold((p.grad for p in trained if p.grad is not None), "gradients")
    marks = Marks(model, tracker)
    try:
        with tracker:
            tracker.enter("forward")
            batch = {k: v.clone() if hasattr(v, "clone") else v for k, v in batch.items()}
            loss = step.forward_backward(model, batch, loss_of, settings, marks.enter)
            tracker.label((p.grad for p in trained if p.grad is not None), "gradients")
            step.update(trained, optimizer, settings, marks.enter)
            trace = tracker.finish()
            del batch, loss
    finally:
        marks.remove()
    return trace


def _ignore(_phase: str) -> None:
    pass


def batch_of(recipe: Any, *, padded: bool = False) -> tuple[dict[str, Any], Any]:
    """Make two rows of 48 tokens as the recipe's collator does, and the lengths of the rows.

    With `padded`, the last row is half as long.
    """
    import torch

    from peftkit.memory.lengths import RowLengths

    rows = token_batch(2, 48, padded=padded)
    lengths = RowLengths([48, 24] if padded else [48, 48])
    lengths.longest_target, lengths.num_labels = NUM_WRITTEN, NUM_LABELS
    lengths.trained = [length - 1 for length in lengths]
    method = recipe.method.name
    if method == "pretrain_lm":
        rows.pop("attention_mask")
    elif method == "seq2seq":
        rows["labels"] = rows["labels"][:, :NUM_WRITTEN].clone()
        rows["decoder_input_ids"] = rows["labels"].clone().clamp(min=0)
    elif method in MASKED_WORDS:
        rows["labels"] = rows["labels"][:, :NUM_MASKED].clone()
        rows["masked_positions"] = torch.arange(NUM_MASKED).repeat(2, 1)
        if method == "pretrain_bert":
            rows["token_type_ids"] = torch.zeros_like(rows["input_ids"])
            rows["next_sentence_label"] = torch.tensor([0, 1])
    elif method in ("classify", "question_answering"):
        rows.pop("labels")
        if method == "classify":
            rows["labels"] = torch.tensor([0, NUM_LABELS - 1])
        else:
            rows |= {"start_positions": torch.tensor([3, 0]), "end_positions": torch.tensor([5, 0])}
        config = json.loads((Path(recipe.model.path) / "config.json").read_text())
        if config["model_type"] == "bert":
            rows["token_type_ids"] = torch.zeros_like(rows["input_ids"])
    return rows, lengths


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
