"""litgpt's YAML and command line: the table of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.quantized import WHERE, put_bits
from peftkit.importers.rows import Rows, no_rows, put_rows, share, source_of
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.importers.templates import alpaca
from peftkit.plugins.imported import (
    Draft,
    Rule,
    differs,
    flattened,
    kept,
    no_effect,
    number,
    numeric,
    read_by_hand,
    switch,
    unsupported,
    whole,
)
from peftkit.plugins.importer import Fate, Foreign, Imported, Importer

_TARGETS = {
    "lora_query": ["q_proj"],
    "lora_key": ["k_proj"],
    "lora_value": ["v_proj"],
    "lora_projection": ["o_proj"],
    "lora_mlp": ["gate_proj", "up_proj", "down_proj"],
}
_ON = ("lora_query", "lora_value")
_PAIR = {"prompt_completion": {"prompt": "instruction", "completion": "output", "context": "input"}}
_SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Alpaca": ("yahma/alpaca-cleaned", _PAIR),
    "Alpaca2k": ("mhenrichsen/alpaca_2k_test", _PAIR),
    "Dolly": ("databricks/databricks-dolly-15k", {"prompt_completion": {
        "prompt": "instruction", "completion": "response", "context": "context"}}),
    "LIMA": ("GAIR/lima", {"chat": {"messages": "conversations"}}),
    "Deita": ("HuggingFaceH4/deita-10k-v0-sft", {"chat": {}}),
}  # fmt: skip

TABLE: Mapping[str, Rule] = {
    "checkpoint_dir": read_by_hand,
    "out_dir": no_effect("`peftkit run --out DIR`; by default runs/NAME"),
    "precision": read_by_hand,
    "quantize": read_by_hand,
    "devices": no_effect("a launcher says it: `peftkit run --launch accelerate`"),
    "num_nodes": no_effect("a launcher says it: `peftkit run --launch accelerate`"),
    "lora_r": kept("adapter.r", whole),
    "lora_alpha": kept("adapter.lora_alpha", number),
    "lora_dropout": kept("adapter.lora_dropout", number),
    **dict.fromkeys(_TARGETS, read_by_hand),
    "lora_head": differs("trl's loss reads past an adapter on the output head"),
    **dict.fromkeys(("data", "data.class_path", "data.json_path", "data.init_args.json_path",
                     "data.mask_prompt", "data.init_args.mask_prompt",
                     "data.val_split_fraction", "data.init_args.val_split_fraction"),
                    read_by_hand),
    **dict.fromkeys(("data.prompt_style", "data.init_args.prompt_style"),
                    differs("the chat template writes the prompt; model.chat_template: alpaca")),
    **dict.fromkeys(("data.seed", "data.init_args.seed", "data.num_workers",
                     "data.init_args.num_workers", "data.init_args.ignore_index",
                     "data.init_args.download_dir", "data.init_args.repo_id",
                     "data.init_args.file_url", "data.init_args.file_name"),
                    no_effect("rows are read and cut by a rule of their own")),
    "train.epochs": kept("method.num_train_epochs", number),
    "train.max_steps": kept("method.max_steps", whole),
    "train.micro_batch_size": kept("method.per_device_train_batch_size", whole),
    "train.global_batch_size": read_by_hand,
    "train.lr_warmup_steps": kept("method.warmup_steps", whole),
    "train.lr_warmup_fraction": kept("method.warmup_steps", number),
    "train.max_seq_length": kept("method.max_length", whole),
    "train.max_norm": kept("method.max_grad_norm", number),
    "train.min_lr": read_by_hand,
    "train.log_interval": kept("method.logging_steps", whole),
    "train.save_interval": read_by_hand,
    "train.max_tokens": unsupported("write max_steps"),
    "train.tie_embeddings": unsupported("the model's own configuration says it"),
    "eval.interval": read_by_hand,
    **dict.fromkeys(("eval.max_new_tokens", "eval.max_iters", "eval.initial_validation",
                     "eval.final_validation", "eval.evaluate_example"),
                    no_effect("`peftkit evaluate` scores")),
    **dict.fromkeys(("optimizer", "optimizer.class_path", "optimizer.lr",
                     "optimizer.init_args.lr"), read_by_hand),
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.init_args.weight_decay"),
                    kept("method.weight_decay", number)),
    "optimizer.init_args.betas": read_by_hand,
    "seed": kept("method.seed", whole),
    "logger_name": no_effect("`report_to` names a tracker"),
    "access_token": no_effect("the environment's HF_TOKEN is used"),
}  # fmt: skip


class LitGpt(Importer):
    """Read litgpt's YAML for fine-tuning, and its command line."""

    title = "litgpt"
    version = version_of("litgpt")
    keys = keys_of("litgpt")
    telling = frozenset(
        ("checkpoint_dir", "out_dir", "lora_query", "lora_key", "lora_value", "lora_projection",
         "lora_mlp", "lora_head", "logger_name", "num_nodes")
    )  # fmt: skip
    commands = (r"\blitgpt finetune(?:_lora|_full)?(?: (?:lora|full))?\b",)

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        flat = flattened(foreign)
        is_full = "full" in foreign.command or (not any(
            key.startswith("lora_") for key in foreign.data
        ) and not foreign.command)  # fmt: skip
        draft = Draft(flat, "sft", None if is_full else "lora")
        _read_model(draft)
        _read_rows(draft, folder)
        _read_training(draft)
        draft.apply(TABLE)
        _write_defaults(draft)
        settle(draft)
        keys = {key for key in flat.data if key.partition(".")[0] in self.keys}
        return draft.finish(TABLE, keys, "litgpt refuses it")


def _read_model(draft: Draft) -> None:
    get = draft.get
    place = str(get("checkpoint_dir", ""))
    draft.put("model.path", place.removeprefix("checkpoints/") or None)
    draft.say("checkpoint_dir", Fate.KEPT, "model.path")
    precision = str(get("precision", "bf16-true"))
    kind, _, how = precision.partition("-")
    dtype = {"bf16": "bfloat16", "16": "float16", "32": "float32"}.get(kind, "auto")
    if how == "mixed":
        draft.put("method.bf16" if kind == "bf16" else "method.fp16", True)
    draft.put("model.dtype", "float32" if how == "mixed" else dtype)
    draft.say("precision", Fate.KEPT, "model.dtype")
    bits = str(get("quantize", ""))
    if draft.adapter is None:
        draft.put("adapter", "full")
    elif put_bits(draft, 8 if "int8" in bits else 4 if bits else 0,
                  kind="fp4" if "fp4" in bits else "nf4", twice=bits.endswith("-dq")):  # fmt: skip
        draft.say("quantize", Fate.KEPT, WHERE)
    draft.say("quantize", Fate.IMPLIED, "nothing is quantized")
    if draft.adapter is None:
        for key in _TARGETS:
            draft.say(key, Fate.NO_EFFECT, "nothing is adapted: every weight is trained")
        return
    names = [name for key, modules in _TARGETS.items()
             for name in modules if switch(get(key, key in _ON))]  # fmt: skip
    draft.put("adapter.target_modules", names or ["q_proj", "v_proj"])
    for key in _TARGETS:
        draft.say(key, Fate.KEPT, "adapter.lora.target_modules")


def _either(draft: Draft, name: str, default: Any = None) -> tuple[str, Any]:
    """Return an option of the data module: by its own name or below init_args."""
    keys = (f"data.init_args.{name}", f"data.{name}")
    key = next((key for key in keys if draft.get(key) is not None), keys[0])
    return key, draft.get(key, default)


def _read_rows(draft: Draft, folder: Path) -> None:
    stated = draft.get("data.class_path", draft.get("data", "Alpaca"))
    module = str(stated).rpartition(".")[2]
    path_key, path = _either(draft, "json_path")
    cut_key, cut = _either(draft, "val_split_fraction")
    mask_key, masks = _either(draft, "mask_prompt", False)
    name, task = _SETS.get(module, ("", _PAIR))
    style_key, style = _either(draft, "prompt_style")
    is_alpaca = "prompt_completion" in task and str(style or "alpaca").lower() == "alpaca"
    if is_alpaca:
        columns = task["prompt_completion"]
        task = alpaca(columns["prompt"], columns["completion"], columns["context"])
        draft.put("model.chat_template", "plain")
        draft.say(style_key, Fate.KEPT, "data.task.prompt_completion.prompt")
        draft.say("data.prompt_style", Fate.DEFAULT, "data.task.prompt_completion.prompt",
                  value="alpaca")  # fmt: skip
    if path or name:
        source = source_of(draft, str(path or name), folder, kind="json")
        put_rows(draft, [Rows(source, task)], cut=share(numeric(cut)))
    else:
        put_rows(draft, [no_rows(draft, "data.class_path")], cut=share(numeric(cut)))
    for key in ("data", "data.class_path", path_key):
        draft.say(key, Fate.KEPT, "data.source")
    draft.say("data", Fate.DEFAULT, "data.source", value=module)
    draft.say(cut_key, Fate.KEPT if share(numeric(cut)) else Fate.IMPLIED, "data.splits.validation")
    if not switch(masks):
        draft.put("data.dialogue.train", "everything")
        draft.say(mask_key, Fate.KEPT, "data.dialogue.train")
        draft.say("data.mask_prompt", Fate.DEFAULT, "data.dialogue.train", value="false")
    draft.say(mask_key, Fate.IMPLIED, "answers alone are trained")


def _read_training(draft: Draft) -> None:
    get = draft.get
    rows = numeric(get("train.micro_batch_size", 1)) or 1
    devices = numeric(get("devices", 1)) or 1
    step = numeric(get("train.global_batch_size", 16)) or 16
    times = max(int(step // (rows * devices)), 1)
    draft.put("method.gradient_accumulation_steps", times, "litgpt: global over micro batch")
    where = draft.spelled("method.gradient_accumulation_steps")
    draft.say("train.global_batch_size", Fate.KEPT, where)
    draft.say("train.global_batch_size", Fate.DEFAULT, where, value=16)
    draft.put("method.lr_scheduler_type", "cosine_with_min_lr")
    least = numeric(get("train.min_lr", 6e-5))
    draft.put("method.lr_scheduler_kwargs", {"min_lr": 6e-5 if least is None else float(least)})
    draft.say("train.min_lr", Fate.KEPT, draft.spelled("method.lr_scheduler_kwargs"))
    draft.say("train.min_lr", Fate.DEFAULT, draft.spelled("method.lr_scheduler_kwargs"), value=6e-5)
    for key in ("optimizer.init_args.lr", "optimizer.lr"):
        draft.take(key, "method.learning_rate", number)
    kind = str(get("optimizer.class_path", get("optimizer", "AdamW"))).rpartition(".")[2]
    known = {"AdamW": "adamw_torch", "Adam": "adamw_torch", "SGD": "sgd"}
    for key in ("optimizer.class_path", "optimizer"):
        draft.put("method.optim", known.get(kind, "adamw_torch"))
        fate = Fate.KEPT if kind in known else Fate.UNSUPPORTED
        draft.say(key, fate, draft.spelled("method.optim"))
    betas = get("optimizer.init_args.betas")
    if isinstance(betas, list) and len(betas) == 2:
        draft.put("method.adam_beta1", numeric(betas[0]) or 0.9)
        draft.keep("optimizer.init_args.betas", "method.adam_beta2", numeric(betas[1]) or 0.999)
    for noun, key in (("save", "train.save_interval"), ("eval", "eval.interval")):
        steps = numeric(get(key))
        if steps:
            draft.put(f"method.{noun}_strategy", "steps")
            draft.put(f"method.{noun}_steps", steps)
            draft.say(key, Fate.KEPT, draft.spelled(f"method.{noun}_steps"))


def _write_defaults(draft: Draft) -> None:
    """Write out what litgpt means where it is silent."""
    if draft.get("train.max_steps") is None:
        draft.default("train.epochs", "method.num_train_epochs", 5)
    draft.default("train.micro_batch_size", "method.per_device_train_batch_size", 1)
    if draft.get("train.lr_warmup_fraction") is None:
        draft.default("train.lr_warmup_steps", "method.warmup_steps", 100)
    draft.default("optimizer.lr", "method.learning_rate", 1e-3)
    draft.default("seed", "method.seed", 1337)
    if draft.adapter == "lora":
        draft.default("lora_r", "adapter.r", 8)
        draft.default("lora_alpha", "adapter.lora_alpha", 16)
        draft.default("lora_dropout", "adapter.lora_dropout", 0.05)
