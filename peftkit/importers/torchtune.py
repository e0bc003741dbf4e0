"""torchtune's YAML, with `_component_` and `${...}`: the table of its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftkit.importers.quantized import put_bits
from peftkit.importers.rows import Rows, no_rows, put_rows, source_of
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.importers.templates import alpaca
from peftkit.plugins.imported import (
    Converted,
    Draft,
    Rule,
    differs,
    flattened,
    implied,
    kept,
    listed,
    mapped,
    no_effect,
    number,
    numeric,
    read_by_hand,
    switch,
    unsupported,
    whole,
)
from peftkit.plugins.importer import Fate, Foreign, Imported, Importer

_SPEED = no_effect("how fast it computes, not what")
_WATCHED = no_effect("a run measures time and memory by itself")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_OPTIMIZERS = {
    "AdamW": "adamw_torch", "Adam": "adamw_torch", "SGD": "sgd",
    "PagedAdamW8bit": "paged_adamw_8bit", "PagedAdamW": "paged_adamw_32bit",
    "AdamW8bit": "adamw_8bit",
}  # fmt: skip
_TRACKERS = {"WandBLogger": "wandb", "TensorBoardLogger": "tensorboard"}
_MODULES = {"output_proj": "o_proj"}
_MLP = ("gate_proj", "up_proj", "down_proj")
_SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "alpaca_dataset": (
        "tatsu-lab/alpaca",
        {
            "prompt_completion": {
                "prompt": "instruction",
                "completion": "output",
                "context": "input",
            }
        },
    ),
    "alpaca_cleaned_dataset": (
        "yahma/alpaca-cleaned",
        {
            "prompt_completion": {
                "prompt": "instruction",
                "completion": "output",
                "context": "input",
            }
        },
    ),
    "samsum_dataset": (
        "Samsung/samsum",
        {"summarize": {"document": "dialogue", "summary": "summary"}},
    ),
    "grammar_dataset": (
        "liweili/c4_200m",
        {"prompt_completion": {"prompt": "input", "completion": "output"}},
    ),
    "slimorca_dataset": (
        "Open-Orca/SlimOrca-Dedup",
        {"chat": {"messages": "conversations", "role": "from", "content": "value"}},
    ),
    "wikitext_dataset": ("EleutherAI/wikitext_document_level", {"text": {"text": "page"}}),
    "cnn_dailymail_articles_dataset": ("ccdv/cnn_dailymail", {"text": {"text": "article"}}),
    "stack_exchange_paired_dataset": (
        "lvwerra/stack-exchange-paired",
        {"preference": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}},
    ),
    "hh_rlhf_helpful_dataset": (
        "RLHFlow/HH-RLHF-Helpful-standard",
        {"preference": {"prompt": None}},
    ),
}
"""Builder -> the data set of the Hub that it reads, and what its rows mean."""


def _component(value: Any) -> str:
    return str(value).rpartition(".")[2]


def _optimizer(value: Any) -> str:
    name = _component(value)
    if name not in _OPTIMIZERS:
        raise Converted(Fate.UNSUPPORTED, f"{name}; adamw_torch comes nearest")
    return _OPTIMIZERS[name]


TABLE: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("model._component_", "model.lora_attn_modules", "model.apply_lora_to_mlp",
         "model.apply_lora_to_output", "model.quantize_base", "tokenizer.max_seq_len",
         "checkpointer.checkpoint_dir", "dataset._component_", "dataset.packed", "dataset.source",
         "dataset.data_files", "dataset.split", "dataset.train_on_input", "dataset.column_map",
         "dataset.conversation_column", "dataset.conversation_style", "dataset.column",
         "dataset.max_seq_len", "dtype", "max_steps_per_epoch", "lr_scheduler._component_",
         "dataset", "enable_activation_checkpointing", "metric_logger._component_"),
        read_by_hand,
    ),
    "model.lora_rank": kept("adapter.r", whole),
    "model.lora_alpha": kept("adapter.lora_alpha", number),
    "model.lora_dropout": kept("adapter.lora_dropout", number),
    "model.use_dora": kept("adapter.use_dora", switch),
    "model.lora_decoder_trainable": unsupported("one adapter for the whole model"),
    "batch_size": kept("method.per_device_train_batch_size", whole),
    "gradient_accumulation_steps": kept("method.gradient_accumulation_steps", whole),
    "epochs": kept("method.num_train_epochs", number),
    "clip_grad_norm": kept("method.max_grad_norm", number),
    "optimizer._component_": kept("method.optim", _optimizer),
    "optimizer.lr": kept("method.learning_rate", number),
    "optimizer.weight_decay": kept("method.weight_decay", number),
    "optimizer.fused": _SPEED,
    "optimizer.eps": kept("method.adam_epsilon", number),
    "optimizer_in_bwd": _SPEED,
    "lr_scheduler.num_warmup_steps": kept("method.warmup_steps", whole),
    "loss._component_": implied("cross-entropy of the trained tokens"),
    "loss.beta": kept("method.beta", number),
    "seed": kept("method.seed", whole),
    "shuffle": implied("the sampler draws rows in a random order"),
    "log_every_n_steps": kept("method.logging_steps", whole),
    "save_every_n_steps": kept("method.save_steps", whole),
    "resume_from_checkpoint": implied("the same `peftkit run` again resumes"),
    "save_adapter_weights_only": implied("a run saves the adapter alone"),
    "checkpointer._component_": implied("safetensors are read"),
    "checkpointer.checkpoint_files": implied("every file of the model is read"),
    "checkpointer.model_type": implied("the model's own configuration says it"),
    "checkpointer.output_dir": no_effect("`peftkit run --out DIR`; by default runs/NAME"),
    "checkpointer.adapter_checkpoint": differs("adapter.from goes on with one in PEFT's format"),
    "checkpointer.recipe_checkpoint": implied("the same `peftkit run` again resumes"),
    "checkpointer.safe_serialization": implied("only safetensors are written"),
    "output_dir": no_effect("`peftkit run --out DIR`; by default runs/NAME"),
    "tokenizer._component_": implied("the model's own tokenizer is read"),
    "tokenizer.path": implied("the model's own tokenizer is read"),
    "tokenizer.merges_file": implied("the model's own tokenizer is read"),
    "tokenizer.prompt_template": differs("the chat template writes the prompt"),
    "dataset.new_system_prompt": unsupported("write the system message into the rows"),
    "dataset.name": kept("data.source.hub.name"),
    "device": implied("the run's device follows from the machine"),
    "compile": _SPEED,
    "ac_mode": _SPEED,
    "ac_option": _SPEED,
    "dataset.template": differs("data.task says the prompt, not torchtune's template"),
    "enable_activation_offloading": kept("method.activation_offloading", switch),
    "log_peak_memory_stats": _WATCHED,
    "log_level": _WATCHED,
    "cudnn_deterministic_mode": _SPEED,
    "custom_sharded_layers": no_effect("where processes share a model, `fsdp_config` says it"),
    "fsdp_cpu_offload": no_effect("where processes share a model, `fsdp_config` says it"),
}  # fmt: skip
_PREFIXES = (
    "profiler",
    "metric_logger",
    "activation_offloading",
    "tokenizer",
    "loss",
    "checkpointer",
)
"""Components whose other options change nothing of what is trained."""


class Torchtune(Importer):
    """Read torchtune's YAML."""

    title = "torchtune"
    version = version_of("torchtune")
    keys = keys_of("torchtune")
    telling = frozenset({"checkpointer", "tokenizer", "optimizer", "loss", "metric_logger"})
    commands = ()

    @classmethod
    def recognise(cls, foreign: Foreign) -> int:
        """Count its sections, in which a component is named."""
        named = [key for key in cls.telling if "_component_" in mapped(foreign.data.get(key))]
        return 3 * len(named)

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        flat = flattened(foreign)
        data = {key: _resolved(value, flat.data) for key, value in flat.data.items()}
        model = str(data.get("model._component_", ""))
        compares = "dpo" in str(data.get("loss._component_", "")).lower()
        draft = Draft(replace(flat, data=data), "dpo" if compares else "sft",
                      "lora" if "lora_" in model else None)  # fmt: skip
        _read_model(draft, model)
        _read_rows(draft, folder)
        _read_training(draft)
        draft.apply(TABLE)
        for key, value in data.items():
            if key.partition(".")[0] in _PREFIXES and value is not None:
                draft.say(key, Fate.NO_EFFECT, "it changes nothing of what is trained")
        _write_defaults(draft)
        settle(draft)
        keys = {key for key in data if key.partition(".")[0] in self.keys}
        return draft.finish(TABLE, keys, "torchtune ignores it too")


def _resolved(value: Any, data: Mapping[str, Any]) -> Any:
    """Put the values of `${other.key}` where they stand."""
    if not isinstance(value, str):
        return value
    whole_ = _REFERENCE.fullmatch(value)
    if whole_:
        return data.get(whole_[1], value)
    return _REFERENCE.sub(lambda match: str(data.get(match[1], match[0])), value)


def _read_model(draft: Draft, model: str) -> None:
    get = draft.get
    place = get("checkpointer.checkpoint_dir")
    draft.put("model.path", str(place) if place else None)
    draft.say("checkpointer.checkpoint_dir", Fate.KEPT, "model.path")
    dtype = str(get("dtype", "bf16"))
    draft.put("model.dtype", _DTYPES.get(dtype, "auto"))
    draft.say("dtype", Fate.KEPT, "model.dtype")
    if draft.adapter is None:
        draft.put("adapter", "full")
        draft.say("model._component_", Fate.IMPLIED, "model.path says it")
        return
    draft.recipe["adapter"] = {"lora": {}}
    if model.rpartition(".")[2].startswith("qlora") or switch(get("model.quantize_base")):
        put_bits(draft, 4)
        draft.say("model._component_", Fate.DIFFERS, "model.quantize: nf4 by bitsandbytes, there by"
                  " torchao")  # fmt: skip
        draft.say("model.quantize_base", Fate.KEPT, "model.quantize.bitsandbytes")
    draft.say("model._component_", Fate.IMPLIED, "model.path says it")
    draft.say("model.quantize_base", Fate.IMPLIED, "off here too")
    names = [_MODULES.get(str(one), str(one)) for one in listed(get("model.lora_attn_modules"))]
    names = names or ["q_proj", "v_proj"]
    if switch(get("model.apply_lora_to_mlp")):
        names += _MLP
    draft.put("adapter.target_modules", names)
    for key in ("model.lora_attn_modules", "model.apply_lora_to_mlp"):
        draft.say(key, Fate.KEPT, "adapter.lora.target_modules")
    on = switch(get("model.apply_lora_to_output"))
    why = "trl's loss reads past an adapter on the output head" if on else "off here too"
    draft.say("model.apply_lora_to_output", Fate.DIFFERS if on else Fate.IMPLIED, why)


def _read_rows(draft: Draft, folder: Path) -> None:
    get = draft.get
    builder = _component(get("dataset._component_", ""))
    name, known = _SETS.get(builder, ("", {}))
    task = dict(known) or _task(draft, builder)
    if builder.startswith("alpaca"):  # its text is what the user says, inside the chat template
        task = alpaca("instruction", "output", "input")
    path = str(get("dataset.source", name))
    if not path:
        put_rows(draft, [no_rows(draft, "dataset")])
        return
    files = get("dataset.data_files")
    source = source_of(draft, path, folder, data_files=files)
    put_rows(draft, [Rows(source, task, str(get("dataset.split", "train")))])
    if "hub" not in source:
        draft.say("dataset.name", Fate.NO_EFFECT, "files have no configurations")
    for key in ("dataset._component_", "dataset.source", "dataset.data_files", "dataset.split"):
        draft.say(key, Fate.KEPT, "data.source")
    for key in ("dataset.column_map", "dataset.conversation_column", "dataset.conversation_style",
                "dataset.column"):  # fmt: skip
        draft.say(key, Fate.KEPT, "data.task")
    for key in draft.foreign.data:
        if key.startswith("dataset.column_map."):
            draft.say(key, Fate.KEPT, "data.task")
    _read_trained(draft, builder, is_text="text" in task)


def _read_trained(draft: Draft, builder: str, *, is_text: bool) -> None:
    """Read which tokens are trained, and how many there may be."""
    get = draft.get
    trains_all = get("dataset.train_on_input")
    trains_all = builder.startswith("alpaca") if trains_all is None else switch(trains_all)
    if trains_all and not is_text and draft.method == "sft":
        draft.put("data.dialogue.train", "everything")
        draft.say("dataset.train_on_input", Fate.KEPT, "data.dialogue.train")
        draft.say("dataset.train_on_input", Fate.DEFAULT, "data.dialogue.train", value="true")
    draft.say("dataset.train_on_input", Fate.IMPLIED, "answers alone are trained")
    length = numeric(get("tokenizer.max_seq_len", get("dataset.max_seq_len")))
    draft.put("method.max_length", length)
    for key in ("tokenizer.max_seq_len", "dataset.max_seq_len"):
        draft.say(key, Fate.KEPT, draft.spelled("method.max_length"))
    packs = switch(get("dataset.packed")) and length is not None and draft.method == "sft"
    if packs:
        draft.put("method.packing", True)
    draft.say(
        "dataset.packed", Fate.KEPT if packs else Fate.IMPLIED, draft.spelled("method.packing")
    )


def _task(draft: Draft, builder: str) -> dict[str, Any]:
    """Say what the rows of a generic builder mean, by its columns."""
    columns = {
        str(key).rpartition(".")[2]: value
        for key, value in draft.foreign.data.items()
        if str(key).startswith("dataset.column_map.")
    }
    if builder == "instruct_dataset":
        return {"prompt_completion": {"prompt": columns.get("input") or "input",
                                      "completion": columns.get("output") or "output"}}  # fmt: skip
    if builder == "text_completion_dataset":
        return {"text": {"text": str(draft.get("dataset.column", "text"))}}
    if draft.method == "dpo":
        return {"preference": {"prompt": None}}
    options: dict[str, Any] = {}
    style = str(draft.get("dataset.conversation_style", ""))
    column = draft.get("dataset.conversation_column") or columns.get("conversations")
    if column and column != "messages":
        options["messages"] = str(column)
    if style == "sharegpt":
        options.update({"role": "from", "content": "value"})
    return {"chat": options}


def _read_training(draft: Draft) -> None:
    get = draft.get
    steps, epochs = numeric(get("max_steps_per_epoch")), numeric(get("epochs", 1)) or 1
    if steps:
        draft.keep("max_steps_per_epoch", "method.max_steps", int(steps * epochs))
    draft.say("max_steps_per_epoch", Fate.IMPLIED, "epochs are whole")
    schedule = _component(get("lr_scheduler._component_", ""))
    kind = "cosine" if "cosine" in schedule else "constant"
    draft.put("method.lr_scheduler_type", kind)
    draft.say("lr_scheduler._component_", Fate.KEPT, draft.spelled("method.lr_scheduler_type"))
    draft.say("lr_scheduler", Fate.DEFAULT, draft.spelled("method.lr_scheduler_type"), value=kind)
    checkpoints = switch(get("enable_activation_checkpointing"))
    draft.put("method.gradient_checkpointing", checkpoints)
    where = draft.spelled("method.gradient_checkpointing")
    draft.say("enable_activation_checkpointing", Fate.KEPT, where)
    logger = _component(get("metric_logger._component_", ""))
    trackers = {
        "WandBLogger": "wandb",
        "TensorBoardLogger": "tensorboard",
        "CometLogger": "comet_ml",
    }
    draft.put("method.report_to", trackers.get(logger, "none"))
    draft.say("metric_logger._component_", Fate.KEPT, draft.spelled("method.report_to"))
    draft.put("method.save_strategy", "steps" if get("save_every_n_steps") else "epoch")


def _write_defaults(draft: Draft) -> None:
    """Write out what torchtune means where it is silent."""
    draft.default("optimizer.lr", "method.learning_rate", 1e-3)
    draft.default("optimizer.weight_decay", "method.weight_decay", 0.01, "torch's AdamW")
    draft.default("epochs", "method.num_train_epochs", 1)
    draft.default("gradient_accumulation_steps", "method.gradient_accumulation_steps", 1)
    draft.default("batch_size", "method.per_device_train_batch_size", 1)
    if draft.get("clip_grad_norm") is None:
        draft.default("clip_grad_norm", "method.max_grad_norm", 0, "torchtune clips nothing")
    if draft.adapter == "lora":
        draft.default("model.lora_rank", "adapter.r", 8)
        draft.default("model.lora_alpha", "adapter.lora_alpha", 16)
        draft.default("model.lora_dropout", "adapter.lora_dropout", 0.0)
